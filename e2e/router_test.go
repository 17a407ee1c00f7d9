//go:build linux

package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"swivel/internal/proxyproto"
)

// Checks find out that a backend has gone and that it is back; after a reload there
// are those of the new configuration, and no others.
func TestRouterChecks(t *testing.T) {
	here := listen(t)
	newEcho(t, here)
	away := unused()
	file := config(t, fmt.Sprintf(`
listeners:
  - name: web
    listen: 127.0.0.1:0
    mode: sni
    routes: [{names: "*", to: ["%s", "%s"], check: 100ms}]
`, here.Addr(), away))
	s := start(t, "-config", file)
	out := func(e entry) bool { return e.text("message") == "backend left out" && e.text("backend") == away }
	s.line(out)
	s.reload()
	s.linesAfter(0, 2, out)

	ln, err := net.Listen("tcp", away)
	if err != nil {
		t.Skipf("the port is somebody else's by now: %v", err)
	}
	newEcho(t, ln)
	s.line(func(e entry) bool { return e.text("message") == "backend is back" && e.text("backend") == away })
	for range 2 {
		c := dial(t, s.addr("web"))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
		c.CloseWrite()
	}
	seen := map[string]bool{}
	for _, l := range s.linesAfter(0, 2, closed) {
		seen[l.text("address")] = true
	}
	if len(seen) != 2 {
		t.Errorf("clients went to %v, want both", seen)
	}
	before := len(s.lines())
	ln.Close()
	s.lineAfter(before, out)
}

// What the keys of a route say is what happens: the pool, the PROXY header, ALPN.
func TestRouterKeys(t *testing.T) {
	x, y := listen(t), listen(t)
	serveEach(x, tellAndEcho)
	serveEach(y, tellAndEcho)
	s := start(t, "-config", config(t, fmt.Sprintf(`
pools: {main: {sources: [{address: 127.0.0.2}]}, other: {sources: [{address: 127.0.0.3}]}}
listeners:
  - name: web
    listen: 127.0.0.1:0
    mode: sni
    pool: main
    routes:
      - {names: a.test, to: [%[1]s], balance: least}
      - {names: b.test, to: [%[1]s], balance: client, pool: other, send_proxy: v1}
      - {names: b.test, alpn: h2, to: [%[2]s], send_proxy: v2}
    otherwise: {not-tls: [%[2]s]}
`, x.Addr(), y.Addr())))
	for _, tt := range []struct {
		name, first  string
		source, addr string
		header       bool
	}{
		{"a.test", "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "127.0.0.2", x.Addr().String(), false},
		{"b.test", "GET / HTTP/1.1\r\nHost: b.test\r\n\r\n", "127.0.0.3", x.Addr().String(), true},
		{"b.test over h2", helloFor(t, "b.test", "h2"), "127.0.0.2", y.Addr().String(), true},
		{"not TLS", "\x00", "127.0.0.2", y.Addr().String(), false},
	} {
		before := len(s.lines())
		c := dial(t, s.addr("web"))
		fmt.Fprint(c, tt.first)
		c.CloseWrite()
		b, err := io.ReadAll(c)
		from, echo, _ := strings.Cut(string(b), "\n")
		if from != tt.source || err != nil {
			t.Errorf("%s: from %s, %v, want %s", tt.name, from, err, tt.source)
		}
		if tt.header {
			h, n, err := proxyproto.Parse([]byte(echo))
			if err != nil || h.Src.String() != c.LocalAddr().String() {
				t.Errorf("%s: header %+v, %v", tt.name, h, err)
			}
			echo = echo[n:]
		}
		if echo != tt.first {
			t.Errorf("%s: got %q", tt.name, echo)
		}
		if l := s.lineAfter(before, closed); l.text("source") != tt.source || l.text("address") != tt.addr {
			t.Errorf("%s: %v", tt.name, l)
		}
	}
}

// helloFor is what a client says first that asks for name and offers a protocol.
func helloFor(t *testing.T, name, protocol string) string {
	t.Helper()
	ln := listen(t)
	go func() { // until the hello is read
		if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
			tls.Client(c, &tls.Config{ServerName: name, NextProtos: []string{protocol}}).Handshake()
			c.Close()
		}
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 5, 1<<14)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	b = b[:5+int(b[3])<<8+int(b[4])]
	if _, err := io.ReadFull(c, b[5:]); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A configuration that cannot be, and why.
func TestRouterStart(t *testing.T) {
	for yaml, want := range map[string]string{
		"{mode: sni, listen: ':1', transparent: redirect, routes: [{names: a.example}, {names: [b.example, a.example]}]}": "is that already",
		"{mode: sni, listen: ':1'}": "every connection would be closed",
	} {
		got := finish(t, command(t, "-config", config(t, "listeners: ["+yaml+"]\n")))
		if got.status != 1 || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: got %+v", yaml, got)
		}
	}
}
