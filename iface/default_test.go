package iface_test

import (
	"net/netip"
	"testing"

	"swivel/iface"
)

// Fault S5: a link that is down keeps its IPv4 addresses, and the pool, too.
func TestWatchLinkDown(t *testing.T) {
	host, _ := newHost(t)
	host.IP("route", "add", "default", "via", "10.0.0.254")
	w := watch(t, host)
	w.has("10.0.0.1")
	for _, state := range []string{"down", "up", "down"} {
		host.IP("link", "set", "va", state)
		host.Addr("br0", "172.18.0.1/16") // the flap itself may leave nothing to tell
		h := w.has("172.18.0.1")
		if got, want := words(h.Default()), "10.0.0.1"; got != want {
			t.Errorf("%s: the default pool is %s, want %s", state, got, want)
		}
		if got, want := on(h, "va"), "10.0.0.1"; got != want {
			t.Errorf("%s: va has %s, want %s", state, got, want)
		}
		host.IP("addr", "del", "172.18.0.1/16", "dev", "br0")
		w.until("172.18.0.1 is gone", func(h *iface.Host) bool { return !h.Has(netip.MustParseAddr("172.18.0.1")) })
	}
}

// leaves returns the condition that the default pool is these addresses.
func leaves(by string) func(*iface.Host) bool {
	return func(h *iface.Host) bool { return words(h.Default()) == by }
}

func TestWatchDefault(t *testing.T) {
	host, _ := newHost(t)
	host.Addr("va", "2001:db8::1/64")
	host.Addr("br0", "fd00::1/64")
	w := watch(t, host)
	if got, want := words(w.has("10.0.0.1").Default()), "10.0.0.1 2001:db8::1 172.17.0.1 fd00::1"; got != want {
		t.Errorf("no default route: got %s, want %s", got, want)
	}
	host.IP("route", "add", "default", "via", "10.0.0.254")
	w.until("va leads out for IPv4", leaves("10.0.0.1"))
	host.IP("route", "add", "default", "via", "2001:db8::fe", "table", "100")
	w.until("va leads out for IPv6, too", leaves("10.0.0.1 2001:db8::1"))

	host.IP("route", "del", "default")
	host.Addr("br0", "172.18.0.1/16") // by itself, losing the route changes nothing
	if h := w.has("172.18.0.1"); !leaves("10.0.0.1 2001:db8::1")(h) {
		t.Errorf("a route that is lost moves the pool to %v", h.Default())
	}
	host.IP("route", "add", "default", "via", "172.17.0.254")
	w.until("br0 leads out for IPv4", leaves("2001:db8::1 172.17.0.1 172.18.0.1"))
	host.IP("route", "replace", "default", "nexthop", "via", "10.0.0.254", "nexthop", "via", "172.17.0.254")
	w.until("both lead out", leaves("10.0.0.1 2001:db8::1 172.17.0.1 172.18.0.1"))
	host.IP("nexthop", "add", "id", "7", "via", "10.0.0.254", "dev", "va")
	host.IP("route", "replace", "default", "nhid", "7")
	w.until("va leads out by a nexthop object", leaves("10.0.0.1 2001:db8::1"))
	host.Addr("lo", "10.9.9.9/32", "2001:db8:9::9/128") // lo holds the routes that lead nowhere
	host.IP("-6", "route", "add", "unreachable", "default", "metric", "1")
	host.IP("route", "add", "blackhole", "default", "metric", "1")
	host.Addr("va", "10.0.0.3/24")
	if h := w.has("10.0.0.3"); !leaves("10.0.0.1 10.0.0.3 2001:db8::1")(h) {
		t.Errorf("routes that lead nowhere make the pool %v", h.Default())
	}
}

// The kernel tells of some routes only by what takes them away.
func TestWatchDefaultOfTwo(t *testing.T) {
	host, _ := newHost(t)
	w := watch(t, host)
	w.has("10.0.0.1")
	const one, two, both = "10.0.0.1", "172.17.0.1", "10.0.0.1 172.17.0.1"
	host.IP("route", "add", "default", "via", "10.0.0.254", "metric", "1")
	w.until("va leads out", leaves(one))
	host.IP("route", "add", "default", "via", "172.17.0.254", "metric", "2")
	w.until("both lead out", leaves(both))
	host.IP("link", "set", "va", "down")
	w.until("br0 leads out, va is down", leaves(two))
	host.IP("link", "set", "va", "up")
	host.IP("nexthop", "add", "id", "7", "via", "10.0.0.254", "dev", "va")
	host.IP("route", "add", "default", "nhid", "7", "metric", "1")
	w.until("va leads out by a nexthop", leaves(both))
	host.IP("nexthop", "del", "id", "7")
	w.until("br0 leads out, the nexthop is gone", leaves(two))
	host.IP("route", "del", "default")
	host.IP("route", "add", "default", "via", "10.0.0.254")
	w.until("va leads out again", leaves(one))
}
