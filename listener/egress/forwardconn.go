package egress

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"swivel/relay"
)

// forwardConn is a client's connection as net/http's server sees it.
type forwardConn struct {
	relay.Duplex
	in   *reader       // what was read already comes first
	idle time.Duration // how long the client may take none of an answer; zero: for ever
	err  firstError    // of reading or writing, but for a deadline of reading
	done chan struct{} // closed when the connection is done with

	mu sync.Mutex
	// guards
	until   time.Time // no later deadline of reading counts; zero: any does
	serving bool      // from a request to the end of its response
	refused int       // the status of an answer that net/http gave outside of that
}

func newForwardConn(s *session) *forwardConn {
	return &forwardConn{
		Duplex: s.conn,
		in:     &s.in,
		idle:   s.Limits.Idle,
		until:  s.c.Line.Start.Add(s.Head),
		done:   make(chan struct{}),
	}
}

func (c *forwardConn) Read(p []byte) (int, error) {
	if len(c.in.buf) > 0 {
		return copy(p, c.in.take(min(len(p), len(c.in.buf)))), nil
	}
	n, err := c.Duplex.Read(p)
	if !errors.Is(err, os.ErrDeadlineExceeded) { // net/http sets one to interrupt a Read
		c.err.set(err)
	}
	return n, err
}

func (c *forwardConn) Write(p []byte) (int, error) {
	if !c.mayWrite(p) {
		return 0, net.ErrClosed
	}
	var until time.Time
	if c.idle > 0 {
		until = time.Now().Add(c.idle)
	}
	c.SetWriteDeadline(until)
	n, err := c.Duplex.Write(p)
	c.err.set(err)
	return n, err
}

// mayWrite looks at what net/http has to say when there is no request: it answers
// one that it cannot read, and also a head that ended early.
func (c *forwardConn) mayWrite(p []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.serving:
	case c.err.get() != nil:
		return false
	default:
		status := bytes.TrimPrefix(p, []byte("HTTP/1.1 "))
		c.refused, _ = strconv.Atoi(string(status[:min(3, len(status))]))
	}
	return true
}

// SetReadDeadline keeps to the deadline of the first head: the server would give
// it all its time again, from when it was handed over. It takes the deadline away
// when it has read the head.
func (c *forwardConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() && !c.serving {
		c.until = t
	}
	if !c.until.IsZero() && (t.IsZero() || t.After(c.until)) {
		t = c.until
	}
	return c.Duplex.SetReadDeadline(t)
}

// begin is called when there is a request.
func (c *forwardConn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving = true
}

// finish is called when a request has been served. The server then reads what is
// left of its body, and would wait for that for ever.
func (c *forwardConn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Now().Add(lingerTime)
	c.Duplex.SetReadDeadline(c.until)
}

// state is what the server calls when the state of the connection changes.
func (c *forwardConn) state(_ net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateIdle:
		if time.Now().After(c.until) {
			c.Close() // what comes next may be the rest of the body
		}
		c.serving, c.until = false, time.Time{}
	case http.StateClosed:
		close(c.done)
	}
}

// listener returns a listener that accepts c, and fails when c is done with.
func (c *forwardConn) listener() net.Listener { return &oneConn{c: c} }

type oneConn struct {
	c     *forwardConn
	taken bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.taken {
		l.taken = true
		return l.c, nil
	}
	<-l.c.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.c.LocalAddr() }
