package rotate

// index answers which sources are among the uses of a site. Those that are one
// address are bits, by their slots; parts of prefixes are in a map.
type index struct {
	version [2]uint64 // of the rings, when the slots were so
	bits    [2][]uint64
	parts   map[place]struct{}
}

type place struct {
	member *member
	part   uint64
}

// fewUses are as quickly looked through.
const fewUses = 16

func newIndex(p *Pool, uses []use) *index {
	x := new(index)
	x.fill(p, uses)
	return x
}

func (x *index) fill(p *Pool, uses []use) {
	*x = index{}
	for f := range p.rings {
		x.version[f] = p.rings[f].version
		x.bits[f] = make([]uint64, (len(p.rings[f].members)+63)/64)
	}
	for _, u := range uses {
		if u.member != nil {
			x.add(u.member, u.part)
		}
	}
}

// fits reports whether the slots of the rings are still those that x has.
func (x *index) fits(p *Pool) bool {
	return x.version == [2]uint64{p.rings[ipv4].version, p.rings[ipv6].version}
}

func (x *index) add(m *member, part uint64) {
	if m.Prefix.IsValid() {
		if x.parts == nil {
			x.parts = make(map[place]struct{})
		}
		x.parts[place{m, part}] = struct{}{}
		return
	}
	for f, slot := range m.slot {
		if slot >= 0 {
			x.bits[f][slot/64] |= 1 << (slot % 64)
		}
	}
}

func (x *index) remove(m *member, part uint64) {
	delete(x.parts, place{m, part})
	for f, slot := range m.slot {
		if slot >= 0 {
			x.bits[f][slot/64] &^= 1 << (slot % 64)
		}
	}
}

func (x *index) has(m *member, part uint64) bool {
	if m.Prefix.IsValid() {
		_, ok := x.parts[place{m, part}]
		return ok
	}
	for f, slot := range m.slot {
		if slot >= 0 {
			return x.bits[f][slot/64]&(1<<(slot%64)) != 0
		}
	}
	return false
}
