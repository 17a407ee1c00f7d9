//go:build linux

package e2e

import (
	"strings"
	"testing"

	"swivel/internal/netlab"
)

// capture loads in ns what swivel rules prints, twice, runs what it says is needed as
// well, and returns the command that it says removes it.
func capture(t *testing.T, ns *netlab.Namespace, format string, flags ...string) (remove string) {
	t.Helper()
	text := ns.Run(*binary, append([]string{"rules", "-format", format}, flags...)...)
	for range 2 {
		if format == "nft" {
			ns.Nft(text)
		} else {
			ns.Run("sh", "-c", text)
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		command, ok := strings.CutPrefix(line, "#   ")
		switch what, rest, _ := strings.Cut(command, ":"); {
		case ok && what == "remove":
			remove = strings.TrimSpace(rest)
		case ok && (strings.HasPrefix(command, "ip ") || strings.HasPrefix(command, "sysctl ")):
			ns.Run("sh", "-c", command+" || true") // the rule may be there
		}
	}
	return remove
}

// asks checks who a server sees, in both families.
func (n *routed) asks(what string, from *netlab.Namespace, want4, want6 string) {
	n.t.Helper()
	for family, addr := range routedAddrs["b.test"] {
		want := "b.test asked by " + []string{want4, want6}[family]
		if got := n.curl(from, "https", "b.test", addr); got != want {
			n.t.Errorf("%s: %s: got %q, want %q", what, addr, got, want)
		}
	}
}

// Rules bring clients to swivel until they are removed by the command that they name.
// On loopback it is out of the reach of those who connect to it themselves; IPv6 has
// no such way for what is redirected, and passes by.
func TestCaptureRouter(t *testing.T) {
	const (
		client4, client6 = "10.7.0.2", "fd00:7::2"
		router4, router6 = "10.8.0.1", "fd00:8::1"
	)
	n := newRouted(t)
	n.asks("before", n.client, client4, client6)
	for _, tt := range []struct{ transparent, listen, capture, want6 string }{
		{"redirect", ":8443", "443,80", router6},
		{"redirect", "127.0.0.1:8443", "443,80", client6},
		{"redirect", "10.7.0.1:8443,[fd00:7::1]:8443", "all", router6},
		{"tproxy", ":8443", "all", router6},
		{"tproxy", "127.0.0.1:8443,[::1]:8443", "443,80", router6},
	} {
		flags := []string{"-mode", "sni", "-listen", tt.listen, "-transparent", tt.transparent, "-capture", tt.capture}
		s := startIn(t, n.router, flags...)
		for _, format := range []string{"nft", "iptables"} {
			what := tt.transparent + " to " + tt.listen + " by " + format
			remove := capture(t, n.router, format, flags...)
			n.asks(what, n.client, router4, tt.want6)
			n.router.Run("sh", "-c", remove+"; true")
			n.asks(what+", removed", n.client, client4, client6)
		}
		s.stop()
	}
}

// A sidecar is told by its mark, and beside its only client need not be seen by
// anybody else.
func TestCaptureSidecar(t *testing.T) {
	n := newRouted(t)
	for _, flags := range [][]string{
		{"-transparent", "redirect", "-listen", "127.0.0.1:8443,[::1]:8443", "-capture", "all"},
		{"-transparent", "tproxy", "-listen", "127.0.0.1:8443,[::1]:8443", "-capture", "all"},
		{"-transparent", "tproxy", "-listen", ":8443", "-capture", "443,80"},
	} {
		flags := append([]string{"-mode", "sni", "-mark", "7"}, flags...)
		s := startIn(t, n.client, flags...)
		for _, format := range []string{"nft", "iptables"} {
			what := strings.Join(append(flags, format), " ")
			remove := capture(t, n.client, format, append(flags, "-exclude", "mark:7")...)
			before := len(s.lines())
			n.asks(what, n.client, "10.7.0.2", "fd00:7::2")
			s.linesAfter(before, 2, closed)
			n.client.Run("sh", "-c", remove+"; true")
			before = len(s.lines())
			n.asks(what+", removed", n.client, "10.7.0.2", "fd00:7::2")
			if later := s.lines()[before:]; len(later) > 0 {
				t.Errorf("%s, removed: %v", what, later)
			}
		}
		s.stop()
	}
}
