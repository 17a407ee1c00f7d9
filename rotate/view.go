package rotate

import (
	"slices"
	"strings"
)

// view is those sources of a ring that are as a request wants them, and their order.
type view struct {
	cursor // turns that are not a target's own

	ring    *ring
	version uint64 // of ring, when it was filled
	members []*member
	order   []*member // each member as often as its weight, spread evenly
	in      []uint64  // the slots of members as bits; nil: all
	ranks   ranks     // of Hash
}

// maxViews bounds how many are remembered: clients may ask for what they like.
const maxViews = 256

// view returns the sources that are as wants say.
func (r *ring) view(wants []Want) *view {
	if len(wants) == 0 {
		return &r.all
	}
	key := viewKey(wants)
	v := r.views[key]
	if v != nil && v.version == r.version {
		return v
	}
	if v == nil {
		if len(r.views) >= maxViews {
			clear(r.views)
		}
		if r.views == nil {
			r.views = make(map[string]*view)
		}
		v = new(view)
		r.views[key] = v
	}
	var members []*member
	v.in = make([]uint64, (len(r.members)+63)/64)
	for _, m := range r.members {
		if m.is(wants) {
			members = append(members, m)
			slot := m.slot[r.family]
			v.in[slot/64] |= 1 << (slot % 64)
		}
	}
	v.fill(r, members)
	return v
}

func viewKey(wants []Want) string {
	var b strings.Builder
	for _, w := range wants {
		b.WriteString(w.Label)
		for _, v := range w.Values {
			b.WriteByte(0)
			b.WriteString(v)
		}
		b.WriteByte(1)
	}
	return strings.ToLower(b.String())
}

func (v *view) fill(r *ring, members []*member) {
	v.ring, v.version = r, r.version
	v.members = members
	v.order = spread(members)
	v.ranks = ranks{}
}

// index is where m stands in the order for the first time.
func (v *view) index(m *member) int {
	if v.in == nil {
		return m.first[v.ring.family]
	}
	return max(0, slices.Index(v.order, m))
}

// cursor is whose turn it is in the order of a view.
type cursor struct {
	version  uint64    // of the order that turn counts in
	turn     int       // index of the next one
	next     *member   // who that is, should the order change
	returned []*member // turns that were given back, to be taken first
}

// sync makes c fit v, whose order may have changed.
func (c *cursor) sync(v *view) {
	if c.version == v.version {
		return
	}
	c.version = v.version
	if c.next != nil && c.next.live {
		c.turn = v.index(c.next)
	}
	c.returned = slices.DeleteFunc(c.returned, func(m *member) bool { return !m.live })
	c.next = nil
	if len(v.order) > 0 {
		c.moveTo(v, c.turn)
	}
}

// moveTo makes the turn at index i the next.
func (c *cursor) moveTo(v *view, i int) {
	if i >= len(v.order) {
		i = 0
	}
	c.turn, c.next = i, v.order[i]
}

// giveBack undoes the last turn when it was m's; otherwise others have taken
// turns since, and m is put in front of the next.
func (c *cursor) giveBack(v *view, m *member) {
	if !m.live || len(v.order) == 0 {
		return
	}
	c.sync(v)
	last := (c.turn + len(v.order) - 1) % len(v.order)
	switch {
	case v.order[last] == m:
		c.moveTo(v, last)
	case len(c.returned) < len(v.members):
		c.returned = append(c.returned, m)
	}
}

// takeReturned takes one of the turns that were given back.
func (c *cursor) takeReturned(s *search) *member {
	for i, m := range c.returned {
		if s.may(m) {
			c.returned = slices.Delete(c.returned, i, i+1)
			return m
		}
	}
	return nil
}
