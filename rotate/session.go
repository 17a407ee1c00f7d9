package rotate

import (
	"container/list"
	"errors"
	"net/netip"
	"strings"
	"time"
)

// ErrSessionGone means that the source of a session has gone, and that it is to have
// no other.
var ErrSessionGone = errors.New("rotate: the source of the session has gone")

// Session keeps the requests of a user that have the same ID to one source of each
// family. It begins with the first request.
type Session struct {
	ID     string
	Time   time.Duration // how long it lasts; zero means 10 minutes
	Idle   time.Duration // it ends when it was not used for so long; zero means no such limit
	Refuse bool          // when the source has gone: ErrSessionGone, and not another source
}

const sessionTime = 10 * time.Minute

// session is one that has begun.
type session struct {
	key
	element     *list.Element // in the order of use
	began, used instant
	pins        [2]pin // by family
}

type key struct{ user, id string }

// pin is the source that a session keeps to.
type pin struct {
	member *member // nil: none was used yet
	part   uint64
	addr   netip.Addr
}

// maxSessions bounds how many there are. The ones that were not used for longest go
// first.
const maxSessions = 100_000

// sessions are those of a pool.
type sessions struct {
	byKey map[key]*session
	byUse list.List // the one that was not used for longest is in front
}

// of returns the session that r belongs to, which may have just begun; nil when it
// belongs to none.
func (l *sessions) of(r *Request, now instant) *session {
	if r.Session.ID == "" {
		return nil
	}
	k := key{r.User, r.Session.ID}
	s := l.byKey[k]
	if s != nil && s.over(&r.Session, now) {
		l.end(s)
		s = nil
	}
	if s == nil {
		s = l.begin(k, now)
	}
	s.used = now
	l.byUse.MoveToBack(s.element)
	return s
}

func (l *sessions) begin(k key, now instant) *session {
	if len(l.byKey) >= maxSessions {
		l.end(l.byUse.Front().Value.(*session))
	}
	if l.byKey == nil {
		l.byKey = make(map[key]*session)
	}
	// The texts may be parts of a whole head.
	s := &session{key: key{strings.Clone(k.user), strings.Clone(k.id)}, began: now}
	s.element = l.byUse.PushBack(s)
	l.byKey[s.key] = s
	return s
}

func (l *sessions) end(s *session) {
	l.byUse.Remove(s.element)
	delete(l.byKey, s.key)
}

// Release ends a user's session, and reports whether there was one. The next request
// of that name begins another.
func (p *Pool) Release(user, id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := key{user, id}
	s := p.pinned.byKey[k]
	if s == nil {
		return false
	}
	p.pinned.end(s)
	return true
}

// over reports whether s has ended, by its time or because it was idle.
func (s *session) over(c *Session, now instant) bool {
	life := c.Time
	if life == 0 {
		life = sessionTime
	}
	return now-s.began >= life || c.Idle > 0 && now-s.used >= c.Idle
}

// pinned takes the source that a request must have, or reports false when it may
// have any.
func (s *search) pinned(f int) (t *Turn, done bool, err error) {
	s.pin = s.asked(f)
	if s.pin == nil {
		if s.request.Source.IsValid() {
			return nil, true, ErrNoMatch
		}
		return nil, false, nil
	}
	m := s.pin.member
	cools := time.Duration(0)
	if s.ails {
		cools = s.cools(place{m, s.pin.part})
	}
	named := s.request.Source.IsValid()
	switch {
	case !s.usable(m) && named:
		return nil, true, ErrNoSource
	case s.request.Session.Refuse && !s.usable(m):
		return nil, true, ErrSessionGone
	case s.request.Session.Refuse && cools > 0 && !named:
		return nil, true, &Cooling{After: cools}
	case !s.usable(m), cools > 0 && !named:
		s.pin = nil
		return nil, false, nil
	case s.site != nil && s.site.recently(m, s.pin.part):
		return nil, true, s.busy()
	default:
		t = s.hold(m, nil)
		t.Cooling = cools > 0
		return t, true, nil
	}
}

// asked is the source that the request names, or else that its session has; nil when
// there is none.
func (s *search) asked(f int) *pin {
	if a := s.request.Source; a.IsValid() {
		return s.ring.pinOf(a)
	}
	if s.session != nil && s.session.pins[f].member != nil {
		return &s.session.pins[f]
	}
	return nil
}

// usable reports whether m may be used at all, were it not for when it was used.
func (s *search) usable(m *member) bool {
	if m.slot[s.ring.family] < 0 || !s.inView(m) {
		return false
	}
	id := m.id
	if m.Prefix.IsValid() {
		id = m.partID(s.pin.part)
	}
	return s.skip == nil || !s.skip(id)
}

// pinOf finds the source that has an address, alone or in its prefix.
func (r *ring) pinOf(a netip.Addr) *pin {
	for _, m := range r.members {
		switch {
		case !m.Prefix.IsValid():
			if m.Addr == a {
				return &pin{m, 0, a}
			}
		case m.Prefix.Contains(a):
			return &pin{m, m.span.partOf(a), a}
		}
	}
	return nil
}
