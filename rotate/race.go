package rotate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// race is one Dial: several attempts, of which the first to connect wins. All of
// it belongs to the goroutine that called Dial; an attempt only sends its result.
type race struct {
	dialer   *Dialer
	request  Request
	todo     []netip.AddrPort
	few      [2]netip.AddrPort // room for todo
	families [2]family
	attempts int
	pending  int
	results  chan result   // nil before there is anything to race with
	alone    result        // of an attempt that had nothing to race with
	isAlone  bool          // there is one
	time     time.Duration // that there is for all of it
	until    time.Time     // when that is over
	worst    *Error        // of the failures, the one that says most; not nil once one has failed
	rank     int
}

type result struct {
	leg leg
	err error
	src Source
	dst netip.AddrPort
}

func (r *race) run(ctx context.Context) (*Upstream, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	for {
		if r.pending == 0 && !r.startNext(ctx) {
			r.families[ipv4].end()
			r.families[ipv6].end()
			return nil, r.failure()
		}
		res, ok := r.next()
		switch {
		case !ok:
			r.startNext(ctx)
		case res.err == nil:
			cancel()
			if r.pending > 0 {
				go r.discard(r.pending)
			}
			return r.won(res), nil
		case r.failed(ctx, res):
			r.startNext(ctx)
		}
		if r.late(ctx) {
			r.todo = nil
		}
	}
}

// bound settles how long r may take. When there is one address, nothing is to be
// canceled, and ctx is not bounded: until is.
func (r *race) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	r.time = r.request.Timeout
	if deadline, ok := ctx.Deadline(); ok && (r.time <= 0 || time.Until(deadline) < r.time) {
		r.time = time.Until(deadline)
	}
	if r.time > 0 {
		r.until = time.Now().Add(r.time)
	} else {
		r.time = noTimeout
	}
	if len(r.todo) == 1 {
		return ctx, func() {}
	}
	return context.WithCancel(ctx)
}

// late reports whether no more attempts are to be made.
func (r *race) late(ctx context.Context) bool {
	return ctx.Err() != nil || !r.until.IsZero() && !time.Now().Before(r.until)
}

// next returns the next result, unless another attempt is due before.
func (r *race) next() (res result, ok bool) {
	if r.isAlone {
		r.isAlone = false
		r.pending--
		return r.alone, true
	}
	var delay <-chan time.Time
	if len(r.todo) > 0 {
		delay = time.After(attemptDelay)
	}
	select {
	case res = <-r.results:
		r.pending--
		return res, true
	case <-delay:
		return result{}, false
	}
}

// discard closes what connects after the race was won; it ends when every attempt
// has, and those were canceled.
func (r *race) discard(pending int) {
	for range pending {
		if res := <-r.results; res.err == nil {
			res.leg.Close()
		}
	}
}

// startNext starts an attempt for the next address that there is a source for,
// and reports whether there was one.
func (r *race) startNext(ctx context.Context) bool {
	for len(r.todo) > 0 {
		dst := r.todo[0]
		r.todo = r.todo[1:]
		if r.start(ctx, dst) {
			return true
		}
	}
	return false
}

func (r *race) start(ctx context.Context, dst netip.AddrPort) bool {
	src, err := r.family(dst).source(r.dialer.Pool, &r.request, dst)
	if err != nil {
		r.note(result{err: err, dst: dst}, faultNoTurn)
		return false
	}
	r.attempts++
	r.pending++
	if r.pending == 1 && len(r.todo) == 0 { // nothing to race with
		r.alone, r.isAlone = r.attempt(ctx, src, dst), true
		return true
	}
	if r.results == nil {
		r.results = make(chan result)
	}
	results := r.results
	go func() { results <- r.attempt(ctx, src, dst) }() // until run or discard takes it
	return true
}

func (r *race) attempt(ctx context.Context, src Source, dst netip.AddrPort) result {
	l, err := r.open(ctx, src, dst)
	return result{l, err, src, dst}
}

// failed notes why an attempt failed and reports whether the next address is to
// be tried at once. When the source was to blame, the same address is tried again
// from the next source.
func (r *race) failed(ctx context.Context, res result) bool {
	why := classify(res.err)
	r.note(res, why)
	if r.mayLack(res, why) {
		return true
	}
	if why.pointsAtSource(res.err) {
		r.family(res.dst).turnOf(res.src.ID()).failed(r.request.target(), why == faultDown)
	}
	if why == faultResources {
		r.todo = nil
		return false
	}
	if r.late(ctx) {
		return false
	}
	if why != faultGone && why != faultDown && r.request.pinned() {
		return true
	}
	return !r.family(res.dst).blame(route{res.src.ID(), res.dst}, why) || !r.start(ctx, res.dst)
}

func (r *race) family(dst netip.AddrPort) *family { return &r.families[familyOf(dst.Addr())] }

func (r *race) won(res result) *Upstream {
	turn := r.family(res.dst).take(res.src.ID())
	turn.connected()
	turn.worked(&r.request)
	r.families[ipv4].giveBack()
	r.families[ipv6].giveBack()
	return &Upstream{
		Socket: res.leg.Socket, Stream: res.leg.stream, Early: res.leg.early, Source: res.src, Said: res.leg.said,
		Addr: res.dst, Attempts: r.attempts, Cooling: turn.Cooling, turn: turn,
	}
}

// note keeps the failure that says most: that a destination refused says more
// than a timeout, and anything more than that a source was gone.
func (r *race) note(res result, why fault) {
	rank := 4
	switch {
	case why == faultResources:
		rank = 6
	case why == faultExhausted, why == faultNoTurn && res.err != ErrNoSource:
		rank = 2
	case why == faultGone, why == faultNoTurn:
		rank = 1
	case why == faultDown:
		rank = 2
	case why == faultUnreachable, why == faultRefused:
		rank = 3
	case !isTimeout(res.err):
		rank = 5
	}
	if rank > r.rank {
		r.rank = rank
		r.worst = &Error{Source: res.src, Addr: res.dst, Err: sum(res.err, why)}
	}
}

// sum puts the package's own error in front where callers branch on it.
func sum(err error, why fault) error {
	switch why {
	case faultGone:
		return ErrNoSource
	case faultExhausted:
		return ErrExhausted
	case faultResources:
		return fmt.Errorf("%w: %w", ErrResources, err)
	default:
		return err
	}
}

func isTimeout(err error) bool {
	var nerr net.Error
	return errors.As(err, &nerr) && nerr.Timeout()
}

func (r *race) failure() error {
	r.worst.Attempts = r.attempts
	return r.worst
}
