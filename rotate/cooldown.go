package rotate

import (
	"net/netip"
	"time"
)

// Cooldown is what becomes of a source that fails where others succeed: it is not
// used for a while, which doubles each time. The zero Cooldown is none.
//
// A failure is a timeout, or that there was no way, or that a proxy is down. The first
// two count against a source when another one connects to the same target
// after that. They make it cool for that target; when there are several targets, for
// all. A connection that is made ends that.
type Cooldown struct {
	After  int           // failures in a row; zero means that no source cools
	For    time.Duration // the first time
	Most   time.Duration
	Keep   int  // percent of the sources that do not cool, whatever they do
	Refuse bool // when all cool: *Cooling, and not the one whose time is over first
}

// Cooling means that every source that could be used is cooling.
type Cooling struct {
	After time.Duration // when the first one will have cooled
}

func (c *Cooling) Error() string { return "rotate: every source is cooling" }

// health is how a source has done lately, at one target or at all.
type health struct {
	until    instant // it cools until then
	told     bool    // by Cool, and not by its failures
	step     time.Duration
	failures int     // in a row, that count against it
	open     int     // since then, that would if another source connected
	last     instant // of them
	target   string  // of those at all targets, where the last one was
	several  bool    // they were at several
}

// maxTroubled bounds for how many sources and targets there is a health.
const maxTroubled = 100_000

// trouble returns the health of a place in m, and makes one when there is none. It
// is nil when there are too many.
func (p *Pool) trouble(m map[place]*health, at place) *health {
	h := m[at]
	if h == nil && p.troubled >= maxTroubled {
		p.sweep()
	}
	if h == nil && p.troubled < maxTroubled {
		h = new(health)
		m[at] = h
		p.troubled++
		p.ails.Store(true)
	}
	return h
}

func (p *Pool) forget(m map[place]*health, at place) {
	if m[at] != nil {
		delete(m, at)
		p.troubled--
		p.ails.Store(p.troubled > 0)
	}
}

// sweep forgets what has not been a matter for long, once a minute at most.
func (p *Pool) sweep() {
	now := p.now()
	if now-p.swept < time.Minute {
		return
	}
	p.swept = now
	clean := func(m map[place]*health) {
		for at, h := range m {
			if h.until < now && now-h.last > remembered {
				p.forget(m, at)
			}
		}
	}
	clean(p.health)
	for e := p.sites.byUse.Front(); e != nil; e = e.Next() {
		clean(e.Value.(*site).health)
	}
}

// cools reports for how long the source at a place is still cooling, for the target
// of s or for all.
func (s *search) cools(at place) time.Duration {
	var until instant
	if h := s.pool.health[at]; h != nil {
		until = h.until
	}
	if s.site != nil {
		if h := s.site.health[at]; h != nil {
			until = max(until, h.until)
		}
	}
	return max(0, until-s.now)
}

// leastBad is the source that will have cooled first.
func (s *search) leastBad() (best *member) {
	var least time.Duration
	var part uint64
	s.anyway = true
	for _, m := range s.view.members {
		if !s.may(m) {
			continue
		}
		if d := s.cools(s.place(m)); best == nil || d < least {
			best, least, part = m, d, s.part
		}
	}
	s.part = part
	return best
}

// place is where m was found to be usable by may.
func (s *search) place(m *member) place {
	if m.Prefix.IsValid() {
		return place{m, m.span.part(s.part)}
	}
	return place{m, 0}
}

// failed says that no connection to the target came about by way of t. own says that
// this was certainly because of the source.
func (t *Turn) failed(target string, own bool) {
	p := t.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.config.Cooldown.After == 0 || t.member == nil {
		return
	}
	now, at := p.now(), place{t.member, t.part}
	if own {
		if h := p.trouble(p.health, at); h != nil {
			h.failures, h.last = h.failures+1, now
			p.judge(h, at, nil, now)
		}
		return
	}
	site := p.site(target)
	if site.health == nil {
		site.health = make(map[place]*health)
	}
	if h := p.trouble(site.health, at); h != nil {
		h.open++
		h.last = now
	}
}

// worked says that a connection for r was made by way of t: what has failed towards its
// target before can now be held against the sources, and t's has healed.
func (t *Turn) worked(r *Request) {
	p := t.pool
	if !p.ails.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now, at := p.now(), place{t.member, t.part}
	if h := p.health[at]; h != nil && !h.told {
		p.forget(p.health, at)
	}
	site := p.sites.byTarget[r.target()]
	if site == nil {
		return
	}
	if h := site.health[at]; h != nil && !h.told {
		p.forget(site.health, at)
	}
	for at, h := range site.health {
		switch {
		case h.open == 0:
		case now-h.last > remembered:
			p.forget(site.health, at)
		default:
			p.count(h, at, site, now)
		}
	}
}

// count makes the failures that were open until now count.
func (p *Pool) count(h *health, at place, site *site, now instant) {
	h.failures += h.open
	if all := p.trouble(p.health, at); all != nil {
		all.failures, all.last = all.failures+h.open, now
		all.several = all.several || all.target != "" && all.target != site.target
		all.target = site.target
		if all.several {
			p.judge(all, at, nil, now)
		}
	}
	h.open = 0
	p.judge(h, at, site, now)
}

// judge makes a source cool, at site or at all, when it has failed often enough. One
// that has cooled before and fails again does so at once.
func (p *Pool) judge(h *health, at place, site *site, now instant) {
	c := &p.config.Cooldown
	if h.failures < c.After && h.step == 0 || !p.spares(at, site, now) {
		return
	}
	h.step = min(max(c.For, 2*h.step), c.Most)
	h.until, h.told, h.failures = now+h.step, false, 0
}

// spares reports whether there are sources enough for the one at a place to cool.
func (p *Pool) spares(at place, site *site, now instant) bool {
	f := at.member.families()[0]
	if at.member.slot[f] < 0 {
		return true // it has left, and so nobody has less
	}
	var all uint64
	for _, o := range p.rings[f].members {
		all += o.parts()
	}
	cools := func(h *health) bool { return h != nil && h.until > now }
	cooling := uint64(0)
	for o, h := range p.health {
		if cools(h) && o != at && o.member.slot[f] >= 0 {
			cooling++
		}
	}
	if site != nil {
		for o, h := range site.health {
			if cools(h) && o != at && o.member.slot[f] >= 0 && !cools(p.health[o]) {
				cooling++
			}
		}
	}
	keep := (all*uint64(p.config.Cooldown.Keep) + 99) / 100
	return cooling+1+keep <= all
}

// parts is as how many sources m counts.
func (m *member) parts() uint64 {
	if m.Prefix.IsValid() {
		return min(m.span.parts(), 1<<32)
	}
	return 1
}

// Cool has a source not be used for d, at a target or, when that is "", at all. When
// d is zero it is used again. It does so also when no more than Cooldown.Keep would
// be left, and connections that are made end nothing: who calls knows more.
// ErrNoMatch means that there is no such source.
func (p *Pool) Cool(source, target string, d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.find(source)
	if !ok {
		return ErrNoMatch
	}
	healths := p.health
	if target != "" {
		site := p.site(target)
		if site.health == nil {
			site.health = make(map[place]*health)
		}
		healths = site.health
	}
	if d <= 0 {
		p.forget(healths, at)
		p.attendAll()
		return nil
	}
	if h := p.trouble(healths, at); h != nil {
		h.until, h.told = p.now()+d, true
	}
	return nil
}

// find finds the source that is written like this: an address, or as its ID or String
// is.
func (p *Pool) find(source string) (place, bool) {
	if a, err := netip.ParseAddr(source); err == nil {
		a = a.Unmap()
		pin := p.rings[familyOf(a)].pinOf(a)
		if pin == nil {
			return place{}, false
		}
		return place{pin.member, pin.part}, true
	}
	for f := range p.rings {
		for _, m := range p.rings[f].members {
			if !m.Prefix.IsValid() && (m.id.String() == source || m.Source.String() == source) {
				return place{m, 0}, true
			}
		}
	}
	return place{}, false
}
