// Package egress is the front door of a forward proxy: clients ask it, by CONNECT,
// SOCKS5 or plain HTTP on one port, to connect them to a destination through the
// next source of a pool.
//
//	egress.go   tells the protocols apart; opens the connection, for all three
//	reader.go   the head of a connection, bounded, as it arrives
//	ask.go      what a user name asks for
//	head.go     the head of a CONNECT request (RFC 9112, RFC 9931)
//	connect.go  CONNECT
//	socks.go    SOCKS5 (RFC 1928, RFC 1929)
//	forward.go  absolute-form requests (RFC 9112 section 3.2.2), by net/http;
//	            forwardconn.go and meter.go are the connections as it sees them
//	exchange.go one such request and its response
//	verify.go   whether the TLS in a tunnel asks for the same host
//	upgrade.go  an exchange that becomes a tunnel
//	answer.go   what a client is told, whatever went wrong
//	exit.go     what other proxies are told, and what of theirs the client is;
//	via.go      how loops of them are noticed
//
// It does not decrypt, does not cache, and speaks HTTP/2 with nobody.
package egress

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"time"

	"swivel/internal/auth"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/relay"
	"swivel/rotate"
)

// Door serves one listener's clients. Its fields are not changed once it is in
// use.
type Door struct {
	Name   string         // the listener's, for the access line
	Users  *auth.Users    // who may pass; nil: everyone
	Policy *target.Policy // where to
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	Dialer *rotate.Dialer
	TLS    *tls.Config // when set, clients may speak TLS to the proxy

	// What clients may ask for in their user names: see ask.
	Pools    map[string]*rotate.Pool // by name
	Sessions rotate.Session          // as those of clients are, but for the ID
	Rights   []Rights                // nil: everyone may ask for all but a source

	// Wants says what the source must be like for a user, or "", who goes to t. Nil
	// means that any will do.
	Wants func(user string, t target.Target) []rotate.Want

	Verify Verify // of tunnels by CONNECT and SOCKS5

	Head   time.Duration // for all of what a client says before it is served
	Dial   time.Duration // for resolving, choosing a source and connecting
	Limits relay.Limits  // of tunnels, and of requests
}

// session is one client on its way through a Door.
type session struct {
	*Door
	c    *listener.Client
	conn relay.Duplex // the client's connection, or the TLS inside it
	in   reader       // of conn
	ask  ask          // of the request that is served
	via  string       // the Via field of the request
}

// errProtocol: the first bytes are of no protocol that is served here.
var errProtocol = errors.New("neither HTTP nor SOCKS5")

// Serve implements listener.Door.
func (d *Door) Serve(ctx context.Context, c *listener.Client) {
	s := &session{Door: d, c: c, conn: c.Socket, in: reader{c: c.Socket}}
	// One deadline for the whole head. A client that is silent, or sends a byte now
	// and then, would otherwise hold its goroutine and descriptor for ever.
	c.SetDeadline(c.Line.Start.Add(d.Head))
	if err := s.serve(ctx); err != nil {
		c.Line.Err = err
		switch {
		case c.Ended() != "": // the listener knows why
		case errors.Is(err, errProtocol):
			c.Line.Reason = "wrong-protocol"
		default:
			c.Line.Reason = "no-request"
		}
	}
}

// serve tells the protocols apart by their first byte. Its error means that the
// client has said nothing that could be answered.
func (s *session) serve(ctx context.Context) error {
	if err := s.in.need(1); err != nil {
		return err
	}
	if s.in.buf[0] == tlsHandshake && s.TLS != nil {
		if err := s.handshake(ctx); err != nil {
			return err
		}
	}
	switch b := s.in.buf[0]; {
	case b == socksVersion:
		return s.socks(ctx)
	case isTokenByte(b) || b == '\r' || b == '\n' || b == ' ' || b == '\t':
		return s.http(ctx)
	default:
		return errProtocol
	}
}

// tlsHandshake is the type of the record that a ClientHello comes in, RFC 8446
// section 5.1.
const tlsHandshake = 22

func (s *session) handshake(ctx context.Context) error {
	t := tls.Server(relay.NewConn(s.c.Socket, s.in.buf), s.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	s.conn = t
	s.in = reader{c: t}
	return s.in.need(1)
}

// open connects to t through the pool, and notes on l how that went. The caller
// closes the connection, and then calls its Done.
func (s *session) open(ctx context.Context, l *listener.Line, t target.Target) (*rotate.Upstream, error) {
	if l.Target == "" {
		l.Target = t.String()
	}
	if s.c.OurOwn() || s.hasBeenHere() {
		return nil, target.ErrLoop
	}
	addrs, err := s.resolve(ctx, l, t)
	if err != nil {
		return nil, err
	}
	r := rotate.Request{
		Addrs:   addrs,
		Target:  t.Name,
		Client:  s.c.Addr.Addr(),
		User:    l.User,
		Wants:   s.ask.wants,
		Source:  s.ask.source,
		Exit:    s.exitRequest(l),
		Timeout: max(s.Dial-l.DNS, time.Nanosecond),
	}
	if s.ask.session != "" {
		r.Session = s.Sessions
		r.Session.ID, r.Session.Time = s.ask.session, cmp.Or(s.ask.time, s.Sessions.Time)
	}
	if s.Wants != nil {
		r.Wants = slices.Concat(r.Wants, s.Wants(l.User, t))
	}
	start := time.Now()
	up, err := s.dialer().Dial(ctx, r)
	l.Connect = time.Since(start)
	if derr, ok := errors.AsType[*rotate.Error](err); ok {
		l.Address, l.Source, l.Attempts = known(derr.Addr), derr.Source.String(), derr.Attempts
	}
	if err != nil {
		return nil, err
	}
	l.Address, l.Source, l.Attempts, l.Cooling = known(up.Addr), up.Source.String(), up.Attempts, up.Cooling
	return up, nil
}

// resolve finds the addresses of t that may be dialed. Where proxies look names up, it
// is an unspecified one.
func (s *session) resolve(ctx context.Context, l *listener.Line, t target.Target) ([]netip.AddrPort, error) {
	if t.Name == "" {
		return s.Policy.Resolve(ctx, t, s.lookup)
	}
	if s.dialer().Pool.Names() {
		return []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), t.Port)}, s.Policy.JudgeName(t)
	}
	ctx, cancel := context.WithTimeout(ctx, s.Dial)
	defer cancel()
	start := time.Now()
	addrs, err := s.Policy.Resolve(ctx, t, s.lookup)
	l.DNS = time.Since(start)
	return addrs, err
}

// dialer is the Door's, with the pool that was asked for.
func (s *session) dialer() *rotate.Dialer {
	if s.ask.pool == "" {
		return s.Dialer
	}
	d := *s.Dialer
	d.Pool = s.Pools[s.ask.pool]
	return &d
}

// succeed tells the client that the tunnel begins, and reports whether it could.
func (s *session) succeed(answer []byte) bool {
	extendWrite(s.conn)
	_, err := s.conn.Write(answer)
	if err == nil {
		return true
	}
	s.c.Line.Reason, s.c.Line.Err = string(relay.ClientReset), err
	if why := s.c.Ended(); why != "" {
		s.c.Line.Reason = string(why)
	}
	return false
}

// lookup asks for the addresses of a name only when something could leave for them:
// that there is no source is to be known at once, whatever the name server does.
func (s *session) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if s.dialer().Pool.Empty() {
		return nil, rotate.ErrNoSource
	}
	return s.Lookup(ctx, name)
}

// tunnel gives the client the answer that it is connected, and makes a tunnel of the
// session, which owns up from then on. What the client sent behind its request is
// the first that goes through.
func (s *session) tunnel(t target.Target, up *rotate.Upstream, answer []byte) {
	if !s.succeed(answer) {
		up.Close()
		up.Done()
		return
	}
	s.c.SetDeadline(time.Time{})
	s.c.Relay(s.in.rest(s.screen(t)), up.Stream, up.Bound(s.Limits), up.Release())
}

// Refuse implements listener.Door.
func (d *Door) Refuse(c *listener.Client, why error) {
	s := &session{Door: d, c: c, conn: c.Socket, in: reader{c: c.Socket}}
	c.SetDeadline(time.Now().Add(lingerTime))
	f := explain(why)
	c.Line.Reason = f.reason()
	if s.in.need(1) != nil {
		return
	}
	switch b := s.in.buf[0]; {
	case b == socksVersion:
		// The reply belongs to a request, which need not be waited for. A client that
		// has yet to say who it is cannot be led there.
		answer := []byte{socksVersion, socksNoMethod}
		if d.Users == nil {
			answer = s.socksEarlyAnswer(f.reply())
		}
		c.Write(answer)
	case isTokenByte(b):
		c.Line.Status = f.Status
		c.Write(f.response())
	default:
		return
	}
	linger(s.conn)
}
