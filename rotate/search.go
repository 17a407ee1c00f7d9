package rotate

import (
	"math/bits"
	"math/rand/v2"
)

// search is one decision. It belongs to whoever holds the pool's mu.
type search struct {
	pool    *Pool
	request *Request
	skip    func(ID) bool // may be nil
	queued  bool          // the client has waited for its turn
	anyway  bool          // sources that are cooling may be used
	rank    int           // the highest Standby of sources that may be used

	ring    *ring
	view    *view
	site    *site    // nil when nothing depends on the target
	own     bool     // the turns are those of site
	ails    bool     // there are sources that may be cooling
	session *session // nil when there is none
	pin     *pin     // the source that it must be; nil: any
	now     instant
	part    uint64 // of the prefix that may was asked for last, the count of the part to use
}

// take takes a source of family f.
func (s *search) take(f int) (*Turn, error) {
	s.prepare(f)
	switch {
	case len(s.ring.members) == 0:
		return nil, ErrNoSource
	case len(s.view.members) == 0:
		return nil, ErrNoMatch
	}
	if s.site != nil && s.site.line != nil && !s.queued {
		return nil, s.behind()
	}
	if s.request.pinned() {
		if t, done, err := s.pinned(f); done {
			return t, err
		}
	}
	for ; s.rank <= s.pool.standby; s.rank++ {
		if m, c := s.choose(); m != nil {
			return s.hold(m, c), nil
		}
		if busy := s.busy(); busy != nil {
			return nil, busy
		}
	}
	if s.ails {
		return s.takeCooling()
	}
	return nil, ErrNoSource
}

// takeCooling is for when all that could be used are cooling, if there are any.
func (s *search) takeCooling() (*Turn, error) {
	m := s.leastBad()
	switch {
	case m == nil:
		if busy := s.busy(); busy != nil {
			return nil, busy
		}
		return nil, ErrNoSource
	case s.pool.config.Cooldown.Refuse:
		return nil, &Cooling{After: s.cools(s.place(m))}
	}
	t := s.hold(m, nil)
	t.Cooling = true
	return t, nil
}

// prepare looks up what a decision for family f depends on.
func (s *search) prepare(f int) {
	s.ring = &s.pool.rings[f]
	s.view = s.ring.view(s.request.Wants)
	s.ails = s.pool.troubled > 0
	s.own = s.pool.config.Spacing > 0 || s.ring.strategy == PerTarget
	if s.own || s.ails || s.request.Session.ID != "" {
		s.now = s.pool.now()
	}
	s.session = s.pool.pinned.of(s.request, s.now)
	switch {
	case s.own:
		s.site = s.pool.site(s.request.target())
		s.site.refresh(s.pool, s.now)
	case s.ails:
		s.site = s.pool.sites.byTarget[s.request.target()]
	}
}

// choose finds the source to use, and the cursor that it came from, if any.
func (s *search) choose() (*member, *cursor) {
	switch s.ring.strategy {
	case Random:
		return s.random(), nil
	case LeastUsed:
		return s.leastUsed(), nil
	case Hash:
		return s.byHash(), nil
	}
	c := &s.view.cursor
	if s.own {
		c = s.site.cursor(s.view, s.ring.family)
	}
	return s.inTurn(c), c
}

// hold takes m for a connection.
func (s *search) hold(m *member, c *cursor) *Turn {
	s.pool.uses++
	m.uses++
	m.last = s.pool.uses
	m.open++
	s.pool.settle(m)
	t := &Turn{Source: m.Source, pool: s.pool, member: m, view: s.view, cursor: c}
	t.age, t.bytes = s.pool.config.Age, s.pool.config.Bytes
	var part uint64
	switch {
	case s.pin != nil:
		part = s.pin.part
		t.Addr, t.Free = s.pin.addr, m.Free || m.Prefix.IsValid()
	case m.Prefix.IsValid():
		part = m.span.part(s.part)
		t.Addr, t.Free = m.span.addr(part, s.host()), true
		s.turnTo(m, s.part+1)
	}
	if s.session != nil {
		s.session.pins[s.ring.family] = pin{m, part, t.Addr}
	}
	t.part = part
	if s.pool.config.Spacing > 0 {
		t.site = s.site
		t.use = s.site.note(s.pool, m, part, s.now)
	}
	return t
}

// may reports whether m may be used. Of a prefix it looks for a part that may.
func (s *search) may(m *member) bool {
	if m.Standby > s.rank {
		return false
	}
	if m.Prefix.IsValid() {
		return s.mayPart(m)
	}
	return (s.skip == nil || !s.skip(m.id)) && s.free(m, 0)
}

// free reports whether nothing keeps a source from being used that will pass: it was
// used too recently, or is cooling.
func (s *search) free(m *member, part uint64) bool {
	if s.site != nil && s.site.recently(m, part) {
		return false
	}
	return !s.ails || s.anyway || s.cools(place{m, part}) == 0
}

// maxParts is how many parts of a prefix are looked at for one that may be used.
const maxParts = 256

func (s *search) mayPart(m *member) bool {
	s.part = s.nextPart(m)
	for range min(maxParts, m.span.parts()) {
		part := m.span.part(s.part)
		if m.span.usable(part) &&
			(s.skip == nil || !s.skip(m.partID(part))) &&
			s.free(m, part) {
			return true
		}
		s.part++
	}
	return false
}

func (m *member) partID(part uint64) ID {
	src := m.Source
	src.Addr = m.span.addr(part, [2]uint64{})
	return src.ID()
}

// nextPart is the count of the part of m whose turn it is.
func (s *search) nextPart(m *member) uint64 {
	switch {
	case s.ring.strategy == Hash:
		return s.pool.hashOf(s.request)
	case s.ring.strategy == Random:
		return rand.Uint64()
	case s.own:
		if n, ok := s.site.parts[m]; ok {
			return n
		}
	}
	return m.part
}

func (s *search) turnTo(m *member, part uint64) {
	switch {
	case s.ring.strategy == Hash:
	case s.own:
		m.part++ // where another target begins
		s.site.turnTo(m, part)
	default:
		m.part = part
	}
}

// host chooses an address of a part.
func (s *search) host() [2]uint64 {
	if s.ring.strategy == Hash {
		h := s.pool.hashOf(s.request)
		return [2]uint64{mix(h + 1), mix(h + 2)}
	}
	return randomHost()
}

// probes is how many sources are looked at one by one before the search goes over
// to the bits of all.
const probes = 32

// inTurn finds the next one that may be used, and moves c behind it.
func (s *search) inTurn(c *cursor) *member {
	c.sync(s.view)
	if m := c.takeReturned(s); m != nil {
		return m
	}
	order := s.view.order
	for n := range min(probes, len(order)) {
		i := c.turn + n
		if i >= len(order) {
			i -= len(order)
		}
		if m := order[i]; s.may(m) {
			c.moveTo(s.view, i+1)
			return m
		}
	}
	if len(order) <= probes {
		return nil
	}
	m := s.scan(order[(c.turn+probes)%len(order)].slot[s.ring.family])
	if m != nil {
		c.moveTo(s.view, s.view.index(m)+1)
	}
	return m
}

// scan finds the first one that may be used, of the slots from start on and then
// those before it. It looks at 64 slots at a time.
func (s *search) scan(start int) *member {
	words := (len(s.ring.members) + 63) / 64
	first := start / 64
	for n := range words + 1 {
		w := (first + n) % words
		free := s.candidates(w)
		switch n {
		case 0:
			free &= ^uint64(0) << (start % 64)
		case words:
			free &= 1<<(start%64) - 1
		}
		for ; free != 0; free &= free - 1 {
			if m := s.ring.members[w*64+bits.TrailingZeros64(free)]; s.may(m) {
				return m
			}
		}
	}
	return nil
}

// candidates is the slots of word w that are worth a closer look.
func (s *search) candidates(w int) uint64 {
	free := ^uint64(0)
	if last := len(s.ring.members) - w*64; last < 64 {
		free = 1<<last - 1
	}
	if s.view.in != nil {
		free &= s.view.in[w]
	}
	if s.site != nil && s.site.index != nil {
		free &^= s.site.index.bits[s.ring.family][w]
	}
	return free
}

func (s *search) random() *member {
	order := s.view.order
	for range 8 {
		if m := order[rand.IntN(len(order))]; s.may(m) {
			return m
		}
	}
	return s.scan(order[rand.IntN(len(order))].slot[s.ring.family])
}
