package rotate

import (
	"cmp"
	"slices"
)

// ring is the sources of one family.
type ring struct {
	family   int
	strategy Strategy
	version  uint64 // of members and their order
	members  []*member
	all      view
	views    map[string]*view // of those that are as a request wants them, by viewKey
	heap     []*member        // of LeastUsed
}

// member is a source of a pool. It outlives Set for as long as its source stays.
type member struct {
	Source
	id    ID
	hash  uint64 // of id
	span  span   // of a prefix
	live  bool   // is in the list
	round uint64 // of the Set that had it last
	left  instant

	open int    // connections that hold it
	uses uint64 // that it was taken
	last uint64 // Pool.uses when it was
	part uint64 // of a prefix: the count of the part that comes next

	// In the ring of each family; a slot of -1 means that it is not in that one.
	slot  [2]int // in members
	first [2]int // in all.order
	leaf  [2]int // in heap
}

// families are those that m can reach. A proxy is asked for addresses of both.
func (m *member) families() []int {
	switch {
	case m.Exit != nil:
		return []int{ipv4, ipv6}
	case m.Prefix.IsValid():
		return []int{familyOf(m.Prefix.Addr())}
	}
	return []int{familyOf(m.Addr)}
}

// set replaces the members. changed says that some of them are not as they were.
func (r *ring) set(f int, s Strategy, members []*member, changed bool) {
	r.family, r.strategy = f, cmp.Or(s, RoundRobin)
	if changed || !slices.Equal(r.members, members) {
		r.version++
		before, turn := r.all.order, r.all.turn
		r.members = members
		for i, m := range members {
			m.slot[f] = i
		}
		r.all.fill(r, members)
		for i := len(r.all.order) - 1; i >= 0; i-- {
			r.all.order[i].first[f] = i
		}
		r.all.turn, r.all.next = resume(before, turn, r.all.order, f), nil
		r.all.sync(&r.all)
	}
	r.heapify()
}

// maxOrder bounds the length of an order, which is the sum of the weights. Beyond it
// the weights are scaled down, and are only about right.
const maxOrder = 1 << 22

// spread lists each member as often as its weight says, at even distances:
// weights 2, 1 give A B A; equal weights give A B C.
func spread(members []*member) []*member {
	unit, sum := 0, 0
	for _, m := range members {
		unit = gcd(m.Weight, unit)
		sum += m.Weight
	}
	if unit == 0 || sum/unit == len(members) {
		return slices.Clone(members)
	}
	unit = max(unit, sum/maxOrder)
	type slot struct {
		at float64
		m  *member
	}
	slots := make([]slot, 0, sum/unit)
	for _, m := range members {
		n := max(1, m.Weight/unit)
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
func resume(before []*member, turn int, after []*member, f int) int {
	for i := range before {
		if m := before[(turn+i)%len(before)]; m.slot[f] >= 0 {
			return m.first[f]
		}
	}
	return 0
}
