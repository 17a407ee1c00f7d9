package rotate

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
)

// ring is the sources of one family and whose turn it is.
type ring struct {
	mu sync.Mutex
	// guards
	strategy Strategy
	members  []*member
	order    []*member // each member as often as its weight, spread evenly
	turn     int       // index into order of the next one
	returned []*member // turns that were given back, to be taken first
}

// member is a source in a ring. It outlives Set for as long as its address stays.
type member struct {
	Source
	open int // connections that hold it
	live bool
}

// Turn is a source taken for one connection. Exactly one of Done and Return is to
// be called at its end; further calls do nothing. A Turn belongs to one goroutine.
type Turn struct {
	Source
	ring   *ring
	member *member
}

// Done says that the connection has ended.
func (t *Turn) Done() { t.end(false) }

// Return says that no connection was made through the source: its turn is given
// to the next that asks, as if it had not been taken.
func (t *Turn) Return() { t.end(true) }

func (t *Turn) end(unused bool) {
	if t.member == nil {
		return
	}
	t.ring.mu.Lock()
	defer t.ring.mu.Unlock()
	t.member.open--
	if unused {
		t.ring.giveBack(t.member)
	}
	t.member = nil
}

func (r *ring) next(may func(*Source) bool) (*Turn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var m *member
	switch r.strategy {
	case Random:
		m = r.random(may)
	case LeastUsed:
		m = r.leastUsed(may)
	default:
		m = r.inTurn(may)
	}
	if m == nil {
		return nil, ErrNoSource
	}
	m.open++
	return &Turn{Source: m.Source, ring: r, member: m}, nil
}

func (r *ring) inTurn(may func(*Source) bool) *member {
	for i, m := range r.returned {
		if usable(m, may) {
			r.returned = slices.Delete(r.returned, i, i+1)
			return m
		}
	}
	for range r.order {
		m := r.order[r.turn]
		r.turn = (r.turn + 1) % len(r.order)
		if usable(m, may) {
			return m
		}
	}
	return nil
}

func (r *ring) random(may func(*Source) bool) *member {
	if len(r.order) == 0 {
		return nil
	}
	start := rand.IntN(len(r.order))
	for i := range r.order {
		if m := r.order[(start+i)%len(r.order)]; usable(m, may) {
			return m
		}
	}
	return nil
}

// leastUsed looks at every source, beginning with the one whose turn it is, so
// that equals are used in turn.
func (r *ring) leastUsed(may func(*Source) bool) *member {
	var best *member
	for i := range r.order {
		m := r.order[(r.turn+i)%len(r.order)]
		if usable(m, may) && (best == nil || m.open*best.Weight < best.open*m.Weight) {
			best = m
		}
	}
	if len(r.order) > 0 {
		r.turn = (r.turn + 1) % len(r.order)
	}
	return best
}

func usable(m *member, may func(*Source) bool) bool {
	return m.live && may(&m.Source)
}

// giveBack undoes the last turn when it was m's; otherwise others have taken
// turns since, and m is put in front of the next.
func (r *ring) giveBack(m *member) {
	if r.strategy != RoundRobin || !m.live {
		return
	}
	last := (r.turn + len(r.order) - 1) % len(r.order)
	switch {
	case r.order[last] == m:
		r.turn = last
	case len(r.returned) < len(r.members):
		r.returned = append(r.returned, m)
	}
}

func (r *ring) set(s Strategy, sources []Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := make(map[netip.Addr]*member, len(r.members))
	for _, m := range r.members {
		m.live = false
		old[m.Addr] = m
	}
	r.strategy = cmp.Or(s, RoundRobin)
	r.members = r.members[:0:0]
	for _, src := range sources {
		src.Weight = max(1, src.Weight)
		m := old[src.Addr]
		if m == nil {
			m = &member{}
			old[src.Addr] = m
		}
		if m.live {
			continue // listed twice: the first entry counts
		}
		m.Source, m.live = src, true
		r.members = append(r.members, m)
	}
	before, turn := r.order, r.turn
	r.order = spread(r.members)
	r.turn = resume(before, turn, r.order)
	r.returned = slices.DeleteFunc(r.returned, func(m *member) bool { return !m.live })
}

// spread lists each member as often as its weight says, at even distances:
// weights 2, 1 give A B A; equal weights give A B C.
func spread(members []*member) []*member {
	unit := 0
	for _, m := range members {
		unit = gcd(m.Weight, unit)
	}
	type slot struct {
		at float64
		m  *member
	}
	var slots []slot
	for _, m := range members {
		n := m.Weight / unit
		for i := range n {
			slots = append(slots, slot{(float64(i) + 0.5) / float64(n), m})
		}
	}
	slices.SortStableFunc(slots, func(a, b slot) int { return cmp.Compare(a.at, b.at) })
	order := make([]*member, len(slots))
	for i, s := range slots {
		order[i] = s.m
	}
	return order
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// resume finds where to go on in after: at the first member still there of those
// whose turn was coming in before. Otherwise a change of the list would start
// again with the first source, and use it more than the rest.
func resume(before []*member, turn int, after []*member) int {
	for i := range before {
		if m := before[(turn+i)%len(before)]; m.live {
			return slices.Index(after, m)
		}
	}
	return 0
}

func (r *ring) sources() []Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	uses := make([]Use, len(r.members))
	for i, m := range r.members {
		uses[i] = Use{m.Source, m.open}
	}
	return uses
}
