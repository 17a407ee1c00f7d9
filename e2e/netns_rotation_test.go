//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

// inTurn fails the test unless got is the addresses of want in some order, over
// and over: the kernel, not swivel, says in which order an interface has them.
func inTurn(t *testing.T, got, want []string) {
	t.Helper()
	for i, from := range got {
		if i >= len(want) && from != got[i-len(want)] {
			t.Errorf("not in turn: %v", got)
			return
		}
	}
	if first := got[:len(want)]; !slices.Equal(slices.Sorted(slices.Values(first)), slices.Sorted(slices.Values(want))) {
		t.Errorf("the first were %v, want each of %v", first, want)
	}
}

func TestNetRotation(t *testing.T) {
	for _, tt := range []struct{ name, pool string }{
		{"interface", "sources: [{interface: out}]"},
		{"MAC", `sources: [{mac: "02:00:00:00:00:01"}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNetwork(t)
			n.start(settings{pool: tt.pool})
			t.Run("each family takes its own turns", func(t *testing.T) {
				from := n.in(t).askAll(slices.Repeat([]string{origin4, origin6}, 7)...)
				var v4, v6 []string
				for i := range 7 {
					v4, v6 = append(v4, from[2*i]), append(v6, from[2*i+1])
				}
				inTurn(t, v4, sources4)
				inTurn(t, v6, sources6)
			})
			t.Run("requests at once get each source as often", func(t *testing.T) {
				for _, target := range []string{origin4, origin6} {
					if got, want := n.spread(30, target), "10 10 10"; got != want {
						t.Errorf("%s: got %s, want %s", target, got, want)
					}
				}
			})
		})
	}
}

// spread makes requests at once and returns how many came by each source.
func (n *network) spread(requests int, target string) string {
	n.t.Helper()
	var mu sync.Mutex
	count := make(map[string]int)
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			r, err := n.request(n.t.Context(), target)
			if err != nil || r.status() != "200" {
				n.t.Errorf("CONNECT %s: %q, %v", target, r.head, err)
			}
			mu.Lock()
			defer mu.Unlock()
			count[r.from]++
		})
	}
	wg.Wait()
	return strings.Trim(fmt.Sprint(slices.Collect(maps.Values(count))), "[]")
}

func TestNetWeights(t *testing.T) {
	n := newNetwork(t)
	n.start(settings{pool: "sources: [{address: 10.1.0.1, weight: 2}, {address: 10.1.0.2}]"})
	got := n.askAll(slices.Repeat([]string{origin4}, 6)...)
	want := strings.Fields("10.1.0.1 10.1.0.2 10.1.0.1 10.1.0.1 10.1.0.2 10.1.0.1")
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNetRandom(t *testing.T) {
	n := newNetwork(t)
	n.start(settings{pool: "strategy: random, sources: [{interface: out}]"})
	seen := make(map[string]bool)
	eventually(t, "random never took every source", func() bool {
		for _, from := range n.askAll(origin4, origin6) {
			seen[from] = true
		}
		return len(seen) == len(sources4)+len(sources6)
	})
}

func TestNetLeastUsed(t *testing.T) {
	n := newNetwork(t)
	n.start(settings{pool: "strategy: least-used, sources: [{interface: out}]"})
	var first []string
	held := make(map[string]func() error)
	for range sources4 {
		c, r := n.tunnel(origin4)
		first = append(first, r.from)
		held[r.from] = c.Close
	}
	inTurn(t, first, sources4)
	for _, freed := range []string{"10.1.0.2", "10.1.0.1", "10.1.0.3"} {
		held[freed]()
		n.s.line(func(e entry) bool { return closed(e) && e.text("source") == freed })
		c, r := n.tunnel(origin4)
		if r.from != freed {
			t.Errorf("got %s, want %s, which has no tunnel", r.from, freed)
		}
		held[freed] = c.Close
	}
}

// A name with addresses of both families is tried by RFC 8305. Whichever family
// loses has its turn given back.
func TestNetBothFamilies(t *testing.T) {
	n := newNetwork(t)
	v4, v6, refuses6 := netip.MustParseAddr("10.2.0.1"), netip.MustParseAddr("2001:db8:2::1"), netip.MustParseAddr("2001:db8:2::2")
	silent6 := netip.MustParseAddr("2001:db8:2::3")
	dns, resolver := n.dns(map[string][]netip.Addr{
		"both.example":   {v4, v6},
		"half.example":   {v4, refuses6},
		"silent.example": {v4, silent6},
	})
	n.far.Addr("lo", silent6.String()+"/128")
	filter(n.far, "input", "ip6 daddr 2001:db8:2::3 drop")
	n.start(settings{
		pool:     `sources: [{address: 10.1.0.1}, {address: 10.1.0.2}, {address: "2001:db8:1::1"}, {address: "2001:db8:1::2"}, {address: "2001:db8:1::3"}]`,
		resolver: resolver,
	})

	var got4, got6 []string
	for _, loses6 := range []string{"half.example:443", "silent.example:443", "half.example:443", "silent.example:443"} {
		got6 = append(got6, n.askAll("both.example:443")...)
		got4 = append(got4, n.askAll(loses6)...)
	}
	if want := []string{"10.1.0.1", "10.1.0.2", "10.1.0.1", "10.1.0.2"}; !slices.Equal(got4, want) {
		t.Errorf("IPv4: got %v, want %v", got4, want)
	}
	if want := append(sources6, sources6[0]); !slices.Equal(got6, want) {
		t.Errorf("IPv6: got %v, want %v", got6, want)
	}
	if got, want := len(dns.Queries()), 2*(len(got4)+len(got6)); got != want {
		t.Errorf("%d queries, want %d: one lookup of both families for each request", got, want)
	}
	for _, e := range n.s.linesAfter(0, len(got4)+len(got6), closed) {
		if wins4 := !strings.HasPrefix(e.text("target"), "both"); wins4 != (e["attempts"] == 2.0) {
			t.Errorf("%s took %v attempts", e.text("target"), e["attempts"])
		}
	}
}
