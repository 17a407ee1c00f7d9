package listener

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"swivel/relay"
)

func TestServe(t *testing.T) {
	r := run(t, &Service{Name: "web", Door: door{serve: echo}}, 1000, 100, 100)
	c := r.dial(t)
	if got := ask(t, c, "hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
	r.stop() // no new clients; c goes on
	if got := ask(t, c, "still here"); got != "still here" {
		t.Errorf("got %q", got)
	}
	c.Close()
	r.end()
	if _, err := net.Dial("tcp", r.addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after stop: got %v, want refused", err)
	}
	closed := r.log.with(t, "closed")
	if len(closed) != 1 {
		t.Fatalf("got %d access lines, want 1", len(closed))
	}
	for _, field := range []string{"listener", "mode", "client", "user", "session", "target", "address", "source",
		"attempts", "dns_ms", "connect_ms", "up", "down", "took", "status", "reason"} {
		if _, ok := closed[0][field]; !ok {
			t.Errorf("the access line has no %s", field)
		}
	}
}

// R2: no error of accept(2) ends the loop, and it is told at most once a second.
func TestServeOutlivesAcceptErrors(t *testing.T) {
	errnos := []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.EPROTO, syscall.EINTR, syscall.EPERM, syscall.ENETDOWN, syscall.Errno(9999)}
	for _, errno := range errnos {
		t.Run(errno.Error(), func(t *testing.T) {
			log := new(lines)
			served := make(chan struct{})
			s := &Server{Gate: NewGate(1000), Table: new(Table), Log: zerolog.New(log)}
			s.Gate.Limit(10, 10)
			s.Use(&Service{Door: door{serve: func(context.Context, *Client) { close(served) }}})
			ln, err := Listen(t.Context(), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error)
			go func() { done <- s.Serve(ctx, ctx, &failing{Listener: ln, err: errno, times: 3}) }()
			<-served
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
			if n := len(log.with(t, "accept")); n != 1 {
				t.Errorf("got %d lines about accept, want 1", n)
			}
		})
	}
}

// failing is a listening socket whose first accepts fail.
type failing struct {
	*Listener
	err   error
	times int
}

func (f *failing) Accept() (*relay.Socket, error) {
	if f.times > 0 {
		f.times--
		return nil, &net.OpError{Op: "accept", Err: f.err}
	}
	return f.Listener.Accept()
}

func TestServeListenerClosedByOther(t *testing.T) {
	s := &Server{Gate: NewGate(1000), Table: new(Table), Log: zerolog.Nop()}
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := s.Serve(t.Context(), t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

// R1: clients that descriptors do not suffice for wait; none is closed, and all are
// served when others have gone.
func TestServeWaitsForDescriptors(t *testing.T) {
	const descriptors = 64
	slots := Capacity(descriptors)
	r := run(t, &Service{Door: door{serve: echo}}, descriptors, 10_000, 10_000)
	var first, queued []net.Conn
	for range slots {
		first = append(first, r.dial(t))
	}
	for _, c := range first {
		ask(t, c, "a")
	}
	for range 20 {
		queued = append(queued, r.dial(t)) // by the kernel
	}
	if got := r.Table.Len(); got != slots {
		t.Errorf("got %d clients, want %d", got, slots)
	}
	for i, c := range queued {
		first[i%len(first)].Close() // more than once for some, which does nothing
		if i >= len(first) {
			queued[i-len(first)].Close()
		}
		if got := ask(t, c, "b"); got != "b" {
			t.Errorf("got %q", got)
		}
	}
	if n := len(r.log.with(t, "out of descriptors, accepting paused")); n == 0 {
		t.Error("nothing is said about it")
	}
}

// R4: limits in all, and for one client.
func TestServeLimits(t *testing.T) {
	refused := make(chan error, 10)
	d := door{serve: echo, refuse: func(c *Client, why error) {
		refused <- why
		io.WriteString(c, "no")
	}}
	for _, tt := range []struct {
		name                   string
		connections, perClient int
		clients                []netip.Prefix
		want                   error
	}{
		{"in all", 1, 100, nil, ErrConnections},
		{"per client", 100, 1, nil, ErrPerClient},
		{"client address", 100, 100, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, ErrClient},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, &Service{Door: d, Clients: tt.clients}, 1000, tt.connections, tt.perClient)
			var here net.Conn
			if tt.clients == nil {
				here = r.dial(t)
				ask(t, here, "a")
			}
			b, err := io.ReadAll(r.dial(t))
			if string(b) != "no" || err != nil {
				t.Errorf("got %q, %v", b, err)
			}
			if why := <-refused; !errors.Is(why, tt.want) {
				t.Errorf("got %v, want %v", why, tt.want)
			}
			if here == nil {
				return
			}
			ask(t, here, "undisturbed")
			here.Close()
			r.until(t, 0)
			ask(t, r.dial(t), "a")
		})
	}
}

func TestGateCountsIPv6ByNetwork(t *testing.T) {
	g := NewGate(1000)
	g.Limit(100, 1)
	a, same, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1"), netip.MustParseAddr("2001:db8:0:1::1")
	if err := g.name(a); err != nil {
		t.Fatal(err)
	}
	if err := g.name(same); !errors.Is(err, ErrPerClient) {
		t.Errorf("same /64: got %v, want ErrPerClient", err)
	}
	if err := g.name(other); err != nil {
		t.Errorf("other /64: %v", err)
	}
	g.unname(a)
	if err := g.name(same); err != nil {
		t.Errorf("after leave: %v", err)
	}
	g.unname(same)
	g.unname(other)
	if len(g.clients) != 0 || g.open != 0 {
		t.Errorf("left behind: %v, %d open", g.clients, g.open)
	}
}

// R8: a panic costs one connection.
func TestServePanic(t *testing.T) {
	d := door{serve: func(ctx context.Context, c *Client) {
		b := make([]byte, 1)
		if io.ReadFull(c, b); b[0] == 'p' {
			panic("as asked")
		}
		c.Write(b)
		echo(ctx, c)
	}}
	r := run(t, &Service{Door: d}, 1000, 100, 1) // the count must be right afterwards
	for range 3 {
		c := r.dial(t)
		io.WriteString(c, "p")
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want a reset", err)
		}
		r.until(t, 0)
	}
	if got := ask(t, r.dial(t), "a"); got != "a" {
		t.Errorf("got %q", got)
	}
	if n := len(r.log.with(t, "bug")); n != 3 {
		t.Errorf("got %d lines about it, want 3", n)
	}
	if closed := r.log.with(t, "closed"); len(closed) != 3 || closed[0]["reason"] != "panic" {
		t.Errorf("access lines: %v", closed)
	}
}

func TestUseReplacesTheService(t *testing.T) {
	accepting := make(chan context.Context, 1)
	r := run(t, &Service{Door: door{serve: func(ctx context.Context, c *Client) {
		accepting <- c.Accepting
		echo(ctx, c)
	}}}, 1000, 100, 100)
	old := r.dial(t)
	ask(t, old, "a")
	using := <-accepting
	if using.Err() != nil {
		t.Error("the first client is not to be kept from the start")
	}
	r.Use(&Service{Door: door{serve: func(_ context.Context, c *Client) { io.WriteString(c, "new") }}})
	if b, _ := io.ReadAll(r.dial(t)); string(b) != "new" {
		t.Errorf("got %q, want new", b)
	}
	if got := ask(t, old, "goes on"); got != "goes on" {
		t.Errorf("got %q", got)
	}
	<-using.Done() // but it is not to be kept for more
	<-using.Done()
}
