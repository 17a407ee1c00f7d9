package rotate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// try takes a source for target and gives it up again, and returns the last byte of
// its address, or "-" when there was none.
func try(p *Pool, target string) string {
	turn, err := p.Next(&Request{Target: target}, dst4, nil)
	if err != nil {
		return "-"
	}
	turn.Done()
	return fmt.Sprint(turn.Addr.As4()[3])
}

// tries takes a source for each target of a list.
func tries(p *Pool, targets string) string {
	var got []string
	for target := range strings.FieldsSeq(targets) {
		got = append(got, try(p, target))
	}
	return strings.Join(got, " ")
}

func TestPerTarget(t *testing.T) {
	t.Run("each target has turns of its own", func(t *testing.T) {
		p := poolOf(Config{Strategy: PerTarget}, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		// c1 asks t1 again and again; c2's request to t2 does not shift its turns.
		if got, want := tries(p, "t1 t1 t2 t1 t2 t1 t2 t1"), "1 2 2 3 3 1 1 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("targets that are asked for once use all sources", func(t *testing.T) {
		p := poolOf(Config{Strategy: PerTarget}, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		if got, want := tries(p, "a b c d e f"), "1 2 3 1 2 3"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("weights hold for each", func(t *testing.T) {
		p := poolOf(Config{Strategy: PerTarget}, "10.0.0.1*2", "10.0.0.2")
		if got, want := tries(p, "a a a a a a"), "1 2 1 1 2 1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("conditions have turns of their own too", func(t *testing.T) {
		var p Pool
		var sources []Source
		for i, country := range []string{"de", "de", "at", "at"} {
			sources = append(sources, Source{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Labels: map[string]string{"country": country}})
		}
		p.Set(Config{Strategy: PerTarget}, sources)
		var got []string
		for i := range 12 {
			r := &Request{Target: "a"}
			if i%2 == 1 {
				r.Wants = []Want{{"country", []string{"de"}}}
			}
			turn, _ := p.Next(r, dst4, nil)
			got = append(got, fmt.Sprint(turn.Addr.As4()[3]))
		}
		if got, want := strings.Join(got, " "), "1 1 2 2 3 1 4 2 1 1 2 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("a turn that was given back comes next, for its target", func(t *testing.T) {
		p := poolOf(Config{Strategy: PerTarget}, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		tries(p, "a b")
		turn, _ := p.Next(&Request{Target: "a"}, dst4, nil) // 2
		turn.Return()
		if got, want := tries(p, "b a a"), "3 2 3"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("turns go on when the list changes", func(t *testing.T) {
		p := poolOf(Config{Strategy: PerTarget}, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		tries(p, "a") // 1
		p.Set(Config{Strategy: PerTarget}, sourcesOf("10.0.0.9", "10.0.0.1", "10.0.0.2", "10.0.0.3"))
		if got, want := tries(p, "a a a"), "2 3 9"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

func TestSitesAreBounded(t *testing.T) {
	p := poolOf(Config{Strategy: PerTarget}, "10.0.0.1", "10.0.0.2", "10.0.0.3")
	tries(p, "first old") // 1 2
	for i := range maxSites - 2 {
		try(p, fmt.Sprint(i))
	}
	tries(p, "first") // 2
	for i := range 10 {
		try(p, fmt.Sprint("new", i))
	}
	if got := len(p.sites.byTarget); got != maxSites {
		t.Errorf("got %d targets, want %d", got, maxSites)
	}
	if p.sites.byTarget["old"] != nil || p.sites.byTarget["first"] == nil {
		t.Error("it was not the oldest that went")
	}
	if got := try(p, "first"); got != "3" {
		t.Errorf("first: got %s, want 3", got)
	}
}

// What becomes of a turn whose target was forgotten meanwhile does not count.
func TestUsesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Config{Spacing: time.Second}
		p := poolOf(c, addresses(10)...)
		var turns []*Turn
		for i := range 10 {
			turn, _ := p.Next(&Request{Target: fmt.Sprint("old", i)}, dst4, nil)
			turns = append(turns, turn)
		}
		for i := range maxSites {
			try(p, fmt.Sprint(i))
		}
		for i, turn := range turns {
			turn.connected()
			if i%2 == 0 {
				turn.Done()
			} else {
				turn.Return()
			}
		}
		if got := p.sites.uses; got != maxSites {
			t.Errorf("got %d uses, want %d", got, maxSites)
		}
	})
}

func TestSpacing(t *testing.T) {
	spaced := Config{Strategy: PerTarget, Spacing: time.Second}
	t.Run("a source serves a target once in that time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(spaced, "10.0.0.1", "10.0.0.2", "10.0.0.3")
			if got, want := tries(p, "a a a a b b"), "1 2 3 - 2 3"; got != want {
				t.Errorf("at once: got %s, want %s", got, want)
			}
			time.Sleep(spaced.pause())
			if got, want := tries(p, "b a a a a b b"), "1 1 2 3 - 2 3"; got != want {
				t.Errorf("later: got %s, want %s", got, want)
			}
		})
	})
	t.Run("the one that was not used for longest comes next", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(spaced, "10.0.0.1", "10.0.0.2")
			tries(p, "a")
			time.Sleep(600 * time.Millisecond)
			tries(p, "a")
			time.Sleep(600 * time.Millisecond)
			if got, want := tries(p, "a a"), "1 -"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			_, err := p.Next(&Request{Target: "a"}, dst4, nil)
			busy, ok := errors.AsType[*Busy](err)
			if want := spaced.pause() - 600*time.Millisecond; !ok || busy.After != want {
				t.Errorf("got %v, want to be told to come again in %v", err, want)
			}
		})
	})
	t.Run("whatever the strategy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, s := range []Strategy{RoundRobin, Random, LeastUsed, PerTarget, Hash} {
				p := poolOf(Config{Strategy: s, Spacing: time.Second}, "10.0.0.1", "10.0.0.2*3", "10.0.0.3")
				for range 3 {
					seen := map[string]bool{}
					for range 3 {
						seen[try(p, "a")] = true
					}
					if len(seen) != 3 || seen["-"] || try(p, "a") != "-" {
						t.Errorf("%s: got %v", s, seen)
					}
					time.Sleep(p.config.pause())
				}
			}
		})
	})
	t.Run("a turn that was given back was no use", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(spaced, "10.0.0.1", "10.0.0.2")
			turn, _ := p.Next(&Request{Target: "a"}, dst4, nil)
			turn.Return()
			if got, want := tries(p, "a a a"), "1 2 -"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	})
	t.Run("counts from when it connected", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(spaced, "10.0.0.1")
			turn, _ := p.Next(&Request{Target: "a"}, dst4, nil)
			time.Sleep(500 * time.Millisecond)
			turn.connected()
			time.Sleep(spaced.pause() - 1)
			if got := try(p, "a"); got != "-" {
				t.Errorf("got %s", got)
			}
			time.Sleep(time.Nanosecond)
			if got := try(p, "a"); got != "1" {
				t.Errorf("got %s", got)
			}
		})
	})
	t.Run("or from its end, when that comes soon", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for life, want := range map[time.Duration]time.Duration{
				100 * time.Millisecond: 100 * time.Millisecond,
				101 * time.Millisecond: 0,
			} {
				p := poolOf(spaced, "10.0.0.1")
				turn, _ := p.Next(&Request{Target: "a"}, dst4, nil)
				time.Sleep(life)
				turn.Done()
				_, err := p.Next(&Request{Target: "a"}, dst4, nil)
				busy, ok := errors.AsType[*Busy](err)
				if want := spaced.pause() - life + want; !ok || busy.After != want {
					t.Errorf("after %v: got %v, want to be told to come again in %v", life, err, want)
				}
			}
		})
	})
	t.Run("a source that comes back soon has not been forgotten", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(spaced, "10.0.0.1", "10.0.0.2")
			tries(p, "a a")
			p.Set(spaced, sourcesOf("10.0.0.2"))
			p.Set(spaced, sourcesOf("10.0.0.3", "10.0.0.1", "10.0.0.2"))
			if got, want := tries(p, "a a"), "3 -"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	})
	t.Run("of many sources", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const n = 500
			p := poolOf(spaced, addresses(n)...)
			for range 3 {
				seen := map[netip.Addr]bool{}
				for range n {
					turn, err := p.Next(&Request{Target: "a"}, dst4, nil)
					if err != nil || seen[turn.Addr] {
						t.Fatalf("after %d: %v", len(seen), err)
					}
					seen[turn.Addr] = true
				}
				if got := try(p, "a"); got != "-" {
					t.Errorf("one more: got %s", got)
				}
				time.Sleep(spaced.pause())
			}
		})
	})
}

// ask asks for a source as Dial does, and may wait for it.
func ask(p *Pool, r Request) (string, error) {
	turn, err := p.await(context.Background(), &r, []int{ipv4})
	if err != nil {
		return "", err
	}
	return fmt.Sprint(turn.Addr.As4()[3]), nil
}

func TestWait(t *testing.T) {
	waiting := Config{Strategy: PerTarget, Spacing: time.Second, Wait: 10 * time.Second}
	t.Run("until a source is free", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(waiting, "10.0.0.1", "10.0.0.2")
			start := time.Now()
			var got []string
			for range 6 {
				a, err := ask(p, Request{Target: "a"})
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprintf("%s@%v", a, time.Since(start)))
			}
			if got, want := strings.Join(got, " "), "1@0s 2@0s 1@1.01s 2@1.01s 1@2.02s 2@2.02s"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	})
	t.Run("not when it would be in vain", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := waiting
			c.Wait = 2500 * time.Millisecond
			p := poolOf(c, "10.0.0.1")
			var wg sync.WaitGroup
			for range 3 { // the first at once, others after one and two seconds
				wg.Go(func() {
					if _, err := ask(p, Request{Target: "a"}); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			start := time.Now()
			_, err := ask(p, Request{Target: "a"})
			busy, ok := errors.AsType[*Busy](err)
			if want := 3 * c.pause(); !ok || busy.After != want || time.Since(start) != 0 {
				t.Errorf("got %v after %v, want to be told at once to come again in %v", err, time.Since(start), want)
			}
			wg.Wait()
		})
	})
	t.Run("clients take turns", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(waiting, "10.0.0.1")
			try(p, "a")
			var mu sync.Mutex
			var order []string
			var wg sync.WaitGroup
			for _, user := range strings.Fields("x x x x y x y z") {
				wg.Go(func() {
					if _, err := ask(p, Request{Target: "a", User: user}); err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					order = append(order, user)
				})
				synctest.Wait()
			}
			wg.Wait()
			if got, want := strings.Join(order, " "), "x y z x y x x x"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	})
	t.Run("a source that is added serves those who wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(waiting, "10.0.0.1")
			try(p, "a")
			start := time.Now()
			var got string
			var wg sync.WaitGroup
			wg.Go(func() { got, _ = ask(p, Request{Target: "a"}) })
			synctest.Wait()
			p.Set(waiting, sourcesOf("10.0.0.1", "10.0.0.2"))
			wg.Wait()
			if got != "2" || time.Since(start) != 0 {
				t.Errorf("got %s after %v", got, time.Since(start))
			}
		})
	})
	t.Run("when all sources leave, there is nothing to wait for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(waiting, "10.0.0.1")
			try(p, "a")
			var err error
			var wg sync.WaitGroup
			wg.Go(func() { _, err = ask(p, Request{Target: "a"}) })
			synctest.Wait()
			p.Set(waiting, nil)
			wg.Wait()
			if !errors.Is(err, ErrNoSource) || p.waiting != 0 || len(p.sites.waiting) != 0 {
				t.Errorf("got %v, %d still waiting", err, p.waiting)
			}
		})
	})
	t.Run("one that gives up leaves its place", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(waiting, "10.0.0.1")
			try(p, "a")
			ctx, cancel := context.WithCancel(t.Context())
			var err error
			var wg sync.WaitGroup
			wg.Go(func() { _, err = p.await(ctx, &Request{Target: "a"}, []int{ipv4}) })
			synctest.Wait()
			cancel()
			wg.Wait()
			if !errors.Is(err, context.Canceled) || p.waiting != 0 || len(p.sites.waiting) != 0 {
				t.Errorf("got %v, %d still waiting", err, p.waiting)
			}
			start := time.Now()
			if a, err := ask(p, Request{Target: "a"}); a != "1" || time.Since(start) != waiting.pause() {
				t.Errorf("got %s, %v after %v", a, err, time.Since(start))
			}
		})
	})
	t.Run("nobody comes in front of those who wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := poolOf(waiting, "10.0.0.1")
			try(p, "a")
			var wg sync.WaitGroup
			wg.Go(func() { ask(p, Request{Target: "a"}) })
			synctest.Wait()
			time.Sleep(waiting.pause() - 1)
			p.mu.Lock() // the timer cannot get at the pool
			time.Sleep(time.Nanosecond)
			p.mu.Unlock()
			if got := try(p, "a"); got != "-" {
				t.Errorf("got %s", got)
			}
			wg.Wait()
		})
	})
}
