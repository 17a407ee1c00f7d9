package rotate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// model is what a Pool is to do, in the simplest way: every decision looks at every
// source. It knows PerTarget, with sources of one family and of weight 1.
type model struct {
	config   Config
	now      time.Duration
	list     []string
	version  int
	turn     int // of all targets
	cursors  map[string]*modelCursor
	used     map[[2]string]time.Duration // by source and target
	sessions map[string]*modelSession
	health   map[[2]string]*health // by source and target, "" for all
}

type modelCursor struct {
	version  int // of the list that turn counts in
	turn     int
	next     string
	returned []string
}

type modelSession struct {
	began  time.Duration
	source string
}

func newModel(c Config) *model {
	return &model{config: c, cursors: map[string]*modelCursor{}, used: map[[2]string]time.Duration{},
		sessions: map[string]*modelSession{}, health: map[[2]string]*health{}}
}

func (m *model) set(list []string) {
	next := 0
	for i := range m.list {
		if j := slices.Index(list, m.list[(m.turn+i)%len(m.list)]); j >= 0 {
			next = j
			break
		}
	}
	if !slices.Equal(m.list, list) {
		m.version++
	}
	m.list, m.turn = list, next
}

// cursor returns whose turn it is at a target, in the list as it is now.
func (m *model) cursor(target string) *modelCursor {
	c := m.cursors[target]
	if c == nil {
		c = &modelCursor{version: m.version, turn: m.turn, next: m.list[m.turn]}
		m.cursors[target] = c
		m.turn = (m.turn + 1) % len(m.list)
	}
	if c.version != m.version {
		c.version = m.version
		if i := slices.Index(m.list, c.next); i >= 0 {
			c.turn = i
		} else if c.turn >= len(m.list) {
			c.turn = 0
		}
		c.next = m.list[c.turn]
		c.returned = slices.DeleteFunc(c.returned, func(s string) bool { return !slices.Contains(m.list, s) })
	}
	return c
}

func (m *model) recent(source, target string) bool {
	at, ok := m.used[[2]string{source, target}]
	return ok && m.now < at+m.config.pause()
}

func (m *model) cools(source, target string) (until time.Duration) {
	for _, k := range [][2]string{{source, target}, {source, ""}} {
		if h := m.health[k]; h != nil && h.until > m.now {
			until = max(until, h.until)
		}
	}
	return until
}

// take returns the source that is to be used, with "!" when it is cooling, or what is
// to be said instead.
func (m *model) take(target, session string, skip map[string]bool) string {
	if len(m.list) == 0 {
		return "none"
	}
	if session != "" {
		s := m.sessions[session]
		if s == nil || m.now-s.began >= sessionTime {
			s = &modelSession{began: m.now}
			m.sessions[session] = s
		}
		if s.source != "" && slices.Contains(m.list, s.source) && !skip[s.source] && m.cools(s.source, target) == 0 {
			if m.recent(s.source, target) {
				return fmt.Sprint("busy ", m.used[[2]string{s.source, target}]+m.config.pause()-m.now)
			}
			m.used[[2]string{s.source, target}] = m.now
			return s.source
		}
	}
	got := m.choose(target, skip)
	if source, _, _ := cutMark(got); source != "" {
		m.used[[2]string{source, target}] = m.now
		if session != "" {
			m.sessions[session].source = source
		}
	}
	return got
}

// cutMark tells a source from what is said instead of one.
func cutMark(got string) (source string, cooling, ok bool) {
	if got == "none" || len(got) > 4 && got[:4] == "busy" {
		return "", false, false
	}
	if got[len(got)-1] == '!' {
		return got[:len(got)-1], true, true
	}
	return got, false, true
}

func (m *model) choose(target string, skip map[string]bool) string {
	c := m.cursor(target)
	may := func(s string) bool { return !skip[s] && !m.recent(s, target) && m.cools(s, target) == 0 }
	if i := slices.IndexFunc(c.returned, may); i >= 0 {
		s := c.returned[i]
		c.returned = slices.Delete(c.returned, i, i+1)
		return s
	}
	for i := range m.list {
		at := (c.turn + i) % len(m.list)
		if s := m.list[at]; may(s) {
			c.turn = (at + 1) % len(m.list)
			c.next = m.list[c.turn]
			return s
		}
	}
	var free, coolingFree []time.Duration // when those that were used recently may be again
	least, best := time.Duration(0), ""
	for _, s := range m.list {
		at := m.used[[2]string{s, target}] + m.config.pause()
		switch until := m.cools(s, target); {
		case skip[s]:
		case until == 0:
			free = append(free, at)
		case m.recent(s, target):
			coolingFree = append(coolingFree, at)
		case best == "" || until < least:
			best, least = s, until
		}
	}
	switch {
	case len(free) > 0:
		return fmt.Sprint("busy ", slices.Min(free)-m.now)
	case best != "":
		return best + "!"
	case len(coolingFree) > 0:
		return fmt.Sprint("busy ", slices.Min(coolingFree)-m.now)
	}
	return "none"
}

func (m *model) giveBack(source, target string, at time.Duration, turned bool) {
	if m.used[[2]string{source, target}] == at {
		delete(m.used, [2]string{source, target})
	}
	if !turned || !slices.Contains(m.list, source) {
		return
	}
	c := m.cursor(target)
	last := (c.turn + len(m.list) - 1) % len(m.list)
	switch {
	case m.list[last] == source:
		c.turn, c.next = last, source
	case len(c.returned) < len(m.list):
		c.returned = append(c.returned, source)
	}
}

func (m *model) failed(source, target string) {
	k := [2]string{source, target}
	if m.health[k] == nil {
		m.health[k] = new(health)
	}
	m.health[k].open++
}

func (m *model) worked(source, target string) {
	for _, k := range [][2]string{{source, ""}, {source, target}} {
		if h := m.health[k]; h != nil && !h.told {
			delete(m.health, k)
		}
	}
	for k, h := range m.health {
		if k[1] != target || h.open == 0 {
			continue
		}
		all := m.health[[2]string{k[0], ""}]
		if all == nil {
			all = new(health)
			m.health[[2]string{k[0], ""}] = all
		}
		h.failures += h.open
		all.failures += h.open
		h.open = 0
		all.several = all.several || all.target != "" && all.target != target
		all.target = target
		if all.several {
			m.judge(all)
		}
		m.judge(h)
	}
}

func (m *model) judge(h *health) {
	c := m.config.Cooldown
	if h.failures >= c.After || h.step > 0 {
		h.step = min(max(c.For, 2*h.step), c.Most)
		h.until, h.failures, h.told = m.now+h.step, 0, false
	}
}

// Turns, spacing, sessions and cooldown together, against the model.
func TestModel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { compare(t, rand.New(rand.NewPCG(seed, 6))) })
		})
	}
}

func compare(t *testing.T, rnd *rand.Rand) {
	c := Config{
		Strategy: PerTarget,
		Spacing:  time.Duration(rnd.IntN(3)) * 500 * time.Millisecond,
		Cooldown: Cooldown{After: 2, For: time.Second, Most: 3 * time.Second},
	}
	all := addresses(1 + rnd.IntN(80))
	targets := []string{"a", "b", "c", "d"}[:1+rnd.IntN(4)]
	p, m := poolOf(c, all...), newModel(c)
	m.set(all)
	type held struct {
		turn   *Turn
		target string
		at     time.Duration
		inTurn bool
	}
	var open []held
	for step := range 1500 {
		m.now = p.now()
		target := targets[rnd.IntN(len(targets))]
		switch n := rnd.IntN(100); {
		case n < 60:
			r := &Request{Target: target, User: "ann"}
			if rnd.IntN(4) == 0 {
				r.Session.ID = fmt.Sprint(rnd.IntN(3))
			}
			skip := map[string]bool{}
			for range rnd.IntN(3) {
				skip[all[rnd.IntN(len(all))]] = true
			}
			turn, err := p.Next(r, dst4, func(id ID) bool { return skip[id.String()] })
			got, want := said(turn, err), m.take(target, r.Session.ID, skip)
			if got != want {
				t.Fatalf("step %d: %s for %s, session %q: got %s, want %s", step, m.now, target, r.Session.ID, got, want)
			}
			if turn != nil {
				open = append(open, held{turn: turn, target: target, at: m.now, inTurn: turn.cursor != nil})
			}
		case n < 75 && len(open) > 0:
			h := open[len(open)-1]
			open = open[:len(open)-1]
			h.turn.Return()
			m.giveBack(h.turn.Addr.String(), h.target, h.at, h.inTurn)
		case n < 85 && len(open) > 0:
			i := rnd.IntN(len(open))
			h := open[i]
			open = slices.Delete(open, i, i+1)
			if rnd.IntN(3) == 0 {
				h.turn.failed(h.target, false)
				m.failed(h.turn.Addr.String(), h.target)
			} else {
				h.turn.worked(&Request{Target: h.target})
				m.worked(h.turn.Addr.String(), h.target)
			}
			h.turn.Done()
			k := [2]string{h.turn.Addr.String(), h.target}
			if at, ok := m.used[k]; ok && at == h.at && m.now-at <= c.Spacing/10 {
				m.used[k] = m.now // it was short, and counts from its end
			}
		case n < 88:
			source, d := all[rnd.IntN(len(all))], time.Duration(rnd.IntN(3))*time.Second
			at := [2]string{source, []string{"", target}[rnd.IntN(2)]}
			if p.Cool(source, at[1], d) == nil {
				switch h := m.health[at]; {
				case d == 0:
					delete(m.health, at)
				case h == nil:
					m.health[at] = &health{until: m.now + d, told: true}
				default:
					h.until, h.told = m.now+d, true
				}
			}
		case n < 91:
			now := slices.Clone(all)
			rnd.Shuffle(len(now), func(i, j int) { now[i], now[j] = now[j], now[i] })
			now = now[:rnd.IntN(len(now)+1)]
			p.Set(c, sourcesOf(now...))
			m.set(now)
		default:
			time.Sleep(time.Duration(rnd.IntN(150)) * time.Millisecond)
		}
	}
}

func said(turn *Turn, err error) string {
	var busy *Busy
	switch {
	case errors.As(err, &busy):
		return fmt.Sprint("busy ", busy.After)
	case err != nil:
		return "none"
	case turn.Cooling:
		return turn.Addr.String() + "!"
	}
	return turn.Addr.String()
}

// The list changes a thousand times a second under load: no index is out of range, no
// source is used that was never listed, and the ones that stay are not lost.
func TestPoolChangesFast(t *testing.T) {
	const stays = "10.0.0.250"
	for _, c := range []Config{
		{}, {Strategy: Random}, {Strategy: LeastUsed}, {Strategy: Hash},
		{Strategy: PerTarget, Spacing: time.Millisecond, Wait: 100 * time.Millisecond, Cooldown: cooling},
	} {
		t.Run(fmt.Sprint(c.Strategy, c.Spacing), func(t *testing.T) {
			p := poolOf(c, stays)
			stop := make(chan struct{})
			done := make(chan error, 4)
			for i := range 4 {
				go func() { done <- takeUntil(stop, p, i) }()
			}
			for n := range 300 {
				var sources []Source
				for i := range byte(n % 40) {
					sources = append(sources, Source{
						Addr:   netip.AddrFrom4([4]byte{10, 0, byte(n % 3), i}),
						Weight: 1 + int(i)%3,
						Labels: map[string]string{"country": []string{"de", "at"}[i%2]},
					})
				}
				p.Set(c, append(sources, sourcesOf(stays)...))
				time.Sleep(time.Millisecond)
			}
			close(stop)
			for range 4 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			p.Set(c, sourcesOf(stays))
			if turn, err := p.await(t.Context(), &Request{Target: "another"}, []int{ipv4}); err != nil || turn.Addr.String() != stays {
				t.Errorf("at the end: got %v, %v", turn, err)
			}
			if n := open(p); n != 1 {
				t.Errorf("at the end: %d open, want 1", n)
			}
		})
	}
}

// takeUntil takes sources, as different requests want them, until stop is closed.
func takeUntil(stop <-chan struct{}, p *Pool, worker int) error {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		r := &Request{Target: fmt.Sprint(n % 7), User: fmt.Sprint(worker), Client: netip.AddrFrom4([4]byte{10, 9, 0, byte(n)})}
		switch n % 5 {
		case 1:
			r.Session.ID = fmt.Sprint(n % 11)
		case 2:
			r.Wants = []Want{{"country", []string{"de"}}}
		}
		turn, err := p.Next(r, dst4, nil)
		busy, isBusy := errors.AsType[*Busy](err)
		switch {
		case isBusy && busy.After >= 0, errors.Is(err, ErrNoMatch) && r.Wants != nil:
			continue
		case err != nil:
			return err
		}
		if a := turn.Addr.As4(); a[0] != 10 || a[1] != 0 || a[2] > 2 {
			return fmt.Errorf("left by %s", turn.Addr)
		}
		switch n % 4 {
		case 0:
			turn.Return()
			continue
		case 1:
			turn.failed(r.Target, false)
		default:
			turn.connected()
			turn.worked(r)
		}
		turn.Done()
	}
}
