package rotate

import (
	"context"
	"errors"
	"time"
)

// Busy means that every source was used for the target within the Spacing.
type Busy struct {
	After time.Duration // when one will be free for the client
}

func (b *Busy) Error() string { return "rotate: every source was used too recently for this target" }

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
