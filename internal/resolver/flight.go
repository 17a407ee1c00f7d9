package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Bounds on what the names that strangers choose can make the process hold. A flight
// has two sockets and three goroutines.
const (
	maxFlights = 1000
	maxAnswers = 10000
)

// flight is one lookup of a name for all who want it now, and after that its answer
// for as long as it is remembered.
type flight struct {
	landed  chan struct{} // closed when addrs and err are final
	addrs   []netip.Addr
	err     error
	expires time.Time // guarded by flights.mu; zero until it has landed
}

// flights are those under way and those remembered.
//
// Not singleflight.Group, because that cannot tell beforehand whether a call would
// join a flight or start one, and only starting one takes a slot.
type flights struct {
	slots chan struct{} // one is held by each flight under way

	mu     sync.Mutex // guards byName
	byName map[string]*flight
}

func newFlights() *flights {
	return &flights{slots: make(chan struct{}, maxFlights), byName: make(map[string]*flight)}
}

// flight returns the flight of name once it has landed. It starts one if there is
// none, for which it may have to wait for a slot. The error is only that ctx, or
// Timeout, ended the wait.
func (r *Resolver) flight(ctx context.Context, name string) (*flight, error) {
	f := r.flights.find(name, r.now())
	if f == nil {
		wait, cancel := context.WithTimeout(ctx, r.conf.Timeout)
		defer cancel()
		select {
		case r.flights.slots <- struct{}{}:
			f = r.start(name)
		case <-wait.Done():
			return nil, ended(wait)
		}
	}
	select {
	case <-f.landed:
		return f, nil
	case <-ctx.Done():
		return nil, ended(ctx)
	}
}

// ended returns why the wait for a flight was over: whoever has no more time for the
// answer learns that the servers took too long.
func ended(ctx context.Context) error {
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
}

// start starts the flight of name in the slot that the caller has taken, or gives
// the slot back if another caller was first.
func (r *Resolver) start(name string) *flight {
	r.flights.mu.Lock()
	defer r.flights.mu.Unlock()

	if f := r.flights.findLocked(name, r.now()); f != nil {
		<-r.flights.slots
		return f
	}
	f := &flight{landed: make(chan struct{})}
	r.flights.byName[name] = f
	go r.fly(f, name)
	return f
}

// fly ends when the servers have answered, at Timeout at the latest. That the caller
// who started it went away does not end it: others may have joined.
func (r *Resolver) fly(f *flight, name string) {
	defer func() { <-r.flights.slots }()
	ctx, cancel := context.WithTimeout(context.Background(), r.conf.Timeout)
	defer cancel()

	var holds time.Duration
	f.addrs, holds, f.err = r.resolve(ctx, name)
	r.flights.land(f, name, r.now(), min(holds, r.conf.Cache))
}

// find returns the flight that answers for name at the time now, or nil.
func (fs *flights) find(name string, now time.Time) *flight {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.findLocked(name, now)
}

func (fs *flights) findLocked(name string, now time.Time) *flight {
	f := fs.byName[name]
	if f == nil || f.expires.IsZero() || now.Before(f.expires) {
		return f
	}
	delete(fs.byName, name)
	return nil
}

// land lets those who wait for f have its answer, and remembers it for keep.
func (fs *flights) land(f *flight, name string, now time.Time, keep time.Duration) {
	fs.mu.Lock()
	defer fs.mu.Unlock()

	close(f.landed)
	if keep <= 0 {
		delete(fs.byName, name)
		return
	}
	f.expires = now.Add(keep)
	if len(fs.byName) <= maxAnswers {
		return
	}
	// Any will do, and a map's order is random. Answers that expired and were not
	// asked for again go this way too.
	for other, g := range fs.byName {
		if g != f && !g.expires.IsZero() {
			delete(fs.byName, other)
			return
		}
	}
}
