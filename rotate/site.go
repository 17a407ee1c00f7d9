package rotate

import (
	"container/list"
	"strings"
	"time"
)

// site is what is remembered of a target.
type site struct {
	target  string
	element *list.Element // in the order of use

	cursors [2]cursor // by family, in the order of all sources
	others  []cursorIn
	parts   map[*member]uint64 // of prefixes, the count of the part that comes next

	// The uses of the last Spacing, in the order of their times. Who has none may be
	// used.
	uses  []use
	first uint64 // the number of uses[0]
	index *index // of uses, when they are many
	line  *line  // who waits for a source; nil when nobody does
	gone  bool   // it was forgotten; a Turn may have it still

	health map[place]*health // of the sources that failed here alone, or are told to cool
}

// use is that a source was used. One that was undone has no member.
type use struct {
	member *member
	part   uint64
	at     instant
}

// cursorIn is a cursor in the order of a view.
type cursorIn struct {
	view *view
	cursor
}

const (
	maxSites  = 100_000
	maxUses   = 4 << 20 // of all sites
	maxOthers = 8
)

// sites is the targets that are remembered. The ones that were not asked for
// longest are forgotten first.
type sites struct {
	byTarget map[string]*site
	byUse    list.List          // the one that was not asked for for longest is in front
	waiting  map[*site]struct{} // those with a line
	uses     int                // of all, about
}

// site returns the site of a target, and makes it the newest.
func (p *Pool) site(target string) *site {
	l := &p.sites
	if s := l.byTarget[target]; s != nil {
		l.byUse.MoveToBack(s.element)
		return s
	}
	l.trim(p)
	// The text may be a part of a whole head.
	s := &site{target: strings.Clone(target)}
	if l.byTarget == nil {
		l.byTarget = make(map[string]*site)
		l.waiting = make(map[*site]struct{})
	}
	l.byTarget[s.target] = s
	s.element = l.byUse.PushBack(s)
	return s
}

// trim makes room for one more.
func (l *sites) trim(p *Pool) {
	for e := l.byUse.Front(); e != nil && (len(l.byTarget) >= maxSites || l.uses >= maxUses); {
		next := e.Next()
		if s := e.Value.(*site); s.line == nil {
			l.byUse.Remove(e)
			delete(l.byTarget, s.target)
			s.gone = true
			l.uses -= len(s.uses)
			p.troubled -= len(s.health)
			p.ails.Store(p.troubled > 0)
		}
		e = next
	}
}

// cursor is whose turn it is at s. A new target begins where the turns of all are,
// so that many targets that are asked for once use all sources.
func (s *site) cursor(v *view, family int) *cursor {
	c := &s.cursors[family]
	if v.in != nil {
		c = s.other(v)
	}
	if c.version == 0 {
		v.cursor.sync(v)
		*c = cursor{version: v.version}
		c.moveTo(v, v.turn)
		v.moveTo(v, v.turn+1)
	}
	return c
}

func (s *site) other(v *view) *cursor {
	for i := range s.others {
		if s.others[i].view == v {
			return &s.others[i].cursor
		}
	}
	if len(s.others) == maxOthers {
		s.others = append(s.others[:0:0], s.others[1:]...)
	}
	s.others = append(s.others, cursorIn{view: v})
	return &s.others[len(s.others)-1].cursor
}

func (s *site) turnTo(m *member, part uint64) {
	if s.parts == nil {
		s.parts = make(map[*member]uint64)
	}
	s.parts[m] = part
}

// note notes that m is used, and returns the number of the use.
func (s *site) note(p *Pool, m *member, part uint64, at instant) uint64 {
	if n := len(s.uses); n >= maxUses/4 {
		s.expire(p, s.uses[n/4].at) // so many in so short a time: the oldest go
	}
	s.uses = append(s.uses, use{m, part, at})
	if !s.gone {
		p.sites.uses++
	}
	switch {
	case s.index != nil:
		s.index.add(m, part)
	case len(s.uses) > fewUses:
		s.index = newIndex(p, s.uses)
	}
	return s.first + uint64(len(s.uses)-1)
}

// undo undoes a note.
func (s *site) undo(number uint64) {
	if number < s.first {
		return
	}
	u := &s.uses[number-s.first]
	if s.index != nil && u.member != nil {
		s.index.remove(u.member, u.part)
	}
	u.member = nil
}

// since returns the time of a use, unless it has expired or was undone.
func (s *site) since(number uint64) (at instant, ok bool) {
	if number < s.first || s.uses[number-s.first].member == nil {
		return 0, false
	}
	return s.uses[number-s.first].at, true
}

// again moves a use to the end, as it happens only now, and returns its number.
func (s *site) again(p *Pool, number uint64, at instant) uint64 {
	if number < s.first {
		return number
	}
	u := &s.uses[number-s.first]
	if number == s.first+uint64(len(s.uses)-1) {
		u.at = at
		return number
	}
	m, part := u.member, u.part
	s.undo(number)
	return s.note(p, m, part, at)
}

// refresh makes s fit the pool as it is now: the slots of its sources may have
// changed, and time has passed.
func (s *site) refresh(p *Pool, now instant) {
	if s.index != nil && !s.index.fits(p) {
		s.index.fill(p, s.uses)
	}
	s.expire(p, now-p.config.pause())
}

// expire forgets the uses until then.
func (s *site) expire(p *Pool, until instant) {
	n := 0
	for n < len(s.uses) && (s.uses[n].member == nil || s.uses[n].at <= until) {
		if u := s.uses[n]; u.member != nil && s.index != nil {
			s.index.remove(u.member, u.part)
		}
		n++
	}
	s.uses = s.uses[n:]
	s.first += uint64(n)
	if !s.gone {
		p.sites.uses -= n
	}
	if len(s.uses) == 0 {
		s.uses, s.index = nil, nil
	}
}

// recently reports whether m, or that part of it, is among the uses.
func (s *site) recently(m *member, part uint64) bool {
	if s.index != nil {
		return s.index.has(m, part)
	}
	for i := len(s.uses) - 1; i >= 0; i-- {
		if u := &s.uses[i]; u.member == m && u.part == part {
			return true
		}
	}
	return false
}

// pause is how long a source may not be used again for a target. It is a little more
// than what was asked for: a target counts from when it hears of a connection, and
// the way there is not always equally long.
func (c *Config) pause() time.Duration {
	if c.Spacing == 0 {
		return 0
	}
	return c.Spacing + min(c.Spacing/100, 10*time.Millisecond)
}
