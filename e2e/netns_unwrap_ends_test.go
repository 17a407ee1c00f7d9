//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// Who is not in `from` is closed before a byte of it is read.
func TestUnwrapUntrustedPeer(t *testing.T) {
	n := newBalanced(t)
	n.start("to: 127.0.0.1:7777")
	c, err := n.box.Dial(t.Context(), "tcp", "10.6.0.1:2222")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write(v1(claimed4, public4))
	if got, _ := io.ReadAll(c); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	if l := n.line(1); l.text("reason") != "untrusted-peer" || !strings.HasPrefix(l.text("client"), "10.6.0.2:") {
		t.Errorf("got %v", l)
	}
}

// go-mmproxy lost the answer to a client that had half-closed.
func TestUnwrapHalfClosedClient(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	ln := n.host.Listen("tcp", server4)
	answer := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() { // until the client is done
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(io.Discard, c)
		c.Write(answer)
	}()
	n.start("to: 127.0.0.1:7777")
	c := n.dial(unwrapAddr4)
	c.Write(append(v2(claimed4, public4), "request"...))
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, answer) {
		t.Errorf("got %d of %d bytes, %v", len(got), len(answer), err)
	}
}

// A reset is passed on as one, behind what was sent before.
func TestUnwrapReset(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	ln := n.host.Listen("tcp", server4)
	go func() { // until the client is done
		c, err := ln.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "so far")
		io.ReadFull(c, make([]byte, 2))
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}()
	n.start("to: 127.0.0.1:7777")
	c := n.dial(unwrapAddr4)
	c.Write(v2(claimed4, public4))
	io.ReadFull(c, make([]byte, len("so far")))
	io.WriteString(c, "ok")
	if got, err := io.ReadAll(c); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v", got, err)
	}
	if l := n.line(1); l.text("reason") != "upstream-reset" {
		t.Errorf("got %v", l)
	}
}

// go-mmproxy exited with status 0 when descriptors ran out.
func TestUnwrapDescriptorsExhausted(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	cmd := n.host.Command(t.Context(), "prlimit", "--nofile=64:64", *binary, "-mode", "unwrap", "-listen", ":2222", "-from", "10.5.0.1", "-to", "127.0.0.1:7777")
	cmd.Env = environ()
	n.s = launch(t, cmd)
	n.s.line(message("listening"))
	var silent []net.Conn
	for range 100 {
		silent = append(silent, n.dial(unwrapAddr4))
	}
	n.s.line(message("out of descriptors, accepting paused"))
	for _, c := range silent {
		c.Close()
	}
	if _, saw := n.visit(unwrapAddr4, v1(claimed4, public4)); saw != claimed4 {
		t.Errorf("saw %s", saw)
	}
}

// What go-mmproxy did not survive or got wrong, by name. Each is of one connection;
// between them another client is served.
func TestUnwrapGoMmproxyFailures(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.s = startIn(t, n.host, "-config", config(t, `
limits: {head: 1500ms}
listeners: [{name: unwrap, listen: ":2222", mode: unwrap, from: [10.5.0.1], to: 127.0.0.1:7777}]
`))
	fds := netlab.FDs(n.s.pid())
	const signature = "\r\n\r\n\x00\r\nQUIT\n"
	for i, tt := range []struct{ name, bytes, reason string }{
		{"the 16-byte v2 header", signature + "\x21\x11\x00\x00", "bad-header"},
		{"the 28-byte TCP6 header", signature + "\x21\x21\x00\x0c0123456789ab", "bad-header"},
		{"v1 port 99999", "PROXY TCP4 198.51.100.7 198.51.100.1 99999 25\r\n", "bad-header"},
		{"a silent client", "", "no-header"},
		{"a header that is never whole", "PROXY TCP4 198.51", "no-header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := n.in(t)
			c := n.dial(unwrapAddr4)
			io.WriteString(c, tt.bytes)
			if got, _ := io.ReadAll(c); len(got) > 0 {
				t.Errorf("answered %q", got)
			}
			if l := n.s.linesAfter(0, 2*i+1, closed)[2*i]; l.text("reason") != tt.reason {
				t.Errorf("got %v", l)
			}
			c2, saw := n.visit(unwrapAddr4, v1(claimed4, public4))
			if saw != claimed4 {
				t.Errorf("then the server saw %s", saw)
			}
			c2.Close()
			n.line(2*i + 2)
		})
	}
	t.Run("a header in two segments", func(t *testing.T) {
		n := n.in(t)
		c := n.dial(unwrapAddr4)
		io.WriteString(c, "PROXY TCP4 198.51.100.7 198.5")
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		c.Read(make([]byte, 1)) // by now that is on its way alone
		c.SetReadDeadline(time.Now().Add(patience))
		io.WriteString(c, "1.100.1 5001 25\r\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); strings.TrimSpace(line) != claimed4 {
			t.Errorf("saw %q, %v", line, err)
		}
	})
	t.Run("an empty list of who may connect", func(t *testing.T) {
		r := finish(t, command(t, "-config", config(t, "listeners: [{listen: ':2222', mode: unwrap, from: [], to: '127.0.0.1:7777'}]")))
		if r.status != 1 || !strings.Contains(r.stderr, "nobody could send a PROXY header") {
			t.Errorf("got %d, %q", r.status, r.stderr)
		}
	})
	n.s.settle(fds + 8) // what the runtime and a parked tunnel keep
}
