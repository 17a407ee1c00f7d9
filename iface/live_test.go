package iface_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"swivel/iface"
	"swivel/internal/netlab"
)

// The network of these tests; each adds what it is about.
//
//	┌ host ──────────┐        ┌ router ─────┐
//	│ va 10.0.0.1/24 ├────────┤ vb          │
//	│ br0 172.17.0.1 │        └─────────────┘
//	└────────────────┘
func newHost(t *testing.T) (host, router *netlab.Namespace) {
	t.Helper()
	netlab.Leaks(t)
	lab := netlab.New(t)
	host, router = lab.Namespace("host"), lab.Namespace("router")
	lab.Join(host, router, "va", "vb")
	host.Addr("va", "10.0.0.1/24")
	host.IP("link", "add", "name", "br0", "type", "bridge")
	host.IP("link", "set", "br0", "up")
	host.Addr("br0", "172.17.0.1/16")
	return host, router
}

// watched is a Watch of a namespace, for the time of a test.
type watched struct {
	t     *testing.T
	hosts chan *iface.Host
}

func watch(t *testing.T, n *netlab.Namespace) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{t: t, hosts: make(chan *iface.Host)}
	changed := func(h *iface.Host) {
		select {
		case w.hosts <- h:
		case <-ctx.Done():
		}
	}
	done := make(chan error, 1)
	go func() { // ends with ctx
		done <- n.Do(func() error { return iface.Watch(ctx, 0, changed) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch returned %v, want nil", err)
		}
	})
	return w
}

// limit is far above what anything here takes.
const limit = 15 * time.Second

// until takes snapshots until one is as wanted, and returns it.
func (w *watched) until(what string, ok func(*iface.Host) bool) *iface.Host {
	w.t.Helper()
	timeout := time.After(limit)
	last := "nothing was seen"
	for {
		select {
		case h := <-w.hosts:
			if ok(h) {
				return h
			}
			last = fmt.Sprintf("%+v", *h)
		case <-timeout:
			w.t.Fatalf("never seen: %s; last: %s", what, last)
		}
	}
}

// has waits until the host can use an address.
func (w *watched) has(addr string) *iface.Host {
	w.t.Helper()
	return w.until("has "+addr, func(h *iface.Host) bool { return h.Has(netip.MustParseAddr(addr)) })
}

func words(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

// on returns the addresses of an interface, or the error.
func on(h *iface.Host, name string) string {
	addrs, err := h.Interface(name)
	if err != nil {
		return err.Error()
	}
	return words(addrs)
}

func TestWatchAddresses(t *testing.T) {
	host, _ := newHost(t)
	w := watch(t, host)
	if got, want := on(w.has("10.0.0.1"), "va"), "10.0.0.1"; got != want {
		t.Errorf("at first: got %s, want %s", got, want)
	}
	host.Addr("va", "10.0.0.2/24", "2001:db8::1/64")
	if got, want := on(w.has("2001:db8::1"), "va"), "10.0.0.1 10.0.0.2 2001:db8::1"; got != want {
		t.Errorf("two added: got %s, want %s", got, want)
	}
	host.IP("addr", "del", "10.0.0.2/24", "dev", "va")
	h := w.until("10.0.0.2 is gone", func(h *iface.Host) bool { return !h.Has(netip.MustParseAddr("10.0.0.2")) })
	if got, want := on(h, "va"), "10.0.0.1 2001:db8::1"; got != want {
		t.Errorf("one removed: got %s, want %s", got, want)
	}
	host.IP("addr", "change", "10.0.0.1/24", "dev", "va", "preferred_lft", "0")
	h = w.until("10.0.0.1 is deprecated", func(h *iface.Host) bool { return on(h, "va") == "2001:db8::1" })
	if !h.Has(netip.MustParseAddr("10.0.0.1")) {
		t.Error("the host has no more the address that is deprecated")
	}
	host.IP("addr", "flush", "dev", "va")
	w.until("all are gone", func(h *iface.Host) bool { return on(h, "va") == "" })
}

// An IPv6 address can be bound when duplicate address detection is done, and
// never when it is a duplicate.
func TestWatchTentative(t *testing.T) {
	host, router := newHost(t)
	// Detection begins at once and takes 200 ms, instead of 1 to 2 s.
	host.Run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/va/router_solicitation_delay")
	host.Run("sh", "-c", "echo 200 > /proc/sys/net/ipv6/neigh/va/retrans_time_ms")
	router.IP("link", "set", "vb", "down") // and not before there is a carrier
	w := watch(t, host)
	w.has("10.0.0.1")
	good, twice := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::dead")
	host.IP("addr", "add", "2001:db8::1/64", "dev", "va")
	h := w.until("a tentative address", func(h *iface.Host) bool { return h.Own(good) })
	if h.Has(good) || on(h, "va") != "10.0.0.1" {
		t.Errorf("a tentative address is used: %s", on(h, "va"))
	}
	router.IP("link", "set", "vb", "up")
	if got, want := on(w.has("2001:db8::1"), "va"), "10.0.0.1 2001:db8::1"; got != want {
		t.Errorf("after detection: got %s, want %s", got, want)
	}

	router.Addr("vb", "2001:db8::dead/64")
	host.IP("addr", "add", "2001:db8::dead/64", "dev", "va")
	for deadline := time.Now().Add(limit); host.IP("addr", "show", "dev", "va", "dadfailed") == ""; {
		if time.Now().After(deadline) {
			t.Fatal("the kernel has not found the duplicate")
		}
	}
	host.Addr("va", "2001:db8::2/64")
	if h := w.has("2001:db8::2"); h.Has(twice) || !h.Own(twice) {
		t.Error("the duplicate is used, or is not the host's")
	}
}

func TestWatchInterface(t *testing.T) {
	host, _ := newHost(t)
	w := watch(t, host)
	if _, err := w.has("10.0.0.1").Interface("vc"); !errors.Is(err, iface.ErrNoInterface) {
		t.Errorf("an absent interface: got %v, want ErrNoInterface", err)
	}
	host.IP("link", "add", "name", "vc", "address", "02:00:00:00:00:07", "type", "bridge")
	host.Addr("vc", "10.7.0.1/24")
	h := w.has("10.7.0.1")
	if got, want := on(h, "vc"), "10.7.0.1"; got != want {
		t.Errorf("by name: got %s, want %s", got, want)
	}
	if got, err := h.MAC(net.HardwareAddr{2, 0, 0, 0, 0, 7}); words(got) != "10.7.0.1" {
		t.Errorf("by MAC: got %v, %v; want 10.7.0.1", got, err)
	}
	if got := h.InterfaceOf(netip.MustParseAddr("10.7.0.1")); got != "vc" {
		t.Errorf("10.7.0.1 is on %q, want vc", got)
	}
	host.IP("link", "del", "vc")
	w.until("vc is gone", func(h *iface.Host) bool {
		_, err := h.Interface("vc")
		return errors.Is(err, iface.ErrNoInterface) && !h.Has(netip.MustParseAddr("10.7.0.1"))
	})
}

// A routing daemon at work is not a change.
func TestWatchQuiet(t *testing.T) {
	host, _ := newHost(t)
	// A link-local address that becomes ready is a change.
	host.Run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
	host.IP("route", "add", "default", "via", "10.0.0.254")
	w := watch(t, host)
	w.has("10.0.0.1")
	var noise strings.Builder
	for i := range 500 {
		fmt.Fprintf(&noise, "route add 10.%d.%d.0/24 via 10.0.0.254\n", 100+i/256, i%256)
		fmt.Fprintf(&noise, "route add default via 10.0.0.254 metric %d\n", i+1)
	}
	host.Batch(noise.String())
	host.Addr("va", "10.0.0.2/24")
	select {
	case h := <-w.hosts:
		if !h.Has(netip.MustParseAddr("10.0.0.2")) {
			t.Errorf("routes alone are a change: %+v", *h)
		}
	case <-time.After(limit):
		t.Error("the address was not seen")
	}
}

// Whatever events are lost in a storm, its end is seen.
func TestWatchStorm(t *testing.T) {
	host, _ := newHost(t)
	w := watch(t, host)
	w.has("10.0.0.1")
	add, del := storm("va", "10.1.%d.1/32", 250)
	over := start(t, host, strings.Repeat(add+del, 20)+add+"addr add 10.2.0.1/32 dev va\n")
	calls := 0
	h := w.until("the end of the storm", func(h *iface.Host) bool {
		calls++
		return h.Has(netip.MustParseAddr("10.2.0.1"))
	})
	if err := <-over; err != nil {
		t.Fatal(err)
	}
	got := on(h, "va")
	if !strings.HasPrefix(got, "10.0.0.1 10.1.0.1 10.1.1.1 ") || !strings.HasSuffix(got, " 10.1.249.1 10.2.0.1") || strings.Count(got, " ") != 251 {
		t.Errorf("after the storm va has %s", got)
	}
	t.Logf("10,251 events in %d calls", calls)
}

// storm returns the batches that add and delete n addresses.
func storm(dev, format string, n int) (add, del string) {
	var a, d strings.Builder
	for i := range n {
		addr := fmt.Sprintf(format, i)
		fmt.Fprintf(&a, "addr add %s dev %s nodad\n", addr, dev)
		fmt.Fprintf(&d, "addr del %s dev %s\n", addr, dev)
	}
	return a.String(), d.String()
}

// start runs a batch of ip(8) beside the test, and returns where its end is told.
func start(t *testing.T, n *netlab.Namespace, lines string) <-chan error {
	t.Helper()
	cmd := n.Command(t.Context(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(lines)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }() // ends with the test, if not before
	return over
}
