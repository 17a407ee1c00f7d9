package router

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"swivel/internal/exit"
	"swivel/internal/target"
	"swivel/relay"
	"swivel/rotate"
)

// upstream is the connection that a client is relayed to. It is ended by close, or
// by its tunnel, which does the same.
type upstream struct {
	relay.Duplex
	limits relay.Limits
	held   *held
}

func (u *upstream) close() {
	u.Close()
	u.held.Done()
}

// held is what an upstream has taken, and gives back at its end.
type held struct {
	turn    interface{ Done() }
	backend *backend // nil when it leads elsewhere
}

func (h *held) Done() {
	if h.backend != nil {
		h.backend.leave()
	}
	h.turn.Done()
}

// connect connects to where the client is to go, within Dial.
func (s *session) connect(ctx context.Context, to *Target) (*upstream, error) {
	until := time.Now().Add(s.Dial)
	name := string(s.head.name)
	switch to.Kind {
	case Original:
		if err := s.Policy.Pass(s.original, name); err != nil {
			return nil, err
		}
		return s.dial(ctx, to, name, []netip.AddrPort{s.original}, until)
	case Name:
		addrs, err := s.resolve(ctx, target.Target{Name: name, Port: s.wanted().Port()}, until)
		if err != nil {
			return nil, err
		}
		return s.dial(ctx, to, name, addrs, until)
	default:
		return s.connectBackend(ctx, to, until)
	}
}

// resolve finds the addresses of t that may be dialed.
func (s *session) resolve(ctx context.Context, t target.Target, until time.Time) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	start := time.Now()
	addrs, err := s.Policy.Resolve(ctx, t, s.Lookup)
	s.c.Line.DNS = time.Since(start)
	return addrs, err
}

// dial connects to one of addrs, which host stands for, and notes how that went.
func (s *session) dial(ctx context.Context, to *Target, host string, addrs []netip.AddrPort, until time.Time) (*upstream, error) {
	leave := to.Leave
	if leave == nil {
		leave = s.Leave
	}
	if host == "" {
		host = addrs[0].Addr().String()
	}
	l := &s.c.Line
	start := time.Now()
	up, err := leave(ctx, rotate.Request{
		Addrs:  addrs,
		Target: host,
		Client: s.c.Addr.Addr(),
		Exit:   exit.Request{Client: s.c.Addr, Conn: s.c.Socket},

		Timeout: max(until.Sub(start), time.Nanosecond),
	})
	l.Connect += time.Since(start)
	if derr, ok := errors.AsType[*rotate.Error](err); ok {
		l.Address, l.Source, l.Attempts = derr.Addr, derr.Source.String(), l.Attempts+derr.Attempts
	}
	if err != nil {
		return nil, err
	}
	l.Address, l.Source, l.Attempts, l.Cooling = up.Addr, up.Source.String(), l.Attempts+up.Attempts, up.Cooling
	if up.Source.Addr.IsUnspecified() { // the kernel chose
		l.Source = up.Local().Addr().String()
	}
	return &upstream{up.Stream, up.Bound(s.Limits), &held{turn: up.Release()}}, nil
}

// connectBackend connects to the first backend of to that answers. Each has its
// share of the time that is left, so that one which is silent does not use up all.
func (s *session) connectBackend(ctx context.Context, to *Target, until time.Time) (up *upstream, err error) {
	order := to.Backends.order(s.c.Addr.Addr())
	for i, b := range order {
		left := time.Until(until)
		if i > 0 && (left <= 0 || ctx.Err() != nil) {
			break
		}
		share := left / time.Duration(len(order)-i)
		if up, err = s.try(ctx, to, b, time.Now().Add(share)); err == nil {
			break
		}
	}
	return up, err
}

func (s *session) try(ctx context.Context, to *Target, b *backend, until time.Time) (*upstream, error) {
	b.enter()
	addrs, err := s.backendAddrs(ctx, b, until)
	var up *upstream
	if err == nil {
		up, err = s.dial(ctx, to, b.target.Host(), addrs, until)
	}
	if err != nil {
		b.leave()
		if b.isToBlame(ctx, err) {
			to.Backends.failed(b, err)
		}
		return nil, err
	}
	to.Backends.succeeded(b)
	up.held.backend = b
	return up, nil
}

// backendAddrs returns the addresses of b, except for those that lead back here.
func (s *session) backendAddrs(ctx context.Context, b *backend, until time.Time) ([]netip.AddrPort, error) {
	if b.target.Name == "" {
		return b.addrs(ctx, s.Lookup, s.loops)
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	start := time.Now()
	addrs, err := b.addrs(ctx, s.Lookup, s.loops)
	s.c.Line.DNS += time.Since(start)
	return addrs, err
}

// loops reports whether a connection to ap would come back to one of our listening
// sockets.
func (d *Door) loops(ap netip.AddrPort) bool { return d.Policy.Loop != nil && d.Policy.Loop(ap) }
