package router

import (
	"errors"
	"fmt"
	"io"
	"time"

	"swivel/internal/resolver"
	"swivel/listener"
	"swivel/listener/refusal"
	"swivel/sni"
)

// answer is what a client is told, and what the access line has for it.
type answer struct {
	reason string
	alert  sni.Alert // when it speaks TLS; zero: none
	status int       // when it speaks HTTP; zero: none
}

// answers is what there is to say of the first bytes. Of what came after that, package
// refusal knows.
var answers = []struct {
	why error
	answer
}{
	{errGone, answer{"no-hello", 0, 0}},
	{errDirect, answer{"not-redirected", 0, 0}},
	{errRoute, answer{"closed", sni.UnrecognizedName, 421}},
	{errNoRoute, answer{string(NoRoute), sni.UnrecognizedName, 421}},
	{errNoName, answer{string(NoName), sni.MissingExtension, 400}},
	{errNotTLS, answer{string(NotTLS), 0, 0}},
	{errTimeout, answer{string(Timeout), 0, 408}},
	{errMalformed, answer{string(Malformed), sni.DecodeError, 400}},
	{sni.ErrMalformed, answer{string(Malformed), sni.DecodeError, 400}},
	{errTooLarge, answer{string(TooLarge), sni.DecodeError, 431}},
	{sni.ErrTooLarge, answer{string(TooLarge), sni.DecodeError, 431}},
}

// explain finds the answer for an error.
func explain(err error) answer {
	for _, a := range answers {
		if errors.Is(err, a.why) {
			return a.answer
		}
	}
	r, ok := refusal.Of(err)
	if !ok { // time ran out for a lookup, or the PROXY header was not taken
		r = refusal.OfConnect(err)
	}
	a := answer{r.Type, sni.InternalError, r.Status}
	switch {
	case r.Type == refusal.RequestDenied, r.Type == refusal.Prohibited:
		a.alert = sni.AccessDenied
	case errors.Is(err, resolver.ErrNotFound):
		a.alert = sni.UnrecognizedName
	}
	return a
}

const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// refuse tells the client why it is not relayed, as the protocol that it speaks has
// it.
func (s *session) refuse(why error) {
	a := explain(why)
	l := &s.c.Line
	l.Err = why
	if s.c.Ended() != "" { // the listener knows why
		return
	}
	l.Reason = a.reason
	switch {
	case s.head.kind == tlsHello && a.alert != 0:
		s.say(a.alert.Record())
	case s.head.kind == httpRequest && a.status != 0:
		l.Status = a.status
		s.say(fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", a.status, a.reason))
	}
}

// say is the last that the client hears. It reaches the client before the connection
// is closed: closing with unread input makes the kernel send a reset, which can
// overtake it.
func (s *session) say(b []byte) {
	s.c.SetDeadline(time.Now().Add(lingerTime))
	s.c.Write(b)
	s.c.CloseWrite()
	io.CopyN(io.Discard, s.c.Socket, lingerBytes)
}

// Refuse implements listener.Door.
func (d *Door) Refuse(c *listener.Client, why error) {
	s := &session{Door: d, c: c, head: head{c: c.Socket}}
	c.SetDeadline(time.Now().Add(lingerTime))
	for s.head.kind == unknown && s.head.buf.More(c.Socket) == nil {
		var err error
		if s.head.kind, err = kindOf(s.head.buf); err != nil && err != errIncomplete {
			break
		}
	}
	s.refuse(why)
}
