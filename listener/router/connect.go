package router

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"swivel/internal/exit"
	"swivel/internal/target"
	"swivel/relay"
	"swivel/rotate"
)

// upstream is the connection that a client is relayed to. It is ended by close, or
// by its tunnel, which calls done.
type upstream struct {
	relay.Duplex
	done func()
}

func (u *upstream) close() {
	u.Close()
	u.done()
}

// connect connects to where the client is to go.
func (s *session) connect(ctx context.Context, to *Target) (*upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Dial)
	defer cancel()
	name := string(s.head.name)
	switch to.Kind {
	case Original:
		if err := s.Policy.Pass(s.original, name); err != nil {
			return nil, err
		}
		return s.dial(ctx, to, name, []netip.AddrPort{s.original})
	case Name:
		t := target.Target{Name: name, Port: s.port()}
		start := time.Now()
		addrs, err := s.Policy.Resolve(ctx, t, s.Lookup)
		s.c.Line.DNS = time.Since(start)
		if err != nil {
			return nil, err
		}
		return s.dial(ctx, to, name, addrs)
	default:
		return s.connectBackend(ctx, to)
	}
}

// dial connects to one of addrs, which host stands for, and notes how that went.
func (s *session) dial(ctx context.Context, to *Target, host string, addrs []netip.AddrPort) (*upstream, error) {
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
		Exit:   exit.Request{Client: s.c.Addr, Local: s.local()},
	})
	l.Connect += time.Since(start)
	if derr, ok := errors.AsType[*rotate.Error](err); ok {
		l.Address, l.Source, l.Attempts = derr.Addr, derr.Source.String(), l.Attempts+derr.Attempts
	}
	if err != nil {
		return nil, err
	}
	l.Address, l.Source, l.Attempts = up.Addr, up.Source.String(), l.Attempts+up.Attempts
	if up.Source.Addr.IsUnspecified() { // the kernel chose
		l.Source = up.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()
	}
	return &upstream{up.Stream, up.Done}, nil
}

// connectBackend connects to the first backend of to that answers. Each has its
// share of the time that is left, so that one which is silent does not use up all.
func (s *session) connectBackend(ctx context.Context, to *Target) (up *upstream, err error) {
	order := to.Backends.order(s.c.Addr.Addr())
	for i, b := range order {
		if up, err = s.try(ctx, to, b, len(order)-i); err == nil || ctx.Err() != nil {
			break
		}
	}
	return up, err
}

// try connects to b, which is the first of so many that are left.
func (s *session) try(ctx context.Context, to *Target, b *backend, left int) (*upstream, error) {
	deadline, _ := ctx.Deadline()
	mine, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
	defer cancel()
	b.enter()
	start := time.Now()
	addrs, err := b.addrs(mine, s.Lookup, s.loops)
	if b.target.Name != "" {
		s.c.Line.DNS += time.Since(start)
	}
	var up *upstream
	if err == nil {
		up, err = s.dial(mine, to, b.target.Host(), addrs)
	}
	if err != nil {
		b.leave()
		if b.isToBlame(ctx, err) {
			to.Backends.failed(b, err)
		}
		return nil, err
	}
	to.Backends.succeeded(b)
	ended := up.done
	up.done = func() {
		b.leave()
		ended()
	}
	return up, nil
}

// loops reports whether a connection to ap would come back to one of our listening
// sockets.
func (d *Door) loops(ap netip.AddrPort) bool { return d.Policy.Loop != nil && d.Policy.Loop(ap) }
