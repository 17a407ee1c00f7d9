package rotate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	dst4 = netip.MustParseAddr("192.0.2.1")
	dst6 = netip.MustParseAddr("2001:db8::1")
)

// pool makes a Pool; "A*2" style weights are written 127.0.0.1*2.
func pool(s Strategy, addrs ...string) *Pool { return poolOf(Config{Strategy: s}, addrs...) }

func poolOf(c Config, addrs ...string) *Pool {
	var p Pool
	p.Set(c, sourcesOf(addrs...))
	return &p
}

// addresses lists n of them.
func addresses(n int) (addrs []string) {
	for i := range n {
		addrs = append(addrs, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String())
	}
	return addrs
}

func sourcesOf(addrs ...string) (l []Source) {
	for _, a := range addrs {
		a, w, _ := strings.Cut(a, "*")
		var weight int
		fmt.Sscan(w, &weight)
		l = append(l, Source{Addr: netip.MustParseAddr(a), Weight: weight})
	}
	return l
}

// take takes n turns and writes down the last byte of each source.
func take(t *testing.T, p *Pool, dst netip.Addr, n int) string {
	t.Helper()
	var got []string
	for range n {
		turn, err := p.Next(&Request{}, dst, nil)
		if err != nil {
			t.Fatal(err)
		}
		b := turn.Addr.AsSlice()
		got = append(got, fmt.Sprint(b[len(b)-1]))
		turn.Done()
	}
	return strings.Join(got, " ")
}

func TestPoolNext(t *testing.T) {
	t.Run("takes the next each time, and the first after the last", func(t *testing.T) {
		p := pool(RoundRobin, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		if got, want := take(t, p, dst4, 7), "1 2 3 1 2 3 1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("keeps a turn for each family", func(t *testing.T) {
		p := pool(RoundRobin, "10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2")
		var got []string
		for range 2 {
			got = append(got, take(t, p, dst4, 1), take(t, p, dst6, 1))
		}
		if got, want := strings.Join(got, " "), "1 1 2 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("knows no source when there is none", func(t *testing.T) {
		for name, p := range map[string]*Pool{"zero": {}, "emptied": pool(RoundRobin, "10.0.0.1"), "other family": pool(RoundRobin, "fd00::1")} {
			if name == "emptied" {
				p.Set(Config{Strategy: RoundRobin}, nil)
			}
			if turn, err := p.Next(&Request{}, dst4, nil); !errors.Is(err, ErrNoSource) {
				t.Errorf("%s: got %v, %v, want ErrNoSource", name, turn, err)
			}
			if p.Has(dst4) {
				t.Errorf("%s: has a source", name)
			}
		}
	})
	t.Run("takes what has the labels that are wanted", func(t *testing.T) {
		sources := []Source{
			{Addr: netip.MustParseAddr("10.0.0.1"), Labels: map[string]string{"country": "DE", "line": "a"}},
			{Addr: netip.MustParseAddr("10.0.0.2"), Labels: map[string]string{"country": "at", "line": "b"}},
			{Addr: netip.MustParseAddr("10.0.0.3"), Labels: map[string]string{"Country": "de", "line": "b"}},
			{Addr: netip.MustParseAddr("10.0.0.4")},
		}
		for _, tt := range []struct {
			wants []Want
			want  string
		}{
			{nil, "1 2 3 4"},
			{[]Want{{"country", []string{"de"}}}, "1 3 1 3"},
			{[]Want{{"country", []string{"de", "AT"}}}, "1 2 3 1"},
			{[]Want{{"country", []string{"de", "at"}}, {"line", []string{"b"}}}, "2 3 2 3"},
			{[]Want{{"country", []string{"fr"}}}, ""},
			{[]Want{{"country", nil}}, ""},
			{[]Want{{"city", []string{"de"}}}, ""},
		} {
			var p Pool
			p.Set(Config{Strategy: RoundRobin}, sources)
			var got []string
			for range 4 {
				if turn, err := p.Next(&Request{Wants: tt.wants}, dst4, nil); err == nil {
					got = append(got, fmt.Sprint(turn.Addr.As4()[3]))
				}
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("%v: got %q, want %q", tt.wants, got, tt.want)
			}
		}
	})
	t.Run("leaves out what skip says", func(t *testing.T) {
		for _, s := range []Strategy{RoundRobin, Random, LeastUsed, PerTarget, Hash} {
			p := pool(s, "10.0.0.1", "10.0.0.2", "10.0.0.3")
			only2 := func(s ID) bool { return s.Net.Addr() != netip.MustParseAddr("10.0.0.2") }
			for range 10 {
				turn, err := p.Next(&Request{}, dst4, only2)
				if err != nil || turn.Addr != netip.MustParseAddr("10.0.0.2") {
					t.Fatalf("%s: got %v, %v", s, turn, err)
				}
			}
			if _, err := p.Next(&Request{}, dst4, func(ID) bool { return true }); !errors.Is(err, ErrNoSource) {
				t.Errorf("%s: all skipped: got %v, want ErrNoSource", s, err)
			}
		}
	})
}

func TestPoolWeights(t *testing.T) {
	p := pool(RoundRobin, "10.0.0.1*2", "10.0.0.2*1", "10.0.0.3*4")
	if got, want := take(t, p, dst4, 7), "3 1 3 2 3 1 3"; got != want {
		t.Errorf("spread: got %s, want %s", got, want)
	}
}

func TestPoolLeastUsed(t *testing.T) {
	p := pool(LeastUsed, "10.0.0.1", "10.0.0.2", "10.0.0.3*2")
	open := map[netip.Addr]int{}
	var turns []*Turn
	for range 8 {
		turn, err := p.Next(&Request{}, dst4, nil)
		if err != nil {
			t.Fatal(err)
		}
		open[turn.Addr]++
		turns = append(turns, turn)
	}
	for a, want := range map[string]int{"10.0.0.1": 2, "10.0.0.2": 2, "10.0.0.3": 4} {
		if got := open[netip.MustParseAddr(a)]; got != want {
			t.Errorf("%s: got %d open, want %d", a, got, want)
		}
	}
	var freed netip.Addr
	for _, turn := range turns {
		if turn.Addr == netip.MustParseAddr("10.0.0.2") {
			freed = turn.Addr
			turn.Done()
			turn.Done() // does nothing the second time
			break
		}
	}
	if turn, _ := p.Next(&Request{}, dst4, nil); turn.Addr != freed {
		t.Errorf("got %s, want the one that was freed, %s", turn.Addr, freed)
	}
}

func TestTurnReturn(t *testing.T) {
	t.Run("the last turn is taken again", func(t *testing.T) {
		p := pool(RoundRobin, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		take(t, p, dst4, 1)
		turn, _ := p.Next(&Request{}, dst4, nil)
		turn.Return()
		turn.Return()
		if got, want := take(t, p, dst4, 4), "2 3 1 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("an earlier turn comes next", func(t *testing.T) {
		p := pool(RoundRobin, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		turn, _ := p.Next(&Request{}, dst4, nil)
		take(t, p, dst4, 1)
		turn.Return()
		if got, want := take(t, p, dst4, 3), "1 3 1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("a source that has left does not come back", func(t *testing.T) {
		p := pool(RoundRobin, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		early, _ := p.Next(&Request{}, dst4, nil)
		take(t, p, dst4, 1)
		early.Return()
		late, _ := p.Next(&Request{}, dst4, func(s ID) bool { return s == early.ID() })
		p.Set(Config{Strategy: RoundRobin}, sourcesOf("10.0.0.2"))
		late.Return()
		if got, want := take(t, p, dst4, 2), "2 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestPoolSet(t *testing.T) {
	t.Run("goes on where it was", func(t *testing.T) {
		p := pool(RoundRobin, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		take(t, p, dst4, 1)
		p.Set(Config{Strategy: RoundRobin}, sourcesOf("10.0.0.1", "10.0.0.3", "10.0.0.4"))
		if got, want := take(t, p, dst4, 4), "3 4 1 3"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("counts open connections on", func(t *testing.T) {
		p := pool(LeastUsed, "10.0.0.1", "10.0.0.2")
		p.Next(&Request{}, dst4, nil)
		p.Set(Config{Strategy: LeastUsed}, sourcesOf("10.0.0.1", "10.0.0.2", "10.0.0.3"))
		if got := p.Sources()[0].Open; got != 1 {
			t.Errorf("open: got %d, want 1", got)
		}
	})
	t.Run("takes an address once", func(t *testing.T) {
		p := pool(RoundRobin, "10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1")
		if got := len(p.Sources()); got != 1 {
			t.Errorf("got %d sources, want 1", got)
		}
	})
}

// The list shrinks, grows and empties while many take turns: no index out of
// range, no source that has left, no address of the other family.
func TestPoolConcurrent(t *testing.T) {
	for _, s := range []Strategy{RoundRobin, Random, LeastUsed, PerTarget, Hash} {
		p := pool(s, "10.0.0.1", "10.0.0.2", "fd00::1")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := range 5000 {
					dst := dst4
					if i%2 == 0 {
						dst = dst6
					}
					turn, err := p.Next(&Request{}, dst, nil)
					if err != nil {
						continue
					}
					if turn.Addr.Is4() != dst.Is4() {
						t.Errorf("got %s for %s", turn.Addr, dst)
					}
					if i%3 == 0 {
						turn.Return()
					} else {
						turn.Done()
					}
				}
			})
		}
		for range 1000 {
			p.Set(Config{Strategy: s}, sourcesOf([]string{"10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2", "10.0.0.3*3"}[:rand.IntN(6)]...))
		}
		wg.Wait()
		p.Set(Config{Strategy: s}, sourcesOf("10.0.0.9"))
		if got := take(t, p, dst4, 2); got != "9 9" {
			t.Errorf("%s: at the end: got %s", s, got)
		}
	}
}

// Requests at the same moment get distinct sources, and each its share.
func TestPoolDistinct(t *testing.T) {
	const n = 50
	var addrs []string
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("10.0.1.%d", i))
	}
	for _, s := range []Strategy{RoundRobin, LeastUsed} {
		p := pool(s, addrs...)
		for range 20 {
			turns := make(chan *Turn, n)
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					turn, err := p.Next(&Request{}, dst4, nil)
					if err != nil {
						t.Error(err)
						return
					}
					turns <- turn
				})
			}
			wg.Wait()
			close(turns)
			seen := map[netip.Addr]bool{}
			for turn := range turns {
				if seen[turn.Addr] {
					t.Fatalf("%s: %s was given to two", s, turn.Addr)
				}
				seen[turn.Addr] = true
				turn.Done()
			}
		}
	}
}

// What a decision costs, with as many targets and clients as a large pool has.
func BenchmarkPoolNext(b *testing.B) {
	const targets = 10_000
	requests := make([]Request, targets)
	for i := range requests {
		requests[i] = Request{
			Target: fmt.Sprintf("host%d.example", i),
			Client: netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}),
		}
	}
	for _, c := range []Config{
		{Strategy: RoundRobin},
		{Strategy: Random},
		{Strategy: LeastUsed},
		{Strategy: PerTarget},
		{Strategy: PerTarget, Spacing: time.Second},
		{Strategy: Hash},
	} {
		for _, n := range []int{3, 1000, 100_000} {
			var sources []Source
			for i := range n {
				sources = append(sources, Source{Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})})
			}
			var p Pool
			p.Set(c, sources)
			b.Run(fmt.Sprintf("%s/%v/%d", c.Strategy, c.Spacing, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for i := rand.IntN(targets); pb.Next(); i++ {
						if turn, err := p.Next(&requests[i%targets], dst4, nil); err == nil {
							turn.Done()
						}
					}
				})
			})
		}
	}
	for _, n := range []int{1000, 100_000} {
		var p Pool
		var sources []Source
		for i := range n {
			sources = append(sources, Source{Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})})
		}
		p.Set(Config{Strategy: PerTarget, Spacing: time.Hour}, sources)
		for range n / 2 {
			p.Next(&requests[0], dst4, nil)
		}
		b.Run(fmt.Sprintf("one target, half of the sources taken/%d", n), func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if turn, err := p.Next(&requests[0], dst4, nil); err == nil {
						turn.Return()
					}
				}
			})
		})
	}
}
