//go:build linux

package e2e

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"swivel/internal/netlab"
)

// TestIdleTunnel: two sockets, and nothing else.
func TestIdleTunnel(t *testing.T) {
	const tunnels = 50
	s := startProxy(t)
	echo := newEcho(t, nil)
	first := tunnel(t, s.addr("egress"), echo)
	alive(t, first)
	fds := netlab.FDs(s.pid())
	var held []net.Conn
	for range tunnels {
		c := tunnel(t, s.addr("egress"), echo)
		alive(t, c)
		held = append(held, c)
	}
	if got := netlab.FDs(s.pid()) - fds; got != 2*tunnels {
		t.Errorf("%d tunnels hold %d descriptors, want %d", tunnels, got, 2*tunnels)
	}
	for _, c := range append(held, first) {
		c.Close()
	}
	s.settle(fds - 2) // without the first one's
	s.stop()
}

// TestNothingIsLeft: short connections, and heads that never end, leave descriptors
// where they were.
func TestNothingIsLeft(t *testing.T) {
	const visits, halves, atOnce = 5000, 2000, 16
	s := start(t, "-config", config(t, "limits: {head: 2s, per_client: 10000}"+file("127.0.0.2")))
	proxy, echo := s.addr("egress"), newEcho(t, nil)
	if err := visit(proxy, echo); err != nil {
		t.Fatal(err)
	}
	s.line(closed)
	fds := netlab.FDs(s.pid())

	var clients sync.WaitGroup
	for range atOnce {
		clients.Go(func() {
			for range visits / atOnce {
				if err := visit(proxy, echo); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	for range halves {
		io.WriteString(dial(t, proxy), "CONNECT "+echo+" HTTP/1.1\r\nHo")
	}
	// Served beside those that are only beginning.
	if err := visit(proxy, echo); err != nil {
		t.Error(err)
	}
	s.settle(fds)
	want := 1 + visits/atOnce*atOnce + halves + 1
	s.linesAfter(0, want, closed)
	s.stop()
	if got := len(s.linesAfter(0, want, closed)); got != want {
		t.Errorf("%d access lines, want %d", got, want)
	}
}

// TestSlowHeads is R5: a byte now and then does not buy time.
func TestSlowHeads(t *testing.T) {
	const slow = 500
	s := start(t, "-config", config(t, "limits: {head: 1s}"+file("127.0.0.2")))
	proxy := s.addr("egress")
	fds := netlab.FDs(s.pid())
	var clients sync.WaitGroup
	for range slow {
		c := dial(t, proxy)
		clients.Go(func() {
			// Fails as soon as swivel has closed the connection.
			for range 1000 {
				if _, err := io.WriteString(c, "C"); err != nil {
					return
				}
				c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				if text, _ := io.ReadAll(c); strings.HasPrefix(string(text), "HTTP/1.1 408 ") {
					return
				}
			}
			t.Error("a head without an end was read on and on")
		})
	}
	clients.Wait()
	s.settle(fds)
	for _, e := range s.linesAfter(0, slow, closed) {
		if e["status"] != 408.0 {
			t.Errorf("%v, want status 408", e)
		}
	}
	s.stop()
}

// TestCaps is R4: beyond a cap one is told so; who is there already notices nothing.
func TestCaps(t *testing.T) {
	for name, tt := range map[string]struct{ limits, want string }{
		"per client": {"per_client: 2", "HTTP/1.1 429 http_request_error"},
		"in all":     {"connections: 2", "HTTP/1.1 503 connection_limit_reached"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, "-config", config(t, "limits: {"+tt.limits+"}"+file("127.0.0.2")))
			proxy, echo := s.addr("egress"), newEcho(t, nil)
			one, two := tunnel(t, proxy, echo), tunnel(t, proxy, echo)
			got := say(t, proxy, "CONNECT "+echo+" HTTP/1.1\r\nHost: a\r\n\r\n")
			if !strings.HasPrefix(got, tt.want) || !strings.Contains(got, "\r\nRetry-After: ") {
				t.Errorf("got %q, want %s and Retry-After", got, tt.want)
			}
			alive(t, one)
			alive(t, two)
			one.Close()
			eventually(t, "still refused", func() bool { return visit(proxy, echo) == nil })
			two.Close()
			s.stop()
		})
	}
}

// TestOutOfDescriptors is R1: who comes when there are none left waits, and is
// served when others have gone.
func TestOutOfDescriptors(t *testing.T) {
	const crowd = 200
	args := append([]string{"-c", `ulimit -n 64; exec "$0" "$@"`, *binary, "-listen", "127.0.0.1:0"}, viaLoopback...)
	cmd := exec.CommandContext(t.Context(), program(t, "sh"), args...)
	cmd.Env = environ()
	s := launch(t, cmd)
	proxy, echo := s.addr("egress"), newEcho(t, nil)
	held := []net.Conn{tunnel(t, proxy, echo), tunnel(t, proxy, echo)}

	var waiting []*net.TCPConn
	for range crowd {
		waiting = append(waiting, dial(t, proxy))
	}
	s.line(message("out of descriptors, accepting paused"))
	for _, c := range held {
		alive(t, c)
	}
	var clients sync.WaitGroup
	for _, c := range waiting {
		clients.Go(func() {
			defer c.Close()
			if head, err := connect(c, echo); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
				t.Errorf("CONNECT: %q, %v; want 200", head, err)
			} else if err := ping(c); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	for _, c := range held {
		alive(t, c)
		c.Close()
	}
	s.linesAfter(0, crowd+2, closed)
	s.stop()
	if got := len(s.linesAfter(0, crowd+2, closed)); got != crowd+2 {
		t.Errorf("%d access lines, want %d", got, crowd+2)
	}
}

// TestNoDescriptorAtAll is R1 where the limit is lowered under a running swivel: it
// cannot even accept, nor read its configuration, and recovers alone.
func TestNoDescriptorAtAll(t *testing.T) {
	s := start(t, "-config", config(t, file("127.0.0.2")))
	proxy, echo := s.addr("egress"), newEcho(t, nil)
	held := tunnel(t, proxy, echo)
	var old unix.Rlimit
	if err := unix.Prlimit(s.pid(), unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	limit := func(n uint64) {
		if err := unix.Prlimit(s.pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(3)
	late := dial(t, proxy)
	s.line(message("accept"))
	if e := s.reload(); !strings.Contains(e.text("error"), "too many open files") {
		t.Errorf("got %v, want the reload to fail", e)
	}
	alive(t, held)
	limit(old.Cur)
	if head, err := connect(late, echo); !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		t.Errorf("CONNECT: %q, %v; want 200 for who was waiting", head, err)
	}
	if e := s.reload(); e.text("message") != "reloaded" {
		t.Error(e)
	}
	late.Close()
	held.Close()
	s.stop()
}
