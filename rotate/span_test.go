package rotate

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var ones = [2]uint64{^uint64(0), ^uint64(0)}

func TestSpan(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		spread int
		parts  uint64
		usable int    // of the first 300 in their order
		lowest string // address of the first part that is usable, with a host of all zeros
		all    string // of the last part, with a host of all ones
	}{
		{"2001:db8::/48", 64, 65536, 300, "2001:db8::1", "2001:db8:0:ffff:ffff:ffff:ffff:ffff"},
		{"2001:db8::/32", 64, 1 << 32, 300, "2001:db8::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"2001:db8::/48", 56, 256, 256, "2001:db8::1", "2001:db8:0:ffff:ffff:ffff:ffff:ffff"},
		{"2001:db8::/64", 64, 1, 1, "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"},
		{"2001:db8::/120", 128, 256, 255, "2001:db8::1", "2001:db8::ff"},
		{"2001:db8::/127", 128, 2, 2, "2001:db8::", "2001:db8::1"},
		{"2001:db8::7/128", 128, 1, 1, "2001:db8::7", "2001:db8::7"},
		{"2000::/3", 128, 1 << 63, 299, "2000::1", "2000::7fff:ffff:ffff:ffff"},
		{"192.0.2.0/24", 32, 256, 254, "192.0.2.1", "192.0.2.255"},
		{"192.0.0.0/16", 24, 256, 256, "192.0.0.1", "192.0.255.254"},
		{"192.0.2.0/31", 32, 2, 2, "192.0.2.0", "192.0.2.1"},
		{"192.0.2.5/32", 32, 1, 1, "192.0.2.5", "192.0.2.5"},
		{"0.0.0.0/1", 32, 1 << 31, 299, "0.0.0.1", "127.255.255.255"},
	} {
		s := newSpan(netip.MustParsePrefix(tt.prefix), tt.spread)
		if got := s.parts(); got != tt.parts {
			t.Errorf("%s: got %d parts, want %d", tt.prefix, got, tt.parts)
		}
		seen, usable := map[uint64]bool{}, 0
		for n := range min(300, tt.parts) {
			part := s.part(n)
			if seen[part] || part >= tt.parts {
				t.Fatalf("%s: part %d comes twice, or is none", tt.prefix, part)
			}
			seen[part] = true
			if s.usable(part) {
				usable++
			}
			for range 10 {
				a := s.addr(part, randomHost())
				if !netip.MustParsePrefix(tt.prefix).Contains(a) || s.partOf(a) != part {
					t.Fatalf("%s: part %d: got %s, which is of part %d", tt.prefix, part, a, s.partOf(a))
				}
			}
		}
		if usable != tt.usable {
			t.Errorf("%s: %d usable, want %d", tt.prefix, usable, tt.usable)
		}
		first := uint64(0)
		for !s.usable(first) {
			first++
		}
		if got := s.addr(first, [2]uint64{}); got.String() != tt.lowest {
			t.Errorf("%s: lowest %s, want %s", tt.prefix, got, tt.lowest)
		}
		if got := s.addr(tt.parts-1, ones); got.String() != tt.all {
			t.Errorf("%s: highest %s, want %s", tt.prefix, got, tt.all)
		}
	}
}

// prefixPool is a pool of prefixes.
func prefixPool(c Config, prefixes ...string) *Pool {
	var p Pool
	var l []Source
	for _, s := range prefixes {
		spread := 64
		prefix := netip.MustParsePrefix(s)
		if prefix.Addr().Is4() {
			spread = 32
		}
		l = append(l, Source{Prefix: prefix, Spread: spread})
	}
	p.Set(c, l)
	return &p
}

func part64(a netip.Addr) netip.Prefix {
	p, _ := a.Prefix(64)
	return p
}

func TestPrefix(t *testing.T) {
	const prefix = "2001:db8:1::/48"
	t.Run("all parts are used before one is used again", func(t *testing.T) {
		for _, c := range []Config{{}, {Strategy: PerTarget}, {Strategy: LeastUsed}} {
			p := prefixPool(c, prefix)
			for range 2 {
				seen := map[netip.Prefix]bool{}
				for range 65536 {
					turn, err := p.Next(&Request{Target: "a"}, dst6, nil)
					if err != nil || !turn.Free || !turn.Prefix.Contains(turn.Addr) {
						t.Fatalf("got %+v, %v", turn, err)
					}
					turn.Done()
					if host := turn.Addr.As16(); [8]byte(host[8:]) == ([8]byte{}) {
						t.Fatalf("got %s, the router's anycast address", turn.Addr)
					}
					seen[part64(turn.Addr)] = true
				}
				if len(seen) != 65536 {
					t.Errorf("%s: got %d parts", c.Strategy, len(seen))
				}
			}
		}
	})
	t.Run("also of IPv4, where some may not be used", func(t *testing.T) {
		p := prefixPool(Config{}, "192.0.2.0/28")
		for range 3 {
			seen := map[netip.Addr]bool{}
			for range 14 {
				turn, _ := p.Next(&Request{}, dst4, nil)
				seen[turn.Addr] = true
			}
			if len(seen) != 14 {
				t.Errorf("got %d addresses, want 14", len(seen))
			}
		}
	})
	t.Run("one part is used once within the spacing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := Config{Spacing: time.Second, Wait: 3 * time.Second}
			p := prefixPool(c, "192.0.2.0/29") // six that are usable
			seen := map[netip.Addr]bool{}
			for range 6 {
				turn, err := p.Next(&Request{Target: "a"}, dst4, nil)
				if err != nil {
					t.Fatal(err)
				}
				seen[turn.Addr] = true
			}
			if len(seen) != 6 || seen[netip.MustParseAddr("192.0.2.0")] || seen[netip.MustParseAddr("192.0.2.7")] {
				t.Errorf("got %v", seen)
			}
			_, err := p.Next(&Request{Target: "a"}, dst4, nil)
			if busy, ok := errors.AsType[*Busy](err); !ok || busy.After != c.pause() {
				t.Errorf("got %v", err)
			}
			if _, err := p.Next(&Request{Target: "b"}, dst4, nil); err != nil {
				t.Errorf("another target: %v", err)
			}
			start := time.Now()
			if _, err := ask(p, Request{Target: "a"}); err != nil || time.Since(start) != c.pause() {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	})
	t.Run("a session keeps its address", func(t *testing.T) {
		p := prefixPool(Config{}, prefix)
		r := &Request{User: "ann", Session: Session{ID: "x"}}
		first, _ := p.Next(r, dst6, nil)
		for range 100 {
			p.Next(&Request{}, dst6, nil)
			if turn, err := p.Next(r, dst6, nil); err != nil || turn.Addr != first.Addr {
				t.Fatalf("got %v, %v, want %s", turn, err, first.Addr)
			}
		}
	})
	t.Run("hash keeps a key to an address, in every swivel", func(t *testing.T) {
		c := Config{Strategy: Hash, HashBy: ByClient}
		p, o := prefixPool(c, prefix, "2001:db8:2::/48"), prefixPool(c, "2001:db8:2::/48", prefix)
		parts := map[netip.Prefix]bool{}
		for i := range 1000 {
			r := &Request{Client: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
			a, _ := p.Next(r, dst6, nil)
			b, _ := o.Next(r, dst6, nil)
			if a.Addr != b.Addr {
				t.Fatalf("got %s and %s", a.Addr, b.Addr)
			}
			parts[part64(a.Addr)] = true
		}
		if len(parts) < 980 { // of 131,072
			t.Errorf("a thousand clients have %d parts", len(parts))
		}
	})
	t.Run("a part cools, and not the prefix", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := prefixPool(Config{Cooldown: cooling}, "192.0.2.0/29")
			bad := netip.MustParseAddr("192.0.2.3")
			for i := range 60 {
				turn, err := p.Next(&Request{Target: fmt.Sprint(i % 3)}, dst4, nil)
				if err != nil {
					t.Fatal(err)
				}
				if turn.Addr == bad {
					if i > 50 {
						t.Fatalf("%s is used still", bad)
					}
					turn.failed(fmt.Sprint(i%3), false)
				} else {
					turn.worked(&Request{Target: fmt.Sprint(i % 3)})
				}
			}
			if use := p.Sources()[0]; use.Cooling != 0 || use.Parts != 1 {
				t.Errorf("got %+v", use)
			}
		})
	})
	t.Run("a prefix takes turns with addresses as one source", func(t *testing.T) {
		var p Pool
		p.Set(Config{}, []Source{
			{Addr: netip.MustParseAddr("10.0.0.1")},
			{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Spread: 32, Weight: 2},
		})
		n := 0
		for range 300 {
			turn, _ := p.Next(&Request{}, dst4, nil)
			if turn.Prefix.IsValid() {
				n++
			}
		}
		if n != 200 {
			t.Errorf("%d of 300 turns were the prefix's, want 200", n)
		}
	})
	t.Run("an address of it can be asked for, and told to cool", func(t *testing.T) {
		p := prefixPool(Config{}, prefix)
		a := netip.MustParseAddr("2001:db8:1:7::9")
		turn, err := p.Next(&Request{Source: a}, dst6, nil)
		if err != nil || turn.Addr != a || !turn.Free {
			t.Errorf("got %+v, %v", turn, err)
		}
		if err := p.Cool(a.String(), "", time.Hour); err != nil {
			t.Error(err)
		}
		for range 65536 {
			turn, err := p.Next(&Request{}, dst6, nil)
			if err != nil || part64(turn.Addr) == part64(a) {
				t.Fatalf("got %+v, %v", turn, err)
			}
		}
	})
	t.Run("what fails within a race is passed over", func(t *testing.T) {
		p := prefixPool(Config{}, "192.0.2.0/30") // two that are usable
		first, _ := p.Next(&Request{}, dst4, nil)
		second, err := p.Next(&Request{}, dst4, func(id ID) bool { return id == first.ID() })
		if err != nil || second.Addr == first.Addr {
			t.Fatalf("got %v, %v", second, err)
		}
		if _, err := p.Next(&Request{}, dst4, func(id ID) bool { return true }); !errors.Is(err, ErrNoSource) {
			t.Errorf("got %v", err)
		}
	})
}

func BenchmarkPrefix(b *testing.B) {
	for _, c := range []Config{{}, {Strategy: PerTarget, Spacing: time.Second}} {
		b.Run(fmt.Sprintf("%v", c.Spacing), func(b *testing.B) {
			p := prefixPool(c, "2001:db8::/32")
			r := &Request{Target: "a"}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if turn, err := p.Next(r, dst6, nil); err == nil {
						turn.Done()
					}
				}
			})
		})
	}
}
