package relay

import (
	"sync"
	"time"
)

// watch enforces a Pipe's limits. It costs the data path nothing: its timer
// compares the byte counts with those it saw before.
type watch struct {
	pipe *Pipe

	mu      sync.Mutex
	timer   *time.Timer // guarded by mu; nil until there is something to wait for
	running bool        // guarded by mu
	open    int         // guarded by mu; directions that have not ended
	started time.Time   // guarded by mu
	seen    int64       // guarded by mu; bytes moved when last looked
	quiet   time.Time   // guarded by mu; since when no byte has moved, at least
}

func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.running, w.open, w.started, w.quiet = true, 2, now, now
	w.arm(now)
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = false
	if w.timer != nil {
		w.timer.Stop()
	}
}

// directionEnded puts the limits of a half-closed tunnel into force.
func (w *watch) directionEnded() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.open--
	w.quiet = now
	w.arm(now)
}

// look sets the timer anew, because a direction begins to move bytes.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.arm(time.Now())
}

// check is what the timer calls.
func (w *watch) check() {
	w.mu.Lock()
	now := time.Now()
	for _, d := range []*direction{&w.pipe.up, &w.pipe.down} {
		if w.running && d.watched.Load() {
			d.spare(now, w.pipe.limits.UserTimeout)
		}
	}
	if moved := w.pipe.Up() + w.pipe.Down(); moved != w.seen {
		w.seen, w.quiet = moved, now
	}
	reached := w.arm(now)
	w.mu.Unlock()
	if reached != "" {
		w.pipe.End(reached)
	}
}

// arm returns the limit that has been reached. If there is none, it sets the
// timer for the next look. The caller holds mu.
func (w *watch) arm(now time.Time) Reason {
	if !w.running {
		return ""
	}
	reached, wait := w.next(now)
	switch {
	case reached != "" || wait == 0:
	case w.timer == nil:
		w.timer = time.AfterFunc(wait, w.check)
	default:
		w.timer.Reset(wait)
	}
	return reached
}

// next returns the limit that has been reached, or how long to wait before
// looking again; zero if there is nothing to wait for. The caller holds mu.
func (w *watch) next(now time.Time) (reached Reason, wait time.Duration) {
	l := w.pipe.limits
	for _, limit := range []struct {
		reason  Reason
		applies bool
		length  time.Duration
		since   time.Time
		step    time.Duration
	}{
		{Lifetime, true, l.Lifetime, w.started, l.Lifetime},
		// With both directions ended nothing moves, and finish has its own limit.
		{HalfClosed, w.open == 1, l.HalfClosed, w.quiet, l.HalfClosed / 4},
		{Idle, w.open > 0, l.Idle, w.quiet, l.Idle / 4},
	} {
		if !limit.applies || limit.length <= 0 {
			continue
		}
		rest := limit.length - now.Sub(limit.since)
		if rest <= 0 {
			return limit.reason, 0
		}
		rest = min(rest, max(limit.step, time.Millisecond))
		if wait == 0 || rest < wait {
			wait = rest
		}
	}
	if step := l.UserTimeout / looksPerTimeout; w.pipe.up.watched.Load() || w.pipe.down.watched.Load() {
		if wait == 0 || step < wait {
			wait = max(step, time.Millisecond)
		}
	}
	return "", wait
}
