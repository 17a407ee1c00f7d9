//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// U9: a client that vanishes without a word ends its tunnel within
// limits.user_timeout of the next byte for it.
func TestNetU9(t *testing.T) {
	n := newNetwork(t)
	ln := n.far.Listen("tcp", "10.2.0.2:443")
	n.start(settings{limits: "user_timeout: 1s"})
	c, err := n.proxy.Dial(t.Context(), "tcp", proxyAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if head, err := connect(c, "10.2.0.2:443"); err != nil {
		t.Fatal(head, err)
	}
	upstream, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	stays, _ := n.tunnel(origin4)

	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	filter(n.proxy, "input", "tcp sport "+port+" drop", "tcp dport "+port+" drop")
	fmt.Fprintln(upstream, "are you there?")
	if e := n.s.line(closed); e.text("reason") != "client-timeout" {
		t.Errorf("ended: %v; want client-timeout", e)
	}
	upstream.SetReadDeadline(time.Now().Add(patience))
	if _, err := upstream.Read(make([]byte, 1)); err == nil {
		t.Error("the upstream of a client that has vanished lives")
	}
	alive(t, stays)
	eventually(t, "the connections are not that of the one that lives", func() bool { return n.legs() == 1 })
}

// D1: no name server ends requests by name, at once when the host's own packet
// filter says so and else after resolver.timeout. Those by address go on.
func TestNetD1(t *testing.T) {
	n := newNetwork(t)
	n.far.Addr("lo", "10.2.0.53/32")
	netlab.ListenDNS(t, n.far.ListenPacket("udp", "10.2.0.53:53"), nil, map[string][]netip.Addr{
		"there.example": {netip.MustParseAddr("10.2.0.1")},
	})
	n.start(settings{resolver: "servers: [10.2.0.53], timeout: 500ms, cache: 0s"})
	n.askAll("there.example:443")

	t.Run("silent", func(t *testing.T) {
		n := n.in(t)
		filter(n.far, "input", "udp dport 53 drop")
		lasts := make(chan reply, 1)
		go func() { // until its answer, which is bounded by resolver.timeout
			r, _ := n.request(t.Context(), "there.example:443")
			lasts <- r
		}()
		n.askAll(origin4, origin6)
		if r := <-lasts; r.status() != "504 dns_timeout" {
			t.Errorf("got %q, want 504 dns_timeout", r.head)
		}
	})
	t.Run("dropped by this host", func(t *testing.T) { // sendto(2) says EPERM
		n := n.in(t)
		filter(n.proxy, "output", "udp dport 53 drop")
		n.answers("there.example:443", "502 dns_error")
		n.askAll(origin4, origin6)
	})
	n.proxy.Run("nft", "flush", "ruleset")
	n.far.Run("nft", "flush", "ruleset")
	n.askAll("there.example:443")
}

// The packets of a listener that has a mark have it from the first on.
func TestNetMark(t *testing.T) {
	n := newNetwork(t)
	for family, match := range map[string]string{"4": "ip daddr 10.2.0.0/24", "6": "ip6 daddr 2001:db8:2::/64"} {
		count(n.proxy, "output", "marked"+family, match+" meta mark 66")
		count(n.proxy, "output", "other"+family, match+" meta mark != 66")
	}
	n.start(settings{listener: "mark: 66,"})
	n.askAll(origin4, origin6)
	for _, family := range []string{"4", "6"} {
		if marked, other := n.proxy.Counter("marked"+family), n.proxy.Counter("other"+family); marked == 0 || other != 0 {
			t.Errorf("IPv%s: %d packets have the mark, %d have not", family, marked, other)
		}
	}
}
