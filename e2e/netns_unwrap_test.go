//go:build linux

package e2e

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"swivel/internal/proxyproto"
)

// The server sees the client, whichever header says who that is, and the log as well.
func TestUnwrapIsTheClient(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.serve(n.host, server6)
	n.start(bothTargets)
	for i, tt := range []struct {
		to, client string
		header     []byte
		peer       string
	}{
		{unwrapAddr4, claimed4, v1(claimed4, public4), "10.5.0.1"},
		{unwrapAddr6, "198.51.100.8:5001", v2("198.51.100.8:5001", public4), "fd00:5::1"},
		{unwrapAddr4, claimed6, v1(claimed6, public6), "10.5.0.1"},
		{unwrapAddr6, "[2001:db8:51::8]:5001", v2("[2001:db8:51::8]:5001", public6), "fd00:5::1"},
	} {
		c, saw := n.visit(tt.to, tt.header)
		if saw != tt.client {
			t.Errorf("%s: the server saw %s", tt.client, saw)
		}
		alive(t, c)
		c.Close()
		l := n.line(i + 1)
		peer := netip.MustParseAddrPort(l.text("peer")).Addr().String()
		source := netip.MustParseAddrPort(tt.client).Addr().String()
		if l.text("client") != tt.client || peer != tt.peer || l.text("source") != source || l.text("mode") != "unwrap" || l["up"] != 5.0 || l.text("reason") != "client-closed" {
			t.Errorf("%s: got %v", tt.client, l)
		}
	}
}

func TestUnwrapSources(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.serve(n.host, "127.0.0.1:5001")
	n.start(bothTargets+", source: any-port, mark: 7", `  - {name: keep, listen: ":2223", mode: unwrap, from: [10.5.0.1], to: 127.0.0.1:7777}
  - {name: own, listen: ":2224", mode: unwrap, from: [10.5.0.1], to: 127.0.0.1:7777, source: own}`)
	addr := func(saw string) string { return netip.MustParseAddrPort(saw).Addr().String() }

	t.Run("any-port", func(t *testing.T) {
		count(n.host, "output", "marked", "meta mark 7 ip saddr 198.51.100.7 tcp dport 7777")
		if _, saw := n.visit(unwrapAddr4, v1(claimed4, public4)); addr(saw) != "198.51.100.7" {
			t.Errorf("saw %s", saw)
		}
		if n.host.Counter("marked") == 0 {
			t.Error("the connection to the server has no mark")
		}
	})
	t.Run("own", func(t *testing.T) {
		if _, saw := n.visit("10.5.0.2:2224", v1(claimed4, public4)); addr(saw) != "127.0.0.1" {
			t.Errorf("saw %s", saw)
		}
	})
	t.Run("keep-port, twice at once", func(t *testing.T) {
		_, first := n.visit("10.5.0.2:2223", v1(claimed4, public4))
		_, second := n.visit("10.5.0.2:2223", v1(claimed4, public4))
		if first != claimed4 || second == claimed4 || addr(second) != "198.51.100.7" {
			t.Errorf("saw %s, then %s", first, second)
		}
	})
	// 3c/6
	for _, header := range []string{"PROXY UNKNOWN\r\n", string(proxyproto.AppendV2(nil, proxyproto.Header{Local: true}))} {
		if _, saw := n.visit("10.5.0.2:2223", []byte(header)); addr(saw) != "127.0.0.1" {
			t.Errorf("%q: saw %s", header, saw)
		}
	}
}

// 3c/13 and 3c/14: an error of that connection, with a reason; the process lives.
func TestUnwrapRefusesSources(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.start("to: 127.0.0.1:7777")
	for i, tt := range []struct{ header, reason string }{
		{string(v1("127.0.0.1:5001", public4)), "source-denied"},
		{string(v1("127.9.9.9:5001", public4)), "source-denied"},
		{string(v1(server4, public4)), "source-denied"},
		{string(v1("0.0.0.0:5001", public4)), "source-denied"},
		{string(v1("224.0.0.1:5001", public4)), "source-denied"},
		{string(v1("255.255.255.255:5001", public4)), "source-denied"},
		{string(v1("198.51.100.7:0", public4)), "source-denied"},
		{string(v1("10.5.0.2:5001", public4)), "source-denied"},
		{string(v1(claimed6, public6)), "no-target"},
	} {
		c := n.dial(unwrapAddr4)
		io.WriteString(c, tt.header)
		if got, err := io.ReadAll(c); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: got %q, %v", tt.header, got, err)
		}
		if l := n.line(i + 1); l.text("reason") != tt.reason || l.text("level") != "info" {
			t.Errorf("%q: got %v", tt.header, l)
		}
	}
	if _, saw := n.visit(unwrapAddr4, v1(claimed4, public4)); saw != claimed4 {
		t.Errorf("saw %s", saw)
	}
}

func TestUnwrapAllowsSources(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.start(`to: 127.0.0.1:7777, allow_sources: [127.0.0.0/8, 10.5.0.2]`)
	for _, src := range []string{"127.9.9.9:5001", "10.5.0.2:5001"} {
		if _, saw := n.visit(unwrapAddr4, v1(src, public4)); saw != src {
			t.Errorf("%s: saw %s", src, saw)
		}
	}
	c := n.dial(unwrapAddr4)
	c.Write(v1(server4, public4))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("from the target itself: %v", err)
	}
}

// Where to: one port on another, the same port of a range, and what the header says.
func TestUnwrapDestinations(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	for _, address := range []string{"127.0.0.1:2301", "127.0.0.1:2302", "10.6.0.1:2303"} {
		n.serve(n.host, address)
	}
	n.host.Batch("rule add from 127.0.0.1 iif lo ipproto tcp sport 2301-2303 lookup 100\n" +
		"rule add from 10.6.0.1 iif lo ipproto tcp sport 2303 lookup 100\n")
	n.start("to: 127.0.0.1:2301", `  - {name: range, listen: "10.5.0.2:2301-2303", mode: unwrap, from: [10.5.0.1], to: "127.0.0.1:*"}
  - {name: header, listen: ":2400", mode: unwrap, from: [10.5.0.1], to: destination, destinations: {allow: [10.6.0.0/16, 10.6.0.1], ports: [2303, 2400]}}`)
	for _, tt := range []struct{ to, dst, address string }{
		{"10.5.0.2:2222", public4, "127.0.0.1:2301"},
		{"10.5.0.2:2301", public4, "127.0.0.1:2301"},
		{"10.5.0.2:2302", public4, "127.0.0.1:2302"},
		{"10.5.0.2:2400", "10.6.0.1:2303", "10.6.0.1:2303"},
	} {
		if c, saw := n.visit(tt.to, v1(claimed4, tt.dst)); saw != claimed4 {
			t.Errorf("%s: saw %s", tt.to, saw)
		} else {
			c.Close()
		}
		l := n.s.lineAfter(0, func(e entry) bool { return closed(e) && e.text("address") == tt.address })
		if l.text("target") != tt.dst {
			t.Errorf("got %v", l)
		}
	}
	for _, tt := range []struct{ to, dst, reason string }{
		{"10.5.0.2:2303", public4, "connection_refused"},
		{"10.5.0.2:2400", "127.0.0.1:2303", "destination_ip_prohibited"},
		{"10.5.0.2:2400", "10.6.0.1:2304", "destination_ip_prohibited"},
		{"10.5.0.2:2400", "10.5.0.2:2303", "destination_ip_prohibited"},
		{"10.5.0.2:2400", "10.6.0.1:2400", "proxy_loop_detected"},
	} {
		c := n.dial(tt.to)
		c.Write(v1(claimed4, tt.dst))
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", tt.dst, err)
		}
		n.s.lineAfter(0, func(e entry) bool { return closed(e) && e.text("reason") == tt.reason })
	}
}

// A listener that would be its own target says so, and does not go round.
func TestUnwrapLoop(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.start(`to: "127.0.0.1:*"`)
	said := n.check("-mode", "unwrap", "-listen", ":2223", "-from", "10.5.0.1", "-to", "127.0.0.1:*")
	if !strings.Contains(said, "missing  listener unwrap: 127.0.0.1:2223 is swivel itself") {
		t.Errorf("check says\n%s", said)
	}
	c := n.dial(unwrapAddr4)
	c.Write(v1(claimed4, public4))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if l := n.line(1); l.text("reason") != "proxy_loop_detected" {
		t.Errorf("got %v", l)
	}
}
