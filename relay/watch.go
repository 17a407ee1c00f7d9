package relay

import (
	"cmp"
	"sync"
	"time"
)

// watch enforces a Pipe's limits. It costs the data path nothing: now and then it
// compares the byte counts with those it saw before.
type watch struct {
	pipe *Pipe

	mu      sync.Mutex
	running bool     // guarded by mu
	open    int8     // guarded by mu; directions that have not ended
	started duration // guarded by mu; when
	quiet   duration // guarded by mu; since when no byte has moved, at least
	seen    int64    // guarded by mu; bytes moved when last looked
	entry   entry    // of the agenda
}

// duration is since the process began.
type duration = time.Duration

var began = time.Now()

func sinceBegin() duration { return time.Since(began) }

// sinceBeginOf returns t as such, and zero only for the zero Time.
func sinceBeginOf(t time.Time) duration {
	if t.IsZero() {
		return 0
	}
	return cmp.Or(t.Sub(began), -1)
}

func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := sinceBegin()
	w.running, w.open, w.started, w.quiet = true, 2, now, now
	if w.pipe.limits.UserTimeout > 0 {
		// Nearly every tunnel begins with some bytes.
		w.pipe.up.stream.watched.Store(true)
		w.pipe.down.stream.watched.Store(true)
	}
	w.arm(now)
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = false
	looks.remove(w)
}

// directionEnded puts the limits of a half-closed tunnel into force.
func (w *watch) directionEnded() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := sinceBegin()
	w.open--
	w.quiet = now
	if w.open > 0 && w.pipe.limits.HalfClosed > 0 {
		w.arm(now)
	}
}

// look comes by soon, because a direction begins to move bytes.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.arm(sinceBegin())
}

// check is what the agenda calls.
func (w *watch) check() {
	w.mu.Lock()
	now := sinceBegin()
	for _, d := range []*direction{&w.pipe.up, &w.pipe.down} {
		if w.running && d.stream.watched.Load() {
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

// arm returns the limit that has been reached. If there is none, it settles when to
// look next. The caller holds mu.
func (w *watch) arm(now duration) Reason {
	if !w.running {
		return ""
	}
	reached, wait := w.next(now)
	if reached == "" && wait > 0 {
		looks.set(w, now+wait)
	}
	return reached
}

// How soon the bytes are counted again, of a tunnel that is moving some and of one
// that was not when it was last looked at.
const (
	bytesBusy = time.Second
	bytesIdle = 5 * time.Second
)

// next returns the limit that has been reached, or how long to wait before
// looking again; zero if there is nothing to wait for. The caller holds mu.
func (w *watch) next(now duration) (reached Reason, wait time.Duration) {
	l := w.pipe.limits
	if l.Bytes > 0 && w.open > 0 {
		if w.seen >= l.Bytes {
			return MaxBytes, 0
		}
		wait = bytesIdle
		if w.quiet == now {
			wait = bytesBusy
		}
	}
	for _, limit := range [...]struct {
		reason  Reason
		applies bool
		length  time.Duration
		since   duration
		step    time.Duration
	}{
		{Lifetime, true, l.Lifetime, w.started, l.Lifetime},
		{MaxAge, true, l.Age, w.started, l.Age},
		// With both directions ended nothing moves, and finish has its own limit.
		{HalfClosed, w.open == 1, l.HalfClosed, w.quiet, l.HalfClosed / 4},
		{Idle, w.open > 0, l.Idle, w.quiet, l.Idle / 4},
	} {
		if !limit.applies || limit.length <= 0 {
			continue
		}
		rest := limit.length - (now - limit.since)
		if rest <= 0 {
			return limit.reason, 0
		}
		rest = min(rest, max(limit.step, time.Millisecond))
		if wait == 0 || rest < wait {
			wait = rest
		}
	}
	if step := l.UserTimeout / looksPerTimeout; w.pipe.up.stream.watched.Load() || w.pipe.down.stream.watched.Load() {
		if wait == 0 || step < wait {
			wait = max(step, time.Millisecond)
		}
	}
	return "", wait
}
