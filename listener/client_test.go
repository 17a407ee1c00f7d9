package listener

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"swivel/relay"
)

// tunnels returns a Door that relays every client to an upstream that echoes, from
// the loopback address of each turn.
func tunnels(t *testing.T, sources ...string) door {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // ends with c
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	next := make(chan string, len(sources))
	for _, s := range sources {
		next <- s
	}
	return door{serve: func(_ context.Context, c *Client) {
		src := <-next
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(src)}}
		up, err := d.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}

		c.Line.Source = src
		c.Relay(relay.NewConn(c.Socket, nil), up.(*net.TCPConn), relay.Limits{}, nil)
	}}
}

// reset reads until c is reset.
func reset(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestRelayCounts(t *testing.T) {
	r := run(t, &Service{Door: tunnels(t, "127.0.0.2")}, 1000, 100, 100)
	c := r.dial(t)
	ask(t, c, strings.Repeat("x", 1000))
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	r.until(t, 0)
	l := r.log.with(t, "closed")
	if len(l) != 1 || l[0]["up"] != 1000.0 || l[0]["down"] != 1000.0 || l[0]["reason"] != "client-closed" || l[0]["source"] != "127.0.0.2" {
		t.Errorf("got %v", l)
	}
}

// R8: what a Door does when its tunnel has ended runs among other tunnels.
func TestRelayDonePanics(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := door{serve: func(_ context.Context, c *Client) {
		up, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		c.Relay(c.Socket, up.(*net.TCPConn), relay.Limits{}, panics{})
	}}
	r := run(t, &Service{Door: d}, 1000, 100, 1)
	for range 3 {
		r.dial(t).Close()
		up, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		up.Close()
		r.until(t, 0)
	}
	if n := len(r.log.with(t, "bug")); n != 3 {
		t.Errorf("got %d lines about it, want 3", n)
	}
	if closed := r.log.with(t, "closed"); len(closed) != 3 || closed[0]["reason"] != "panic" {
		t.Errorf("access lines: %v", closed)
	}
}

func TestEndSource(t *testing.T) {
	r := run(t, &Service{Door: tunnels(t, "127.0.0.2", "127.0.0.3")}, 1000, 100, 100)
	two, three := r.dial(t), net.Conn(nil)
	ask(t, two, "a")
	three = r.dial(t)
	ask(t, three, "a")
	r.Table.EndSource(netip.MustParsePrefix("127.0.0.2/32"), relay.SourceGone)
	reset(t, two)
	if got := ask(t, three, "undisturbed"); got != "undisturbed" {
		t.Errorf("got %q", got)
	}
	r.until(t, 1)
	if l := r.log.with(t, "closed"); len(l) != 1 || l[0]["reason"] != "source-gone" {
		t.Errorf("got %v", l)
	}
}

// End finds a client wherever it is: before it has an upstream connection, and
// between being ended and getting one.
func TestEnd(t *testing.T) {
	t.Run("in the head", func(t *testing.T) {
		in := make(chan struct{})
		r := run(t, &Service{Door: door{serve: func(_ context.Context, c *Client) {
			close(in)
			io.Copy(io.Discard, c.Socket)
		}}}, 1000, 100, 100)
		c := r.dial(t)
		<-in
		r.Table.End(relay.Drained)
		reset(t, c)
		r.until(t, 0)
		if l := r.log.with(t, "closed"); len(l) != 1 || l[0]["reason"] != "drained" {
			t.Errorf("got %v", l)
		}
	})
	t.Run("before the tunnel", func(t *testing.T) {
		tunnel := tunnels(t, "127.0.0.2")
		r := run(t, &Service{Door: door{serve: func(ctx context.Context, c *Client) {
			io.ReadFull(c, make([]byte, 1))
			c.End(relay.Killed)
			tunnel.serve(ctx, c)
		}}}, 1000, 100, 100)
		c := r.dial(t)
		io.WriteString(c, "x")
		reset(t, c)
		r.until(t, 0)
		if l := r.log.with(t, "closed"); len(l) != 1 || l[0]["reason"] != "killed" {
			t.Errorf("got %v", l)
		}
		if n := len(r.Table.locals); n != 0 {
			t.Errorf("%d upstream connections are still noted", n)
		}
	})
}

// L3: what a peer sends cannot end a line or make one of its own.
func TestLineIsOneLine(t *testing.T) {
	r := run(t, &Service{Name: "web", Door: door{serve: func(_ context.Context, c *Client) {
		c.Line.User = "a\r\n{\"message\":\"closed\"}\x1b[2J\"" + strings.Repeat("x", 1000)
		c.Line.Err = errors.New(c.Line.User)
		c.Line.Reason = "test"
	}}}, 1000, 100, 100)
	io.ReadAll(r.dial(t))
	r.until(t, 0)
	l := r.log.with(t, "closed")
	if len(l) != 1 {
		t.Fatalf("got %d lines, want 1", len(l))
	}
	for _, field := range []string{"user", "error"} {
		if n := len(l[0][field].(string)); n > 256 {
			t.Errorf("%s has %d bytes, want 256 at most", field, n)
		}
	}
}

func TestLogOfRequestsReplacesTheConnections(t *testing.T) {
	r := run(t, &Service{Name: "web", Door: door{serve: func(_ context.Context, c *Client) {
		for range 2 {
			l := c.NewLine("web")
			l.Reason = "done"
			c.Log(&l)
		}
	}}}, 1000, 100, 100)
	io.ReadAll(r.dial(t))
	r.until(t, 0)
	if n := len(r.log.with(t, "closed")); n != 2 {
		t.Errorf("got %d lines, want 2", n)
	}
}

type panics struct{}

func (panics) Done() { panic("as asked") }
