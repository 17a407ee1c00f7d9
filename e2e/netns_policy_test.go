//go:build linux

package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"swivel/internal/netlab"
)

const (
	loops      = "502 proxy_loop_detected"
	prohibited = "403 destination_ip_prohibited"
	everywhere = `0.0.0.0/0, "::/0", "*"`
)

// dns serves a zone in far, and returns it with the settings that use it.
func (n *network) dns(zone map[string][]netip.Addr) (*netlab.DNS, string) {
	n.t.Helper()
	d := netlab.ListenDNS(n.t, n.far.ListenPacket("udp", "10.2.0.1:53"), nil, zone)
	return d, "servers: [10.2.0.1], cache: 0s"
}

// 3a/30: the proxy's own listener is no destination, by whatever way it is reached
// and whatever is allowed.
func TestNet3a30(t *testing.T) {
	n := newNetwork(t)
	n.proxy.Batch("route add local 10.9.0.0/24 dev lo\nroute add local 2001:db8:9::/64 dev lo\n")
	_, resolver := n.dns(map[string][]netip.Addr{
		"self.example":  {netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("2001:db8:1::1")},
		"local.example": {netip.MustParseAddr("127.0.0.1")},
	})
	n.start(settings{
		listen: `":8080"`, listener: `clients: [0.0.0.0/0, "::/0"],`,
		resolver: resolver, allow: everywhere,
	})
	count(n.proxy, "output", "own", "tcp dport 8080 tcp flags syn")
	for _, host := range []string{
		"127.0.0.1", "127.0.0.2", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:10.1.0.1]",
		"10.1.0.1", "10.1.0.3", "[2001:db8:1::2]", "10.9.0.200", "[2001:db8:9::abcd]",
		"self.example", "local.example", "localhost",
	} {
		t.Run(host, func(t *testing.T) { n.in(t).answers(host+":8080", loops) })
	}
	// The counter saw the connections of the clients themselves.
	if got, want := n.proxy.Counter("own"), len(n.s.linesAfter(0, 15, closed)); got != want {
		t.Errorf("%d connections to port 8080, want the %d of clients", got, want)
	}
	fewDescriptors(t, n.s)
}

// fewDescriptors fails the test unless swivel comes to have no more descriptors than
// it needs when it is idle. A loop takes all there are.
func fewDescriptors(t *testing.T, s *swivel) {
	t.Helper()
	eventually(t, "20 descriptors or more are open", func() bool { return netlab.FDs(s.pid()) < 20 })
}

// 3a/30: an address of another host that the packet filter turns into the proxy's
// own is noticed when the proxy meets its own connection.
func TestNet3a30DNAT(t *testing.T) {
	n := newNetwork(t)
	n.proxy.Nft(`table inet nat {
		chain output {
			type nat hook output priority -100
			ip daddr 10.2.0.77 tcp dport 443 dnat ip to 10.1.0.1:8080
			ip6 daddr 2001:db8:2::77 tcp dport 443 dnat ip6 to [2001:db8:1::1]:8080
		}
	}`)
	n.start(settings{listen: `":8080"`, listener: `clients: [0.0.0.0/0, "::/0"],`, allow: everywhere})
	for _, target := range []string{"10.2.0.77:443", "[2001:db8:2::77]:443"} {
		c, err := n.proxy.Dial(t.Context(), "tcp", proxyAddr)
		if err != nil {
			t.Fatal(err)
		}
		head, err := connect(c, target)
		if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
			t.Fatalf("CONNECT %s: %q, %v", target, head, err)
		}
		// The proxy is at the other end of the tunnel. It goes no further.
		if r, err := open(c, target); err != nil || r.status() != loops {
			t.Errorf("CONNECT %s in a tunnel there: %q, %v; want %s", target, r.head, err, loops)
		}
		c.Close()
	}
	fewDescriptors(t, n.s)
}

// 3a/32: the proxy's own addresses are not opened by a wide rule.
func TestNet3a32(t *testing.T) {
	for _, tt := range []struct{ allow, want string }{
		{everywhere, prohibited},
		{"10.1.0.0/24", prohibited},
		{"10.1.0.2/31", prohibited},
		{"10.1.0.3", prohibited},
		{"10.1.0.2", "200"},
		{`"10.1.0.2:443"`, "200"},
		{`"10.1.0.2:444"`, prohibited},
	} {
		t.Run(tt.allow, func(t *testing.T) {
			n := newNetwork(t)
			ln := n.proxy.Listen("tcp", "10.1.0.2:443")
			go func() { // until ln is closed
				if c, err := ln.Accept(); err == nil {
					tellAndEcho(c)
				}
			}()
			n.start(settings{allow: tt.allow})
			n.answers("10.1.0.2:443", tt.want)
		})
	}
}

// 3a/27: the private address of a name that has a public one, too, is not dialed.
func TestNet3a27(t *testing.T) {
	n := newNetwork(t)
	private4, private6 := netip.MustParseAddr("10.66.0.1"), netip.MustParseAddr("fd66::1")
	_, resolver := n.dns(map[string][]netip.Addr{
		"mixed.example":   {private4, private6, netip.MustParseAddr("10.2.0.1")},
		"refuses.example": {private6, netip.MustParseAddr("10.2.0.2"), private4},
		"private.example": {private4, private6},
	})
	count(n.proxy, "output", "private4", "ip daddr 10.66.0.1")
	count(n.proxy, "output", "private6", "ip6 daddr fd66::1")
	n.start(settings{resolver: resolver, allow: "10.2.0.0/24"})
	n.askAll("mixed.example:443", "mixed.example:443")
	n.answers("refuses.example:443", refused)
	if r := n.answers("private.example:443", prohibited); strings.Contains(r.head, "66") {
		t.Errorf("the address is disclosed: %q", r.head)
	}
	if got4, got6 := n.proxy.Counter("private4"), n.proxy.Counter("private6"); got4+got6 != 0 {
		t.Errorf("%d and %d packets to the private addresses", got4, got6)
	}
}

// 3a/28: a name that changes its address between two questions is asked for once.
func TestNet3a28(t *testing.T) {
	n := newNetwork(t)
	d, resolver := n.dns(nil)
	turn := 0
	d.Hook(func(q netlab.DNSQuery) ([][]byte, bool) { // one goroutine calls it: there is UDP only
		q.Reply.RCode = dnsmessage.RCodeSuccess
		if q.Type == dnsmessage.TypeA {
			addr := []string{"10.2.0.1", "127.0.0.1"}[turn%2]
			turn++
			r := netlab.DNSRecord(q.Name, netip.MustParseAddr(addr))
			r.Header.TTL = 0
			q.Reply.Answers = append(q.Reply.Answers, r)
		}
		return [][]byte{q.Pack(t)}, true
	})
	secret := n.proxy.Listen("tcp", "127.0.0.1:443")
	go func() { // until secret is closed
		for {
			c, err := secret.Accept()
			if err != nil {
				return
			}
			t.Error("the service on the proxy's loopback interface was reached")
			c.Close()
		}
	}()
	n.start(settings{resolver: resolver, allow: "10.2.0.0/24"})
	const rounds = 3
	for range rounds {
		n.askAll("rebind.example:443")
		n.answers("rebind.example:443", prohibited)
	}
	if got, want := d.Queries(), slices.Repeat([]string{"rebind.example"}, 2*2*rounds); !slices.Equal(got, want) {
		t.Errorf("asked %d times, want %d: both families for each request", len(got), len(want))
	}
}
