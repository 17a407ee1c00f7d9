package rotate

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// TestStandby: what stands by is used when nothing else can be, and no longer.
func TestStandby(t *testing.T) {
	for _, strategy := range []Strategy{RoundRobin, Random, LeastUsed, PerTarget, Hash} {
		var p Pool
		p.Set(Config{Strategy: strategy}, []Source{
			{Addr: netip.MustParseAddr("10.0.0.1"), Standby: 2},
			{Addr: netip.MustParseAddr("10.0.0.2"), Standby: 1},
			{Addr: netip.MustParseAddr("10.0.0.3"), Standby: 1},
			{Addr: netip.MustParseAddr("10.0.0.4")},
		})
		down := make(map[byte]bool)
		skip := func(id ID) bool { return down[id.Net.Addr().As4()[3]] }
		next := func(want string) {
			t.Helper()
			for range 8 {
				turn, err := p.Next(&Request{Target: "a.example", User: "u"}, dst4, skip)
				if err != nil || !strings.Contains(want, string('0'+turn.Addr.As4()[3])) {
					t.Fatalf("%s: got %v, %v; want one of %s", strategy, turn, err, want)
				}
				turn.Done()
			}
		}
		next("4")
		down[4] = true
		next("23")
		down[2], down[3] = true, true
		next("1")
		down[4] = false
		next("4")
		down[4], down[1] = true, true
		if _, err := p.Next(&Request{}, dst4, skip); !errors.Is(err, ErrNoSource) {
			t.Errorf("%s: all are down: got %v", strategy, err)
		}
	}
}
