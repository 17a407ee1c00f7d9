package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"swivel/internal/exit"
	"swivel/internal/resolver"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/rotate"
	"swivel/sni"
)

// refusal is what a client is told, and what the access line has for it.
type refusal struct {
	reason string
	alert  sni.Alert // when it speaks TLS; zero: none
	status int       // when it speaks HTTP; zero: none
}

// refusals is what each error means for the client, but for what connect(2) says.
var refusals = []struct {
	why error
	refusal
}{
	{errGone, refusal{"no-hello", 0, 0}},
	{errDirect, refusal{"not-redirected", 0, 0}},
	{errRoute, refusal{"closed", sni.UnrecognizedName, 421}},
	{errNoRoute, refusal{string(NoRoute), sni.UnrecognizedName, 421}},
	{errNoName, refusal{string(NoName), sni.MissingExtension, 400}},
	{errNotTLS, refusal{string(NotTLS), 0, 0}},
	{errTimeout, refusal{string(Timeout), 0, 408}},
	{errMalformed, refusal{string(Malformed), sni.DecodeError, 400}},
	{sni.ErrMalformed, refusal{string(Malformed), sni.DecodeError, 400}},
	{errTooLarge, refusal{string(TooLarge), sni.DecodeError, 431}},
	{sni.ErrTooLarge, refusal{string(TooLarge), sni.DecodeError, 431}},
	{listener.ErrClient, refusal{"http_request_denied", sni.AccessDenied, 403}},
	{listener.ErrPerClient, refusal{"http_request_error", sni.InternalError, 429}},
	{listener.ErrConnections, refusal{"connection_limit_reached", sni.InternalError, 503}},
	{target.ErrName, refusal{"http_request_denied", sni.AccessDenied, 403}},
	{target.ErrPort, refusal{"http_request_denied", sni.AccessDenied, 403}},
	{target.ErrAddress, refusal{"destination_ip_prohibited", sni.AccessDenied, 403}},
	{target.ErrLoop, refusal{"proxy_loop_detected", sni.InternalError, 502}},
	{rotate.ErrLoop, refusal{"proxy_loop_detected", sni.InternalError, 502}},
	{resolver.ErrTimeout, refusal{"dns_timeout", sni.InternalError, 504}},
	{resolver.ErrNotFound, refusal{"dns_error", sni.UnrecognizedName, 502}},
	{resolver.ErrServer, refusal{"dns_error", sni.InternalError, 502}},
	{rotate.ErrNoSource, refusal{"proxy_configuration_error", sni.InternalError, 503}},
	{rotate.ErrExhausted, refusal{"connection_limit_reached", sni.InternalError, 503}},
	{rotate.ErrResources, refusal{"connection_limit_reached", sni.InternalError, 503}},
	{context.Canceled, refusal{"connection_limit_reached", sni.InternalError, 503}},
}

// explain finds the refusal for an error.
func explain(err error) refusal {
	if _, ok := errors.AsType[*rotate.Busy](err); ok {
		return refusal{"http_request_error", sni.InternalError, 429}
	}
	if _, ok := errors.AsType[*rotate.Cooling](err); ok {
		return refusal{"connection_limit_reached", sni.InternalError, 503}
	}
	if r, ok := errors.AsType[*exit.Refusal](err); ok {
		return refusal{cmp.Or(r.Token, "destination_unavailable"), sni.InternalError, 502}
	}
	if _, ok := errors.AsType[*exit.Error](err); ok && !errors.Is(err, rotate.ErrLoop) && !errors.Is(err, context.Canceled) {
		return refusal{"destination_unavailable", sni.InternalError, 503}
	}
	for _, r := range refusals {
		if errors.Is(err, r.why) {
			return r.refusal
		}
	}
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refusal{"connection_refused", sni.InternalError, 502}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EACCES): // a blackhole route, a prohibit route
		return refusal{"destination_ip_unroutable", sni.InternalError, 502}
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return refusal{"connection_timeout", sni.InternalError, 504}
	}
	return refusal{"connection_terminated", sni.InternalError, 502}
}

const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// refuse tells the client why it is not relayed, as the protocol that it speaks has
// it.
func (s *session) refuse(why error) {
	r := explain(why)
	l := &s.c.Line
	l.Err = why
	if s.c.Ended() != "" { // the listener knows why
		return
	}
	l.Reason = r.reason
	switch {
	case s.head.kind == tlsHello && r.alert != 0:
		s.say(r.alert.Record())
	case s.head.kind == httpRequest && r.status != 0:
		l.Status = r.status
		s.say(fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", r.status, r.reason))
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
