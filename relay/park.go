package relay

import (
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// waiting is how a direction between two TCP connections waits: without a goroutine,
// whose stack would be some KB for as long as the tunnel lives.
//
// What is in the way of going on is known by state. Whoever changes it to running
// owns the direction's stream until it waits again or has ended.
type waiting struct {
	state atomic.Int32

	// ending: src has sent FIN, urgent bytes or RST. A read that does not fill the
	// buffer does not mean then that there is nothing more to be read.
	ending atomic.Bool

	// stop: it is to end.
	stop atomic.Bool

	// The rest belongs to the owner.

	outEvents bool   // the lot tells when dst has room
	dstFailed bool   // when it is over with an error, which stream has
	goOn      func() // runOn, once it was needed: a go statement with arguments allocates
}

const (
	running     int32 = iota
	runningMore       // there was an event while it ran
	waitsForSrc       // to have something to read
	waitsForDst       // to have room
	ended
)

// wake makes the caller the owner of a direction that waits for what. One that runs
// will try once more before it waits.
func (d *direction) wake(what int32) bool {
	for {
		switch s := d.state.Load(); {
		case s == what:
			if d.state.CompareAndSwap(s, running) {
				return true
			}
		case s == running:
			if d.state.CompareAndSwap(s, runningMore) {
				return false
			}
		default:
			return false
		}
	}
}

// wait gives d up until there is an event. It reports false when there was one, or
// when the tunnel was cut: d then runs on.
func (d *direction) wait(what int32) bool {
	burst := d.stream.burst
	d.stream.dry, d.stream.burst = false, 0
	if what == waitsForDst && !d.outEvents {
		d.outEvents = true
		p := d.pipe
		p.lot.watch(int(d.dst.fd), p.key, d.dst == &p.upstream, outEvents)
	}
	if d.state.CompareAndSwap(running, what) {
		return true
	}
	d.state.Store(running)
	d.stream.burst = burst
	return false
}

// ready is told of the events of a side.
func (p *Pipe) ready(upstream bool, events uint32) {
	in, out := &p.up, &p.down
	if upstream {
		in, out = out, in
	}
	const gone = unix.EPOLLHUP | unix.EPOLLERR
	if events&(gone|unix.EPOLLRDHUP|unix.EPOLLPRI) != 0 {
		in.ending.Store(true)
	}
	if events&^unix.EPOLLOUT != 0 && in.wake(waitsForSrc) {
		in.step()
	}
	if events&(gone|unix.EPOLLOUT) != 0 && out.wake(waitsForDst) {
		out.step()
	}
}

// step goes on with d on the goroutine of the lot, which others wait for: with no
// more than a few buffers.
func (d *direction) step() {
	switch d.advance(true) {
	case over:
		d.hasEnded()
	case busy:
		if d.goOn == nil {
			d.goOn = d.runOn
		}
		go d.goOn() // until it has to wait, or has ended
	}
}

func (d *direction) runOn() {
	if d.advance(false) == over {
		d.hasEnded()
	}
}

func (d *direction) hasEnded() {
	failed := d.src
	if d.dstFailed {
		failed = d.dst
	}
	d.end(failed, d.stream.err)
}

// outcome is why advance returned.
type outcome int

const (
	parked outcome = iota // d belongs to somebody else already
	busy                  // there is more than advance was to do
	over                  // hasEnded is to be called
)

// maxRounds is how many reads and writes are few. Of short messages there may be
// always one more.
const maxRounds = 16

// advance moves bytes until d has to wait or has ended.
func (d *direction) advance(brief bool) (o outcome) {
	s := &d.stream
	defer func() {
		if r := recover(); r != nil { // costs this tunnel, not the process
			s.err = fmt.Errorf("panic: %v: %s", r, debug.Stack())
			o = over
		}
		if o == over {
			d.state.Store(ended)
			s.release()
		}
	}()
	for rounds := 0; ; rounds++ {
		switch {
		case d.stop.Load():
			s.err = net.ErrClosed
			return over
		case s.err != nil: // what src had to replay may not pass
			s.err = opError("read", d.src, s.err)
			return over
		case s.pending():
			if !s.flush(uintptr(d.dst.fd)) && d.wait(waitsForDst) {
				return parked
			}
			if s.err != nil {
				d.dstFailed, s.err = true, opError("write", d.dst, s.err)
				return over
			}
		case s.dry && !d.ending.Load():
			// If not, it was perhaps stop that came in between: round again.
			if d.wait(waitsForSrc) {
				return parked
			}
		case brief && (s.full >= fullReads || rounds >= maxRounds):
			return busy
		default:
			s.prepare()
			if !s.fill(uintptr(d.src.fd)) && d.wait(waitsForSrc) {
				return parked
			}
			switch {
			case s.err != nil:
				s.err = opError("read", d.src, s.err)
				return over
			case s.eof:
				s.err = d.atEOF()
				return over
			}
		}
	}
}

// park gives the sockets of p to a lot, and reports whether it could. The directions
// are the caller's then, who calls step.
func (p *Pipe) park() bool {
	client, upstream := tcpOf(p.client.Duplex), tcpOf(p.upstream.Duplex)
	if client == nil || upstream == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := lotOf(upstream)
	if l == nil || p.cause != nil { // cut, and closed
		return false
	}
	for _, d := range []*direction{&p.up, &p.down} {
		// There is an event when there is something to read.
		d.stream.dry = true
	}
	p.client.fd, p.upstream.fd = descriptor(client), descriptor(upstream)
	p.lot, p.key = l, l.occupy(p)
	if !p.watched() {
		l.vacate(p.key)
		p.lot, p.client.fd, p.upstream.fd = nil, 0, 0
		return false
	}
	if c, ok := p.client.Duplex.(*Conn); ok {
		p.up.stream.begin(c)
	}
	if c, ok := p.upstream.Duplex.(*Conn); ok {
		p.down.stream.begin(c)
	}
	return true
}

// watched puts both sockets into the set, or none.
func (p *Pipe) watched() bool {
	if p.lot.watch(int(p.client.fd), p.key, false, inEvents) != nil {
		return false
	}
	if p.lot.watch(int(p.upstream.fd), p.key, true, inEvents) != nil {
		p.lot.forget(int(p.client.fd))
		return false
	}
	return true
}

// lotOf returns the lot that c is in already, or any.
func lotOf(c TCP) *parkingLot {
	if s, ok := c.(*Socket); ok && s.lot != nil {
		return s.lot
	}
	return nextLot()
}

// descriptor returns c's, or -1. It is c's for as long as c is not closed.
func descriptor(c TCP) (fd int32) {
	if s, ok := c.(*Socket); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.fd
	}
	g := grabs.Get().(*grab)
	defer grabs.Put(g)
	g.fd = -1
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(g.take)
	}
	return g.fd
}

// grab takes a descriptor out of a RawConn without an allocation.
type grab struct {
	fd   int32
	take func(fd uintptr)
}

var grabs = sync.Pool{New: func() any {
	g := new(grab)
	g.take = func(fd uintptr) { g.fd = int32(fd) }
	return g
}}
