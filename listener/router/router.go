// Package router is the front door of a router by server name: it reads the first
// bytes of a connection, finds the name that the client asks for in its ClientHello
// or its Host field, and relays the connection, as it is, to where a route says.
//
//	router.go   a client on its way through the Door
//	head.go     the first bytes: TLS, HTTP or something else, and whose name is in them
//	http.go     the head of an HTTP request (RFC 9112)
//	route.go    which route a name takes
//	original.go where a client was going before the packet filter sent it here
//	connect.go  the upstream connection, for every kind of destination
//	backends.go which of several backends, and which are left out
//	check.go    whether they are there
//	refuse.go   what a client is told that is not relayed
//
// It decrypts nothing, changes no byte, and routes a connection once: requests that
// follow the first on the same connection go where that went.
package router

import (
	"context"
	"net/netip"
	"time"

	"swivel/internal/proxyproto"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/relay"
	"swivel/rotate"
)

// Door serves one listener's clients. Its fields are not changed once it is in use.
type Door struct {
	Name        string // the listener's, for the access line
	Transparent Transparent
	Routes      *Table
	Otherwise   Otherwise
	Opaque      []target.PortRange // original ports whose bytes are not looked at

	Policy *target.Policy // where names and original destinations may lead
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	Leave  Leave // unless a route has its own

	Head      time.Duration // for the first bytes, until the name is known
	FirstByte time.Duration // for the first of them; zero means Head
	Dial      time.Duration // for resolving, choosing and connecting
	Limits    relay.Limits  // of tunnels
}

// Leave connects as r says; r.Client is not valid for a check.
type Leave func(ctx context.Context, r rotate.Request) (*rotate.Upstream, error)

// session is one client on its way through a Door.
type session struct {
	*Door
	c        *listener.Client
	head     head
	original netip.AddrPort // where it was going; invalid unless transparent
}

// Serve implements listener.Door.
func (d *Door) Serve(ctx context.Context, c *listener.Client) {
	s := &session{Door: d, c: c, head: head{c: c.Socket}}
	c.Line.Hello = new(listener.Hello)
	if err := s.serve(ctx); err != nil {
		s.refuse(err)
	}
}

// serve makes a tunnel of the client. Its error is why it did not.
func (s *session) serve(ctx context.Context) error {
	if err := s.findOriginal(); err != nil {
		return err
	}
	to, err := s.decide()
	if err != nil {
		return err
	}
	up, err := s.connect(ctx, to)
	if err != nil {
		return err
	}
	// A connection of our own that came back before it was noted as such has been by
	// now: connecting took longer than that.
	if s.c.OurOwn() {
		up.close()
		return target.ErrLoop
	}
	if err := s.introduce(up, to.SendProxy); err != nil {
		up.close()
		return err
	}
	s.c.SetDeadline(time.Time{})
	s.c.Relay(relay.NewConn(s.c.Socket, s.head.buf), up.Duplex, up.limits, up.held)
	return nil
}

// decide finds out where the client is to go. The error is why it is to go nowhere.
func (s *session) decide() (*Target, error) {
	l := s.c.Line.Hello
	if s.original.IsValid() && listed(s.Opaque, s.original.Port()) {
		l.Outcome = "opaque"
		return &Target{Kind: Original}, nil
	}
	out, err := s.readHead()
	l.Decide = time.Since(s.c.Line.Start)
	s.note()
	if err != nil && out == "" {
		return nil, err
	}
	if out == "" {
		if r := s.Routes.Find(s.head.name, s.head.alpn); r != nil {
			l.Outcome = "routed"
			return closing(&r.Target, errRoute)
		}
		out, err = NoRoute, errNoRoute
	}
	l.Outcome = string(out)
	return closing(s.Otherwise[out], err)
}

// closing returns t, or why the client is closed when that is what t says.
func closing(t *Target, why error) (*Target, error) {
	if t == nil || t.Kind == Close {
		return nil, why
	}
	return t, nil
}

// note puts what is known of the client's first bytes onto the access line.
func (s *session) note() {
	l := &s.c.Line
	l.Mode = s.head.kind.String()
	if len(s.head.name) > 0 {
		l.Target = target.Target{Name: string(s.head.name), Port: s.wanted().Port()}.String()
	}
	for p := range s.head.alpn.All() {
		l.Hello.ALPN = append(l.Hello.ALPN, string(p))
	}
	l.Hello.Records, l.Hello.ECH = s.head.records, s.head.ech
}

// wanted is where the client meant to connect to, as far as is known.
func (s *session) wanted() netip.AddrPort {
	switch claim := s.c.Claim; {
	case s.original.IsValid():
		return s.original
	case claim != nil && claim.Dst.IsValid():
		return claim.Dst
	}
	return s.c.Local()
}

// introduce tells upstream who the client is, in front of the client's bytes.
func (s *session) introduce(up *upstream, v SendProxy) error {
	if v == NoProxy {
		return nil
	}
	h := proxyproto.Header{Src: s.c.Addr, Dst: s.wanted()}
	_, err := up.Write(proxyproto.Append(nil, int(v), h))
	return err
}
