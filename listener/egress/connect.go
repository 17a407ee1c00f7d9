package egress

import (
	"context"
	"errors"
	"os"
	"slices"

	"swivel/internal/auth"
	"swivel/listener"
	"swivel/rotate"
)

// http serves a client whose first byte may be that of an HTTP request. CONNECT is
// read here; what else there is, is net/http's.
func (s *session) http(ctx context.Context) error {
	line, err := s.in.requestLine()
	switch {
	case err != nil:
		return s.noRequest(err)
	case line.method == "CONNECT":
		return s.connect(ctx, line)
	case isHTTPURL(line.target):
		s.forward(ctx)
	case !slices.Contains(methods, line.method):
		s.refuse(&s.c.Line, errMethod)
	default:
		s.refuse(&s.c.Line, malformed("request target: want CONNECT, or an http:// URL"))
	}
	return nil
}

// methods are those of RFC 9110 and RFC 5789, but for TRACE, which would show a
// client the request as the proxy sent it.
var methods = []string{"CONNECT", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}

// connect serves a CONNECT request, RFC 9110 section 9.3.6. A refused one closes
// the connection: what the client sent behind it would be taken for another
// request, RFC 9931.
func (s *session) connect(ctx context.Context, line requestLine) error {
	l := &s.c.Line
	l.Mode = "connect"
	r, err := s.in.connectRequest(line)
	if err != nil {
		return s.noRequest(err)
	}
	l.Target, s.via = r.target.Text(r.text), r.via
	if err := s.authenticate(l, r.credentials); err != nil {
		s.refuse(l, err)
		return nil
	}
	up, err := s.open(ctx, l, r.target)
	if err != nil {
		s.refuse(l, err)
		return nil
	}
	l.Status = 200
	s.tunnel(r.target, up, established(l, up))
	return nil
}

// established is the answer to a CONNECT request whose tunnel begins.
func established(l *listener.Line, up *rotate.Upstream) []byte {
	b := make([]byte, 0, 192)
	b = append(b, "HTTP/1.1 200 Connection established\r\nProxy-Status: swivel; next-hop=\""...)
	if up.Source.Exit == nil {
		b = l.Address.AppendTo(b)
	} else {
		b = append(b, l.Source...)
	}
	b = append(b, "\"\r\nSwivel-Source: "...)
	b = append(b, left(up, l)...)
	return append(b, "\r\n\r\n"...)
}

// authenticate judges the credentials of an HTTP request, before anything else of
// it: who has none learns nothing of the policy.
func (s *session) authenticate(l *listener.Line, credentials string) error {
	name, password, ok := basicAuth(credentials)
	switch {
	case ok:
		return s.login(l, name, password)
	case s.Users != nil:
		return auth.ErrDenied
	}
	s.ask = ask{}
	return nil
}

// login judges a user name and its password, and then reads what the name asks for.
func (s *session) login(l *listener.Line, name, password string) (err error) {
	user, rest := s.identify(name)
	l.User = user
	if s.Users != nil {
		if err := s.Users.Verify(s.c.Addr.Addr(), user, password); err != nil {
			return err
		}
	}
	if s.ask = (ask{}); rest == "" {
		return nil
	}
	if s.ask, err = s.readAsk(rest); err != nil {
		return err
	}
	l.Session = s.ask.session
	return s.check(user, &s.ask)
}

// noRequest handles a head that did not arrive whole, or is wrong. A client that
// has gone, never said anything, or would not understand it, gets no answer and is
// the returned error.
func (s *session) noRequest(err error) error {
	silent := errors.Is(err, os.ErrDeadlineExceeded) && len(s.in.buf) == 0
	if silent || errors.Is(err, errGone) || errors.Is(err, errProtocol) {
		return err
	}
	s.refuse(&s.c.Line, err)
	return nil
}

// refuse answers why with what the table of answers has for it, and closes.
func (s *session) refuse(l *listener.Line, why error) { s.answer(l, explain(why), why) }

func (s *session) answer(l *listener.Line, f failure, why error) {
	l.Status, l.Reason, l.Err = f.Status, f.reason(), why
	extendWrite(s.conn)
	s.conn.Write(f.response())
	linger(s.conn)
}
