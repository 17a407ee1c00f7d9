//go:build linux

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
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
