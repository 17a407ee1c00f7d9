//go:build linux

package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// routePrefixes routes two prefixes to proxy, as a provider does.
func (n *network) routePrefixes() {
	n.t.Helper()
	n.far.Batch("route add 192.0.2.0/28 via 10.1.0.1\nroute add 2001:db8:5::/48 via 2001:db8:1::1\n")
}

// takePrefixes makes proxy take them for its own.
func (n *network) takePrefixes() {
	n.t.Helper()
	n.proxy.Batch("route add local 192.0.2.0/28 dev lo\nroute add local 2001:db8:5::/48 dev lo\n")
}

// distinct returns what n requests to target leave by, once each.
func (n *network) distinct(requests int, target string) []netip.Addr {
	n.t.Helper()
	var list []netip.Addr
	for _, from := range n.askAll(slices.Repeat([]string{target}, requests)...) {
		if a := netip.MustParseAddr(from); !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

func TestNetPrefix(t *testing.T) {
	n := newNetwork(t)
	n.routePrefixes()
	n.start(settings{pool: `sources: [{prefix: 192.0.2.0/28}, {prefix: "2001:db8:5::/48"}]`})
	if e := n.s.line(message("pool")); e.text("level") != "warn" {
		t.Errorf("got %v, want a warning", e)
	}
	n.answers(origin4, noSource)
	n.answers(origin6, noSource)
	n.takePrefixes()
	eventually(t, "the prefixes are never used", func() bool { return n.ask(origin6).status() == "200" })

	all := n.distinct(28, origin4)
	for _, a := range all {
		if !netip.MustParsePrefix("192.0.2.0/28").Contains(a) || a.String() == "192.0.2.0" || a.String() == "192.0.2.15" {
			t.Errorf("left by %s", a)
		}
	}
	if len(all) != 14 {
		t.Errorf("%d addresses of IPv4, want 14: %v", len(all), all)
	}
	var parts []netip.Prefix
	for _, a := range n.distinct(20, origin6) {
		part, _ := a.Prefix(64)
		if !netip.MustParsePrefix("2001:db8:5::/48").Contains(a) || slices.Contains(parts, part) {
			t.Errorf("left by %s, having left by %v", a, parts)
		}
		parts = append(parts, part)
	}
	if len(parts) != 20 {
		t.Errorf("%d requests by %d networks", 20, len(parts))
	}

	n.tunnel(origin6)
	n.proxy.IP("route", "del", "local", "2001:db8:5::/48", "dev", "lo")
	n.s.line(func(e entry) bool { return closed(e) && e.text("reason") == "source-gone" })
	n.answers(origin6, noSource)
	n.askAll(origin4)
}

// A prefix on the link of an interface is found by its neighbors only when something
// answers them, and swivel check says so.
func TestNetPrefixCheck(t *testing.T) {
	n := newNetwork(t)
	file := config(t, `
pools: {main: {sources: [{prefix: "2001:db8:1:0:1::/80"}, {prefix: "2001:db8:5::/48"}, {prefix: 192.0.2.0/28}]}}
listeners: [{listen: 127.0.0.1:0}]
`)
	run := func(command string) string {
		return n.proxy.Run("sh", "-c", *binary+" "+command+" -config "+file+" || true")
	}
	before := run("check")
	for _, want := range []string{
		"missing  pool main: source 2001:db8:5::/48: it is not routed to this host (ip route add local 2001:db8:5::/48 dev lo)",
		"missing  pool main: source 192.0.2.0/28: it is not routed to this host (ip route add local 192.0.2.0/28 dev lo)",
		"missing  pool main has no source",
	} {
		if !strings.Contains(before, want) {
			t.Errorf("got %s\nwant %s", before, want)
		}
	}
	n.takePrefixes()
	n.proxy.IP("route", "add", "local", "2001:db8:1:0:1::/80", "dev", "lo")
	after := run("check")
	for _, want := range []string{
		"ok       pool main: 3 sources",
		"note     pool main: prefix 2001:db8:1:0:1::/80 is on the link of out: this host does not tell its neighbors that the addresses are here",
		"ndppd with  proxy out { rule 2001:db8:1:0:1::/80 { static } }",
	} {
		if !strings.Contains(after, want) {
			t.Errorf("got %s\nwant %s", after, want)
		}
	}
	if got := run("sources"); !strings.Contains(got, "2001:db8:5::/48") || !strings.Contains(got, "(routed)") {
		t.Errorf("sources: %s", got)
	}
}

// Of IPv4 the kernel tells the neighbors itself.
func TestNetPrefixOnLink(t *testing.T) {
	n := newNetwork(t)
	n.proxy.Batch("route add local 10.1.0.64/28 dev lo\n")
	n.start(settings{pool: `sources: [{prefix: 10.1.0.64/28}]`})
	if got := n.distinct(14, origin4); len(got) != 14 {
		t.Errorf("left by %v", got)
	}
}
