//go:build linux

package e2e

import (
	"slices"
	"testing"
)

// A configuration without a pool leaves by the interfaces that hold a default
// route, and by every interface of a host that has none.
//
//	┌ proxy ────────────┐      ┌ far ┐
//	│ out               ├──────┤ in  │
//	│ br0 172.17.0.1    │      └─────┘
//	│     2001:db8:17::1│
//	└───────────────────┘
func TestNetDefaultPool(t *testing.T) {
	bridge4, bridge6 := "172.17.0.1", "2001:db8:17::1"
	for _, tt := range []struct {
		name   string
		routes string // instead of the default routes
		v4, v6 []string
	}{
		{"a default route", "", sources4, sources6},
		{
			"no default route",
			"route del default\nroute del ::/0\nroute add 10.2.0.0/24 via 10.1.0.254\nroute add 2001:db8:2::/64 via 2001:db8:1::fe\n",
			slices.Concat(sources4, []string{bridge4}), slices.Concat(sources6, []string{bridge6}),
		},
		{
			"a default route of one family", "route del ::/0\nroute add 2001:db8:2::/64 via 2001:db8:1::fe\n",
			sources4, nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t)
			n.proxy.IP("link", "add", "name", "br0", "type", "bridge")
			n.proxy.IP("link", "set", "br0", "up")
			n.proxy.Addr("br0", bridge4+"/16", bridge6+"/64")
			n.far.Batch("route add 172.17.0.0/16 via 10.1.0.1\nroute add 2001:db8:17::/64 via 2001:db8:1::1\n")
			n.proxy.Batch(tt.routes)
			n.start(settings{pool: "-"})

			inTurn(t, n.askAll(slices.Repeat([]string{origin4}, 2*len(tt.v4))...), tt.v4)
			if tt.v6 == nil {
				n.answers(origin6, noSource)
			} else {
				inTurn(t, n.askAll(slices.Repeat([]string{origin6}, 2*len(tt.v6))...), tt.v6)
			}
		})
	}
}

// An address that no interface has is a source when its prefix is routed to this
// host, and for as long as it is.
func TestNetRoutedPrefix(t *testing.T) {
	n := newNetwork(t)
	n.proxy.Batch("route add local 10.9.0.0/24 dev lo\nroute add local 2001:db8:9::/64 dev lo\n")
	n.far.Batch("route add 10.9.0.0/24 via 10.1.0.1\nroute add 2001:db8:9::/64 via 2001:db8:1::1\n")
	n.start(settings{pool: `sources: [{address: 10.9.0.5}, {address: 10.9.0.77}, {address: "2001:db8:9::5"}, {address: "2001:db8:9::77"}]`})
	inTurn(t, n.askAll(slices.Repeat([]string{origin4}, 4)...), []string{"10.9.0.5", "10.9.0.77"})
	inTurn(t, n.askAll(slices.Repeat([]string{origin6}, 4)...), []string{"2001:db8:9::5", "2001:db8:9::77"})

	c, _ := n.tunnel(origin4)
	n.proxy.Batch("route del local 10.9.0.0/24 dev lo\n")
	eventually(t, "the source whose route is gone is still there", func() bool { return n.ask(origin4).status() == noSource })
	if e := n.s.line(func(e entry) bool { return e.text("reason") == "source-gone" }); e.text("target") != origin4 {
		t.Errorf("ended: %v", e)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("its tunnel lives")
	}
	n.askAll(origin6)
}
