// Package logqueue stands between a logger and a place that may be slow, full or
// gone, so that writing a line never waits for it.
//
// A Queue holds lines in memory up to a bound and writes them in the background,
// as many as there are in one write(2). Lines that find it full are counted and
// dropped, and a line says so when writing works again. It does not rotate files.
package logqueue

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Queue is an io.Writer whose Write never blocks and never fails.
type Queue struct {
	w       io.Writer
	size    int
	dropped atomic.Uint64
	wake    chan struct{} // holds one token when pending is not empty
	done    chan struct{} // closed when Run has returned

	mu sync.Mutex
	// guards
	pending []byte
	spare   []byte // the buffer written last, to be used again
	closed  bool
}

// New returns a Queue of at most size bytes in front of w. Run does the writing.
func New(w io.Writer, size int) *Queue {
	return &Queue{w: w, size: size, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Write takes one line, or drops it and counts it when there is no room.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	if q.closed || len(q.pending)+len(line) > q.size {
		q.mu.Unlock()
		q.dropped.Add(1)
		return len(line), nil
	}
	q.pending = append(q.pending, line...)
	q.mu.Unlock()
	q.signal()
	return len(line), nil
}

// Dropped is how many lines were dropped, for want of room or because writing
// them failed.
func (q *Queue) Dropped() uint64 { return q.dropped.Load() }

// gather is how long Run waits for lines that can be written together with the
// first.
const gather = 2 * time.Millisecond

// Run writes what Write takes, until Close. An error of the writer drops what was
// being written and is otherwise ignored: there is nowhere to report it.
func (q *Queue) Run() {
	defer close(q.done)
	var told uint64
	for range q.wake {
		time.Sleep(gather)
		lines, closed := q.take()
		if len(lines) > 0 && q.write(lines) {
			if n := q.Dropped(); n > told {
				fmt.Fprintf(q.w, `{"level":"warn","dropped":%d,"message":"log lines dropped"}`+"\n", n-told)
				told = n
			}
		}
		if closed {
			return
		}
	}
}

// Close ends Run when it has written what is queued, and waits for that, but not
// longer than wait: a reader that is stuck must not hold up the end.
func (q *Queue) Close(wait time.Duration) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
	select {
	case <-q.done:
	case <-time.After(wait):
	}
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) take() (lines []byte, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines = q.pending
	q.pending, q.spare = q.spare[:0], lines
	return lines, q.closed
}

func (q *Queue) write(lines []byte) bool {
	n, err := q.w.Write(lines)
	if err == nil {
		return true
	}
	for _, b := range lines[max(0, min(n, len(lines))):] {
		if b == '\n' {
			q.dropped.Add(1)
		}
	}
	return false
}
