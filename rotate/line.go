package rotate

import (
	"net/netip"
	"slices"
	"time"
)

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
