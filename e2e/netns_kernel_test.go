//go:build linux

package e2e

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	timedOut   = "504 connection_timeout"
	refused    = "502 connection_refused"
	unroutable = "502 destination_ip_unroutable"
	limited    = "503 connection_limit_reached"
)

// S5: a link that goes down changes nothing but what can be reached. There is
// another way out, by another address, which is never used.
//
//	┌ proxy ──────┐            ┌ far ─────────────┐
//	│ out         ├────────────┤ in               │
//	│ alt 10.3.0.1├────────────┤ back 10.3.0.254  │
//	└─────────────┘            └──────────────────┘
func TestNetS5(t *testing.T) {
	n := newNetwork(t)
	n.lab.Join(n.proxy, n.far, "alt", "back")
	n.proxy.Addr("alt", "10.3.0.1/24", "2001:db8:3::1/64")
	n.far.Addr("back", "10.3.0.254/24", "2001:db8:3::fe/64")
	n.proxy.Batch("route add default via 10.3.0.254 metric 5000\nroute add ::/0 via 2001:db8:3::fe metric 5000\n")
	count(n.far, "prerouting", "other4", "ip saddr 10.3.0.1 ip daddr 10.2.0.0/24")
	count(n.far, "prerouting", "other6", "ip6 saddr 2001:db8:3::1 ip6 daddr 2001:db8:2::/64")
	n.start(settings{limits: "dial: 500ms"})
	lives := n.tunnelFrom("10.1.0.1", origin4)
	gone, _ := n.tunnel(origin6)

	// The kernel takes the IPv6 addresses away with the link, and keeps the others.
	n.proxy.IP("link", "set", "out", "down")
	n.pool(0, sources4...)
	for range 4 {
		for _, target := range []string{origin4, origin6} {
			if r := n.ask(target); !slices.Contains([]string{noSource, unroutable, timedOut}, r.status()) {
				t.Errorf("%s, the link down: got %q", target, r.head)
			}
		}
	}
	if e := n.s.line(func(e entry) bool { return e.text("reason") == "source-gone" }); e.text("target") != origin6 {
		t.Errorf("ended: %v", e)
	}
	if _, err := gone.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel whose source went with the link lives")
	}
	n.proxy.IP("link", "set", "out", "up")
	n.proxy.Addr("out", "2001:db8:1::1/64")
	n.addRoutes()
	eventually(t, "does not heal", func() bool {
		return n.ask(origin4).status() == "200" && n.ask(origin6).status() == "200"
	})
	alive(t, lives)
	if got4, got6 := n.far.Counter("other4"), n.far.Counter("other6"); got4+got6 != 0 {
		t.Errorf("%d and %d packets left by an address that is not of the pool", got4, got6)
	}
}

// S6: a source whose packets go nowhere fails the request that it serves, within
// limits.dial, and no other.
func TestNetS6(t *testing.T) {
	n := newNetwork(t)
	filter(n.far, "prerouting", "ip saddr 10.1.0.2 tcp dport 443 drop")
	n.start(settings{limits: "dial: 500ms", pool: "sources: [{address: 10.1.0.1}, {address: 10.1.0.2}, {address: 10.1.0.3}]"})
	for _, want := range strings.Fields("10.1.0.1 - 10.1.0.3 10.1.0.1 - 10.1.0.3") {
		if want == "-" {
			n.answers(origin4, timedOut)
		} else if r := n.ask(origin4); r.from != want {
			t.Errorf("got %q, want %s", r.head, want)
		}
	}
	for _, e := range n.s.linesAfter(0, 6, closed) {
		if timeout := e.text("reason") == "connection_timeout"; timeout != (e.text("source") == "10.1.0.2") {
			t.Errorf("by %s: %s", e.text("source"), e.text("reason"))
		}
	}
}

// S7: a source without a free port for a destination is passed over, and serves
// other destinations all the same.
func TestNetS7(t *testing.T) {
	const ports = 4 // of each source
	other := map[string]string{origin4: "10.2.0.2:443", origin6: nobody6}
	for target, pool := range map[string]string{
		origin4: "sources: [{address: 10.1.0.1, weight: 3}, {address: 10.1.0.2}]",
		origin6: `sources: [{address: "2001:db8:1::1", weight: 3}, {address: "2001:db8:1::2"}]`,
	} {
		t.Run(target, func(t *testing.T) {
			n := newNetwork(t)
			n.serve(other[target])
			n.start(settings{pool: pool})
			clients := n.clients(2*ports + 2)
			sysctl(t, n.proxy, "ipv4/ip_local_port_range", "40000 40003")

			served := make(map[string]int)
			for _, c := range clients[:2*ports] {
				r, err := open(c, target)
				if err != nil {
					t.Fatal(err)
				}
				served[r.from]++
			}
			for source, got := range served {
				if got != ports || len(served) != 2 {
					t.Errorf("%s served %d of %d, want %d", source, got, 2*ports, ports)
				}
			}
			r, err := open(clients[2*ports], target)
			if err != nil || r.status() != limited || field(r.head, "Retry-After") == "" {
				t.Errorf("all ports in use: got %q, %v; want %s and when to come again", r.head, err, limited)
			}
			if r, err := open(clients[2*ports+1], other[target]); err != nil || r.status() != "200" {
				t.Errorf("to another destination: got %q, %v", r.head, err)
			}
			clients[0].Close()
			n.s.line(closed)
		})
	}
}

// clients connects to the proxy as often, until the end of the test.
func (n *network) clients(many int) []net.Conn {
	n.t.Helper()
	all := make([]net.Conn, many)
	for i := range all {
		c, err := n.proxy.Dial(n.t.Context(), "tcp", proxyAddr)
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { c.Close() })
		all[i] = c
	}
	return all
}

// U2: silence is a timeout, after limits.dial.
func TestNetU2(t *testing.T) {
	n := newNetwork(t)
	filter(n.far, "input", "tcp dport 443 drop")
	n.start(settings{limits: "dial: 500ms"})
	start := time.Now()
	n.answers(origin4, timedOut)
	n.answers(origin6, timedOut)
	if took := time.Since(start); took < time.Second {
		t.Errorf("two of 500 ms took %v", took)
	}
}

// U3: what a router or the host says by ICMP is told, and in time.
func TestNetU3(t *testing.T) {
	n := newNetwork(t)
	sysctl(t, n.far, "ipv4/icmp_ratelimit", "0")
	sysctl(t, n.far, "ipv6/icmp/ratelimit", "0")
	// One source of each family: the kernel takes a second to believe ICMPv6 when it
	// comes as fast as from a namespace, and what is unreachable is tried by three.
	n.start(settings{pool: `sources: [{address: 10.1.0.1}, {address: "2001:db8:1::1"}]`})
	for i, tt := range []struct{ host, kind, want string }{
		{"10.2.0.1", "tcp reset", refused},
		{"10.2.0.1", "icmp type port-unreachable", refused},
		{"10.2.0.1", "icmp type host-unreachable", unroutable},
		{"10.2.0.1", "icmp type net-unreachable", unroutable},
		{"10.2.0.1", "icmp type host-prohibited", unroutable},
		{"10.2.0.1", "icmp type net-prohibited", unroutable},
		{"10.2.0.1", "icmp type admin-prohibited", unroutable},
		{"10.2.0.1", "icmp type prot-unreachable", "502 connection_terminated"},
		{"2001:db8:2::1", "tcp reset", refused},
		{"2001:db8:2::1", "icmpv6 type port-unreachable", refused},
		{"2001:db8:2::1", "icmpv6 type no-route", unroutable},
		{"2001:db8:2::1", "icmpv6 type addr-unreachable", unroutable},
		{"2001:db8:2::1", "icmpv6 type admin-prohibited", unroutable},
	} {
		port := strconv.Itoa(7000 + i)
		filter(n.far, "input", "tcp dport "+port+" reject with "+tt.kind)
		t.Run(tt.kind, func(t *testing.T) {
			t.Parallel()
			n.in(t).answers(net.JoinHostPort(tt.host, port), tt.want)
		})
	}
}

// U4: what the host's own routes forbid is said to be unroutable, never to be a
// bug: connect(2) has EINVAL for a blackhole and EACCES for a prohibition.
func TestNetU4(t *testing.T) {
	n := newNetwork(t)
	n.start(settings{})
	for i, kind := range []string{"blackhole", "prohibit", "unreachable", "throw"} {
		t.Run(kind, func(t *testing.T) {
			for _, host := range []string{"10.2.4." + strconv.Itoa(i), "2001:db8:2::4" + strconv.Itoa(i)} {
				n.proxy.IP("route", "add", kind, host)
				n.in(t).answers(net.JoinHostPort(host, "443"), unroutable)
			}
		})
	}
	n.askAll(origin4, origin6)
}
