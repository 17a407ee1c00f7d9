package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// side is one end of a tunnel.
type side struct {
	Duplex
	*sideReasons

	fd int32 // of a TCP connection whose Pipe has a lot; 0 of others

	// finSent is set before our FIN to this side leaves.
	finSent atomic.Bool
}

// sideReasons are those that are laid to a side.
type sideReasons struct{ closed, reset, timeout Reason }

var (
	clientReasons   = sideReasons{ClientClosed, ClientReset, ClientTimeout}
	upstreamReasons = sideReasons{UpstreamClosed, UpstreamReset, UpstreamTimeout}
)

// reason names the way in which err ended the side.
func (s *side) reason(err error) Reason {
	if _, ok := errors.AsType[*Denial](err); ok {
		return Denied
	}
	// A kernel that gives a peer up reports the last ICMP error, if there was
	// one, in place of ETIMEDOUT (tcp_write_err).
	for _, gone := range []error{unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH} {
		if errors.Is(err, gone) {
			return s.timeout
		}
	}
	return s.reset
}

// closeWrite sends FIN, or close_notify.
func (s *side) closeWrite() error {
	s.finSent.Store(true)
	if tcpOf(s.Duplex) == nil {
		// crypto/tls gives its close_notify five seconds. That a slow reader
		// has filled the send buffer must not cost it the end of its stream.
		waitWritable(s.Duplex)
	}
	err := s.CloseWrite()
	if errors.Is(err, unix.ENOTCONN) {
		// The side has been reset, or has closed and was told so by RST. All of
		// this direction was written. The other one, if it still runs, finds
		// the reset by reading: shutdown(2) does not take it away.
		return nil
	}
	return err
}

// falseEOF reports whether an EOF read from s was in truth a reset.
//
// A socket reports its reset once, to the first operation that asks. If that is
// a write of the other direction, read(2) returns the bytes still queued and
// then 0, as after FIN, perhaps before the other direction has come to record
// its error. (crypto/tls lets 0 pass for the end, if it comes between records.)
// What tells the two apart is the state: a socket to which we have not sent FIN
// is CLOSE_WAIT after FIN, and CLOSE after a reset.
func (s *side) falseEOF() bool {
	if s.finSent.Load() {
		return false
	}
	// In this order: a CLOSE that our own FIN led to is seen after finSent.
	return s.wasReset() && !s.finSent.Load()
}

func (s *side) wasReset() bool {
	if s.fd == 0 {
		return WasReset(s.Duplex)
	}
	// The first byte of struct tcp_info is the state.
	var first [4]byte
	n, err := unix.GetsockoptInt(int(s.fd), unix.SOL_TCP, unix.TCP_INFO)
	binary.NativeEndian.PutUint32(first[:], uint32(n))
	return err == nil && first[0] == tcpClose
}

// direction is what flows from one side to the other.
type direction struct {
	pipe     *Pipe
	src, dst *side
	stream   stream
	stall    stall // guarded by the watch's mu

	waiting // in a lot
}

// run relays the direction on a goroutine of its own, which waits.
func (d *direction) run() {
	failed, err := d.copy()
	d.end(failed, err)
}

// copy relays until src's EOF, when it returns a nil error. Otherwise it returns
// the side that failed. If that is src, everything it sent has been written to
// dst.
func (d *direction) copy() (failed *side, err error) {
	defer func() {
		if r := recover(); r != nil { // costs this tunnel, not the process
			failed, err = d.src, fmt.Errorf("panic: %v: %s", r, debug.Stack())
		}
	}()
	dstFailed, err := transfer(d.dst.Duplex, d.src.Duplex, &d.stream)
	switch {
	case dstFailed:
		return d.dst, err
	case err == nil:
		return d.src, d.atEOF()
	default:
		return d.src, err
	}
}

// atEOF returns what an EOF of src is: nil, or the reset that it was in truth.
func (d *direction) atEOF() error {
	if d.src.falseEOF() {
		return opError("read", d.src, unix.EPIPE)
	}
	return nil
}

// end tells the other side how the direction ended, and when it is the last one, ends
// the tunnel.
func (d *direction) end(failed *side, err error) {
	p := d.pipe
	if err == nil && p.passEOF(d) {
		failed, err = d.dst, d.dst.closeWrite()
	}
	if err != nil {
		p.fail(failed, err)
	}
	if err != nil && failed == d.src {
		// The other direction has nowhere to write to. It may be waiting for
		// bytes, or for room in a TLS stream that failed for reasons of its own.
		d.other().interrupt()
	}
	// If it was dst that failed, the other direction goes on: what dst had sent
	// is still in its receive queue, even after RST.
	p.watch.directionEnded()
	if !p.last() {
		return
	}
	if p.settles() {
		go p.finish() // ends within Limits.HalfClosed
	} else {
		p.finish()
	}
}

// interrupt makes d end, whatever it waits for.
func (d *direction) interrupt() {
	if d.pipe.lot == nil {
		past := time.Unix(1, 0)
		d.src.SetReadDeadline(past)
		d.dst.SetWriteDeadline(past)
		return
	}
	d.stop.Store(true)
	// One that runs, or does before this has found what it waits for, sees stop.
	if d.wake(waitsForSrc) || d.wake(waitsForDst) {
		go d.runOn() // ends with the direction
	}
}

func (d *direction) other() *direction {
	if d == &d.pipe.up {
		return &d.pipe.down
	}
	return &d.pipe.up
}

// last notes that a direction has ended and reports whether it was the last.
func (p *Pipe) last() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	return p.open == 0
}

// passEOF records that d's source has ended and reports whether the other side
// is to be told. Once the tunnel is cut it may not: it is to see RST. When the other
// direction has ended before, finish closes both sides at once, and FIN comes of that.
func (p *Pipe) passEOF(d *direction) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.firstFIN == nil {
		p.firstFIN = d.src
	}
	last := p.open == 1 && tcpOf(d.dst.Duplex) != nil
	return p.cause == nil && !last
}

// fail records that s failed with err, unless the tunnel has been cut before.
func (p *Pipe) fail(s *side, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// EPIPE only says that the other direction was told why.
	vague := p.cause != nil && p.cause.failed == s && errors.Is(p.cause.err, unix.EPIPE)
	if p.cause == nil || vague {
		p.cause = &cause{s.reason(err), s, err}
	}
}

// settles reports whether finish has to wait for a peer. No direction runs any more.
func (p *Pipe) settles() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause != nil && p.cause.failed != nil
}

// finish closes both sides, in the way that they are to see it, and tells of the end.
func (p *Pipe) finish() {
	reason, err := p.close()
	p.watch.stop()
	p.done(reason, err)
}

func (p *Pipe) close() (Reason, error) {
	p.mu.Lock()
	cause, firstFIN := p.cause, p.firstFIN
	p.mu.Unlock()
	if p.lot != nil {
		p.lot.vacate(p.key)
	}
	if cause == nil {
		p.client.Close()
		p.upstream.Close()
		return firstFIN.closed, nil
	}
	switch cause.failed {
	case &p.client:
		settle(p.upstream.Duplex, p.limits.HalfClosed)
	case &p.upstream:
		settle(p.client.Duplex, p.limits.HalfClosed)
	}
	Abort(p.client.Duplex)
	Abort(p.upstream.Duplex)
	return cause.reason, cause.err
}
