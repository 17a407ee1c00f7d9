package router_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"swivel/internal/proxyproto"
	"swivel/internal/target"
	"swivel/listener/router"
	"swivel/rotate"
)

// served says which server a client gets.
func (r *rig) served(t *testing.T) string {
	t.Helper()
	c := r.dial(t)
	c.Write(hello(t, "a.example.com"))
	b := make([]byte, 1)
	io.ReadFull(c, b)
	c.CloseWrite()
	io.ReadAll(c)
	return string(b)
}

// A backend that refuses costs the client nothing but the attempt, and the next
// client not even that.
func TestNextBackend(t *testing.T) {
	r := newRig(t, func(r *rig) {
		b := router.NewBackends(router.RoundRobin, at(nobody(t)), at(greeter(t, "b")), at(greeter(t, "c")))
		r.routes = []router.Route{to(b, "*")}
	})
	if got := r.served(t); got != "b" {
		t.Errorf("got %q, want b", got)
	}
	r.line(t, map[string]any{"attempts": 2.0, "reason": "client-closed"})
	for range 4 {
		r.served(t)
		r.line(t, map[string]any{"attempts": 1.0})
	}
}

// One that is silent has its share of the time, not all of it.
func TestSilentBackend(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.Dial = time.Second
		b := router.NewBackends(router.RoundRobin, at("127.0.0.9:1"), at(greeter(t, "b")))
		r.routes = []router.Route{to(b, "*")}
		leave := r.Leave
		r.Leave = func(ctx context.Context, req rotate.Request) (*rotate.Upstream, error) {
			if req.Addrs[0].Port() == 1 {
				<-time.After(req.Timeout)
				return nil, &rotate.Error{Addr: req.Addrs[0], Attempts: 1, Err: os.ErrDeadlineExceeded}
			}
			return leave(ctx, req)
		}
	})
	if got := r.served(t); got != "b" {
		t.Errorf("got %q, want b", got)
	}
	r.line(t, map[string]any{"attempts": 2.0})
}

func TestNoBackend(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.routes = []router.Route{to(router.NewBackends(router.RoundRobin, at(nobody(t)), at(nobody(t))), "*")}
	})
	for range 2 { // also when both are left out
		c := r.dial(t)
		c.Write(hello(t, "a.example.com"))
		if b := last(c); string(b) != alert(80) {
			t.Errorf("got %q", b)
		}
		r.line(t, map[string]any{"reason": "connection_refused", "attempts": 2.0})
	}
	c := r.dial(t)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
	if b, _ := io.ReadAll(c); string(b[:12]) != "HTTP/1.1 502" {
		t.Errorf("got %q", b)
	}
}

// Checks find out that a backend has gone, and that it is back.
func TestCheck(t *testing.T) {
	var up atomic.Bool
	changes := make(chan string, 100)
	b := router.NewBackends(router.RoundRobin, at("127.0.0.9:1"), at(greeter(t, "b")))
	b.Every = 10 * time.Millisecond
	b.Changed = func(_ target.Target, err error) {
		if err == nil {
			changes <- "back"
		} else {
			changes <- "out"
		}
	}
	a := netip.MustParseAddrPort(greeter(t, "a"))
	r := newRig(t, func(r *rig) {
		r.routes = []router.Route{to(b, "*")}
		leave := r.Leave
		r.Leave = func(ctx context.Context, req rotate.Request) (*rotate.Upstream, error) {
			if req.Addrs[0].Port() == 1 {
				if !up.Load() {
					return nil, &rotate.Error{Addr: req.Addrs[0], Attempts: 1, Err: net.ErrClosed}
				}
				req.Addrs = []netip.AddrPort{a}
			}
			return leave(ctx, req)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	checked := make(chan bool)
	go func() { // until cancel
		r.Check(ctx)
		close(checked)
	}()
	want := func(change string) {
		t.Helper()
		select {
		case got := <-changes:
			if got != change {
				t.Errorf("got %s, want %s", got, change)
			}
		case <-time.After(patience):
			t.Fatalf("not %s", change)
		}
	}
	want("out")
	for range 4 {
		if got := r.served(t); got != "b" {
			t.Errorf("got %q, want b", got)
		}
	}
	up.Store(true)
	want("back")
	if first, second := r.served(t), r.served(t); first == second {
		t.Errorf("got %s twice", first)
	}
	up.Store(false)
	want("out")
	cancel()
	<-checked
}

// A backend that leads back here is not dialed.
func TestBackendLoops(t *testing.T) {
	self := "127.0.0.1:1"
	r := newRig(t, func(r *rig) {
		r.Policy.Loop = func(ap netip.AddrPort) bool { return ap.String() == self }
		r.routes = []router.Route{to(one(self), "*")}
	})
	c := r.dial(t)
	c.Write(hello(t, "a.example.com"))
	last(c)
	r.line(t, map[string]any{"reason": "proxy_loop_detected", "attempts": 0.0})
}

// A backend by name is resolved for each connection, and judged by no policy.
func TestBackendByName(t *testing.T) {
	addr := netip.MustParseAddrPort(greeter(t, "b"))
	r := newRig(t, func(r *rig) {
		r.routes = []router.Route{to(router.NewBackends(router.RoundRobin, target.Target{Name: "b.internal", Port: addr.Port()}), "*")}
		r.names["b.internal"] = addr.Addr()
	})
	if got := r.served(t); got != "b" {
		t.Errorf("got %q", got)
	}
	r.line(t, map[string]any{"address": addr.String()})
}

// A load balancer in front says with a PROXY header which port the client wanted.
func TestClaimedPort(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.service.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		r.service.Head = patience
		r.routes = []router.Route{kind(router.Name, "*")}
	})
	c := r.dial(t)
	header := proxyproto.Header{Src: netip.MustParseAddrPort("192.0.2.7:5000"), Dst: netip.MustParseAddrPort("192.0.2.1:443")}
	c.Write(append(proxyproto.AppendV2(nil, header), hello(t, "a.example.com")...))
	last(c)
	r.line(t, map[string]any{"target": "a.example.com:443", "client": "192.0.2.7:5000"})
}
