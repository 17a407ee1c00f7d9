package relay

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// parkAfter is how long a direction may be idle before it is parked.
const parkAfter = 5 * time.Second

// parking is a direction's way of waiting without a goroutine.
//
// A goroutine that waits costs its stack, some 4 KB for each direction. When a
// direction between two TCP connections has moved nothing for a while, the watch
// makes its read time out; its goroutine then gives the socket to the parking lot
// and ends. The lot starts another one when there is something to read.
//
// Not at once, with each wait, because giving the socket away and taking it back
// costs two system calls and a goroutine.
type parking struct {
	never atomic.Bool // cannot be parked, or has ended

	at   bool // parked; guarded by pipe.mu
	idle bool // the read was made to time out for it to be parked; guarded by pipe.mu
	fd   int  // of src, once the lot knows it; guarded by the lot's mu
}

// looksAnyway reports whether the watch of a tunnel that is not parked looks at it
// often enough for stall.go, without being told of bytes that move.
func (p *Pipe) looksAnyway() bool {
	return !p.up.never.Load() && p.parkAfter <= p.limits.UserTimeout/looksPerTimeout
}

// canPark reports whether d has a goroutine that it might do without.
func (d *direction) canPark() bool {
	if d.never.Load() {
		return false
	}
	d.pipe.mu.Lock()
	defer d.pipe.mu.Unlock()
	return !d.at
}

// kick makes d's goroutine end its wait, so that run parks it. A direction that is
// not waiting parks as well, and is back at once.
func (d *direction) kick() {
	if d.never.Load() {
		return
	}
	d.pipe.mu.Lock()
	defer d.pipe.mu.Unlock()
	if !d.at {
		d.idle = true
		d.src.SetReadDeadline(time.Unix(1, 0))
	}
}

// park gives d, whose goroutine met err, to the lot. again says that err comes from
// kick; if d could not be parked then, it is to go on reading.
func (d *direction) park(err error) (again, parked bool) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, false
	}
	d.pipe.mu.Lock()
	defer d.pipe.mu.Unlock()
	if !d.idle {
		return false, false
	}
	d.idle = false
	if d.pipe.reason != "" {
		return true, false // cut: the deadline stays, and ends d when it reads
	}
	d.src.SetReadDeadline(time.Time{})
	d.at = lot.add(d)
	d.never.Store(!d.at)
	return true, d.at
}

// unpark gives d a goroutine again, if it is parked.
func (d *direction) unpark() {
	d.pipe.mu.Lock()
	was := d.at
	d.at = false
	d.pipe.mu.Unlock()
	if was {
		d.pipe.watch.look()
		go d.run()
	}
}
