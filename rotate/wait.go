package rotate

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Busy means that every source was used for the target within the Spacing.
type Busy struct {
	After time.Duration // when one will be free for the client
}

func (b *Busy) Error() string { return "rotate: every source was used too recently for this target" }

// line is the clients that wait for a source for one target. Each has a queue of its
// own, and the queues are served in turn: a client that asks for much does not keep
// one that asks for little from its share.
type line struct {
	queues []*queue // never empty ones; one that was served goes to the end
	timer  *time.Timer
}

type queue struct {
	client  client
	waiters []*waiter
}

// client is who shares a target with others: a user, or an address; of IPv6 a /64,
// which is what one user has.
type client struct {
	user string
	addr netip.Addr
}

func (r *Request) client() client {
	if r.User != "" {
		return client{user: r.User}
	}
	return client{addr: r.network()}
}

func (r *Request) network() netip.Addr {
	if !r.Client.Is6() {
		return r.Client
	}
	p, _ := r.Client.Prefix(64)
	return p.Addr()
}

type waiter struct {
	request  *Request
	families []int
	done     chan outcome // has room for one
}

// kind is the same for all to whom the same sources are as good; 0 when it is not
// known.
func (w *waiter) kind() (families int) {
	if len(w.request.Wants) > 0 || w.request.pinned() {
		return 0
	}
	for _, f := range w.families {
		families |= 1 << f
	}
	return families
}

type outcome struct {
	turn *Turn
	err  error
}

// maxWaiting bounds how many wait, for all targets of a pool.
const maxWaiting = 10_000

// spaced reports whether a source may have to be waited for.
func (p *Pool) spaced() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.config.Spacing > 0
}

// await takes a source for r, of the first of families that has one. When all were
// used too recently it waits for one, unless that will take longer than Config.Wait.
// Its error is that of Next or ctx.
func (p *Pool) await(ctx context.Context, r *Request, families []int) (*Turn, error) {
	w := &waiter{request: r, families: families, done: make(chan outcome, 1)}
	wait, t, err := p.begin(w)
	if wait == 0 {
		return t, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case o := <-w.done:
		return o.turn, o.err
	case <-timer.C:
	case <-ctx.Done():
	}
	return p.giveUp(ctx, w)
}

// begin takes a source, or has w wait for it for as long as it returns.
func (p *Pool) begin(w *waiter) (wait time.Duration, t *Turn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := search{pool: p, request: w.request}
	t, err = s.takeAny(w.families)
	busy, ok := errors.AsType[*Busy](err)
	if !ok || busy.After > p.config.Wait || p.waiting >= maxWaiting {
		return 0, t, err
	}
	s.site.enter(p, w)
	s.site.attend(p) // who is in front may wait for something else
	return p.config.Wait, nil, nil
}

// giveUp ends the waiting of w, if no source came about meanwhile.
func (p *Pool) giveUp(ctx context.Context, w *waiter) (*Turn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case o := <-w.done:
		return o.turn, o.err
	default:
	}
	s := search{pool: p, request: w.request}
	s.prepare(w.families[0])
	s.site.leave(p, w)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, s.behind()
}

// takeAny takes a source of the first family that has one.
func (s *search) takeAny(families []int) (*Turn, error) {
	var worst error = ErrNoSource
	for _, f := range families {
		t, err := s.take(f)
		if err == nil {
			return t, nil
		}
		if b, ok := err.(*Busy); ok {
			if w, ok := worst.(*Busy); !ok || b.After < w.After {
				worst = b
			}
		}
	}
	return nil, worst
}

func (s *site) enter(p *Pool, w *waiter) {
	if s.line == nil {
		s.line = new(line)
		p.sites.waiting[s] = struct{}{}
		l := s.line
		l.timer = time.AfterFunc(time.Hour, func() { p.attend(s) })
	}
	p.waiting++
	c := w.request.client()
	q := s.line.queue(c)
	if q == nil {
		q = &queue{client: c}
		s.line.queues = append(s.line.queues, q)
	}
	q.waiters = append(q.waiters, w)
}

func (l *line) queue(c client) *queue {
	for _, q := range l.queues {
		if q.client == c {
			return q
		}
	}
	return nil
}

func (s *site) leave(p *Pool, w *waiter) {
	for i, q := range s.line.queues {
		if j := slices.Index(q.waiters, w); j >= 0 {
			q.waiters = slices.Delete(q.waiters, j, j+1)
			p.waiting--
			if len(q.waiters) == 0 {
				s.line.queues = slices.Delete(s.line.queues, i, i+1)
			}
			break
		}
	}
	s.arm(p)
}

// arm sets the timer to when the next source is free again, or ends the line.
func (s *site) arm(p *Pool) {
	if len(s.line.queues) == 0 {
		s.line.timer.Stop()
		s.line = nil
		delete(p.sites.waiting, s)
		return
	}
	at := p.now()
	if len(s.uses) > 0 {
		at = s.uses[0].at + p.config.pause()
	}
	s.line.timer.Reset(max(0, at-p.now()))
}

// attend is what the timer of a line calls.
func (p *Pool) attend(s *site) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.refresh(p, p.now())
	s.attend(p)
}

func (p *Pool) attendAll() {
	for s := range p.sites.waiting {
		s.refresh(p, p.now())
		s.attend(p)
	}
}

// attend serves those in line for whom there is a source.
func (s *site) attend(p *Pool) {
	if s.line == nil {
		return
	}
	l := s.line
	var busy [4]bool // by kind, that there was no source
	for i := 0; i < len(l.queues); {
		q := l.queues[i]
		w := q.waiters[0]
		if busy[w.kind()] {
			i++
			continue
		}
		look := search{pool: p, request: w.request, queued: true}
		t, err := look.takeAny(w.families)
		if _, ok := err.(*Busy); ok {
			busy[w.kind()] = w.kind() != 0
			i++
			continue
		}
		w.done <- outcome{t, err}
		p.waiting--
		q.waiters = q.waiters[1:]
		l.queues = slices.Delete(l.queues, i, i+1)
		if len(q.waiters) > 0 {
			l.queues = append(l.queues, q)
		}
	}
	s.arm(p)
}

// busy says when a source will be free for the client, or returns nil when none is
// held up by the spacing alone.
func (s *search) busy() *Busy {
	if s.site == nil || s.pool.config.Spacing == 0 {
		return nil
	}
	if s.queued {
		return s.anyRecent()
	}
	n := s.ahead()
	var at []instant // when each is free again, as far as that is needed
	for _, u := range s.site.uses {
		if s.holdsUp(u) {
			at = append(at, u.at+s.pool.config.pause())
		}
		if len(at) > n {
			break
		}
	}
	if len(at) == 0 {
		return nil
	}
	free := at[n%len(at)] + instant(n/len(at))*s.pool.config.pause()
	return &Busy{After: max(0, free-s.now)}
}

// behind is for who comes while others wait: they are served first.
func (s *search) behind() *Busy {
	if s.request.pinned() {
		s.pin = s.asked(s.ring.family)
	}
	if busy := s.busy(); busy != nil {
		return busy
	}
	return new(Busy)
}

var errBusy Busy

// anyRecent is busy for those who wait already, and will not look at when.
func (s *search) anyRecent() *Busy {
	for _, u := range s.site.uses {
		if s.holdsUp(u) {
			return &errBusy
		}
	}
	return nil
}

// holdsUp reports whether u is all that is in the way of using its source.
func (s *search) holdsUp(u use) bool {
	m := u.member
	if s.pin != nil && (m != s.pin.member || u.part != s.pin.part) {
		return false
	}
	return m != nil && m.slot[s.ring.family] >= 0 && s.inView(m) && (s.skip == nil || !s.skip(m.id)) &&
		(!s.ails || s.anyway || s.cools(place{m, u.part}) == 0)
}

// ahead is how many are served before a client that comes now.
func (s *search) ahead() (n int) {
	if s.site.line == nil || s.pin != nil {
		return 0 // who waits for one source has it almost alone
	}
	mine := 0
	if q := s.site.line.queue(s.request.client()); q != nil {
		mine = len(q.waiters)
	}
	for _, q := range s.site.line.queues {
		if q.client == s.request.client() {
			n += mine
		} else {
			n += min(len(q.waiters), mine+1)
		}
	}
	return n
}
