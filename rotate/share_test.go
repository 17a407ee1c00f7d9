package rotate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// raceDetector says that this is a test with -race, in which a decision costs ten
// times as much.
var raceDetector bool

// Over a million decisions each source has its share by weight, within one percent.
func TestShares(t *testing.T) {
	if raceDetector {
		t.Skip("a million decisions take long with the race detector, and it is no race that this looks for")
	}
	all := "10.0.0.1*2 10.0.0.2*1 10.0.0.3*4 10.0.0.4*1"
	for _, tt := range []struct {
		name    string
		sources string
		config  Config
		n       int
		request func(i int) Request
		keep    int // connections that stay open
	}{
		{"round-robin", all, Config{}, 1e6, func(int) Request { return Request{} }, 0},
		// Of two sources: one percent is seven times the deviation that chance has.
		{"random", "10.0.0.1*2 10.0.0.2*1", Config{Strategy: Random}, 1e6, func(int) Request { return Request{} }, 0},
		{"least-used", all, Config{Strategy: LeastUsed}, 1e6, func(int) Request { return Request{} }, 800},
		{"per-target, a thousand targets", all, Config{Strategy: PerTarget}, 1e6, func(i int) Request {
			return Request{Target: fmt.Sprint(i % 1000)}
		}, 0},
		{"per-target, each target once", all, Config{Strategy: PerTarget}, 3e5, func(i int) Request {
			return Request{Target: fmt.Sprint(i)}
		}, 0},
		{"spacing", all, Config{Strategy: PerTarget, Spacing: time.Nanosecond}, 2e5, func(i int) Request {
			return Request{Target: fmt.Sprint(i % 1000)}
		}, 0},
		{"hash", all, Config{Strategy: Hash, HashBy: ByClient}, 1e6, func(i int) Request {
			return Request{Client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := poolOf(tt.config, strings.Fields(tt.sources)...)
			sum := 0
			for _, use := range p.Sources() {
				sum += use.Weight
			}
			count := map[string]int{}
			var held []*Turn
			for i := range tt.n {
				r := tt.request(i)
				turn, err := p.Next(&r, dst4, nil)
				if err != nil {
					t.Fatal(err)
				}
				count[turn.Addr.String()]++
				held = append(held, turn)
				if len(held) > tt.keep {
					held[0].Done()
					held = held[1:]
				}
			}
			for _, use := range p.Sources() {
				a, want := use.Addr.String(), tt.n*use.Weight/sum
				if got := count[a]; got < want*99/100 || got > want*101/100 {
					t.Errorf("%s: got %d of %d, want %d", a, got, tt.n, want)
				}
			}
		})
	}
}

// fall is where each of n clients falls to.
func fall(p *Pool, n int) (to []netip.Addr) {
	for i := range n {
		turn, err := p.Next(&Request{Client: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}, dst4, nil)
		if err != nil {
			return nil
		}
		turn.Done()
		to = append(to, turn.Addr)
	}
	return to
}

func TestHash(t *testing.T) {
	const clients = 5000
	byClient := Config{Strategy: Hash, HashBy: ByClient}
	for _, n := range []int{7, 2 * worthKnowing} {
		t.Run(fmt.Sprintf("of %d sources", n), func(t *testing.T) {
			all := addresses(n)
			p := poolOf(byClient, all...)
			before := fall(p, clients)
			if !slices.Equal(fall(p, clients), before) {
				t.Error("the second time, a client fell to another source")
			}
			other := slices.Clone(all)
			slices.Reverse(other)
			if !slices.Equal(fall(poolOf(byClient, other...), clients), before) {
				t.Error("another swivel, which has the sources in another order, chooses others")
			}
			gone := netip.MustParseAddr(all[n/2])
			p.Set(byClient, sourcesOf(slices.Delete(slices.Clone(all), n/2, n/2+1)...))
			moved := 0
			for i, a := range fall(p, clients) {
				if before[i] == gone {
					moved++
				} else if a != before[i] {
					t.Fatalf("%s is gone, and a client of %s moved to %s", gone, before[i], a)
				}
			}
			if moved == 0 {
				t.Errorf("%s had no clients", gone)
			}
			p.Set(byClient, sourcesOf(all...))
			if !slices.Equal(fall(p, clients), before) {
				t.Error("it is back, and not all of its clients are")
			}
		})
	}
	t.Run("with a weight that changes, clients move only to where it rises", func(t *testing.T) {
		p := poolOf(byClient, "10.0.0.1", "10.0.0.2*2", "10.0.0.3*3")
		before := fall(p, clients)
		p.Set(byClient, sourcesOf("10.0.0.1*2", "10.0.0.2*2", "10.0.0.3*3"))
		for i, a := range fall(p, clients) {
			if a != before[i] && a != netip.MustParseAddr("10.0.0.1") {
				t.Fatalf("from %s to %s", before[i], a)
			}
		}
	})
	t.Run("passes over what may not be used", func(t *testing.T) {
		for _, n := range []int{7, 2 * worthKnowing} {
			p := poolOf(byClient, addresses(n)...)
			r := &Request{Client: netip.MustParseAddr("192.0.2.9")}
			first, _ := p.Next(r, dst4, nil)
			second, err := p.Next(r, dst4, func(id ID) bool { return id == first.ID() })
			if err != nil || second.Addr == first.Addr {
				t.Fatalf("got %v, %v", second, err)
			}
			if again, _ := p.Next(r, dst4, nil); again.Addr != first.Addr {
				t.Errorf("got %s, want %s again", again.Addr, first.Addr)
			}
		}
	})
	t.Run("by", func(t *testing.T) {
		a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		one := Request{Client: a, User: "alice", Target: "x"}
		for _, tt := range []struct {
			by    HashBy
			other Request // that falls to the same source, whatever it is
		}{
			{ByClient, Request{Client: a, User: "bob", Target: "y"}},
			{ByUser, Request{Client: b, User: "alice", Target: "y"}},
			{ByTarget, Request{Client: b, User: "bob", Target: "x"}},
		} {
			for seed := range 20 {
				addrs := addresses(100 + seed)
				p := poolOf(Config{Strategy: Hash, HashBy: tt.by}, addrs...)
				x, _ := p.Next(&one, dst4, nil)
				y, _ := p.Next(&tt.other, dst4, nil)
				if x.Addr != y.Addr {
					t.Fatalf("%s: got %s and %s", tt.by, x.Addr, y.Addr)
				}
			}
		}
	})
	t.Run("a client of IPv6 is a /64", func(t *testing.T) {
		p := poolOf(byClient, addresses(1000)...)
		x, _ := p.Next(&Request{Client: netip.MustParseAddr("2001:db8::1")}, dst4, nil)
		y, _ := p.Next(&Request{Client: netip.MustParseAddr("2001:db8::2")}, dst4, nil)
		if x.Addr != y.Addr {
			t.Errorf("got %s and %s", x.Addr, y.Addr)
		}
	})
}
