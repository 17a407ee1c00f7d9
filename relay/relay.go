// Package relay moves bytes between two established connections, in both
// directions, until each side has said that it is done, one of them has failed,
// or a limit is reached.
//
// A [Pipe] is the relay of one tunnel. A [Conn] is a TCP connection whose first
// bytes were read to decide where it goes; a Pipe, and [io.Copy], relay those
// bytes first. Between two TCP connections the kernel moves the bytes: copy.go
// has the loop and says when it copies and when it splices.
//
// [Flows] relays datagrams; udp.go and the files beside it have nothing in common with
// the rest.
//
// What a peer sees is the truth: FIN if the other side has sent FIN and
// everything before it has been delivered, RST if the stream was cut. Urgent
// bytes are lost, unless SO_OOBINLINE makes them ordinary ones.
//
// A [Socket] is a connection that costs less than package net's; connect.go makes them.
//
// The package does not listen, choose addresses, decide, log or set socket options, but
// for SO_LINGER at a cut and what stall.go does. Keepalive and TCP_USER_TIMEOUT are
// set by whoever makes the sockets; without them a peer that vanishes is noticed
// by Limits alone.
package relay

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Duplex is one side of a tunnel: a *Conn, a *net.TCPConn, or a *tls.Conn that
// has completed its handshake. (crypto/tls accepts FIN between two records in
// place of close_notify, and so does Pipe.) Anything else is relayed too, but it
// is closed without RST when the tunnel is cut.
type Duplex interface {
	net.Conn
	CloseWrite() error
}

// Limits bound a tunnel, mostly in time. Zero means no limit. Reaching one cuts the
// tunnel: both sides see RST.
//
// The data path only counts bytes, it takes no time stamps. Idle and HalfClosed
// are therefore noticed up to a quarter late, never early.
type Limits struct {
	// Idle is how long a tunnel may live without a byte in either direction.
	Idle time.Duration

	// HalfClosed is the same once one direction has ended. It also bounds how
	// long a side that is about to see RST may take to receive what was sent to
	// it before; for that alone, zero means 5 minutes.
	HalfClosed time.Duration

	// Lifetime is how long a tunnel may live at all.
	Lifetime time.Duration

	// Age is the same, for the sake of its source: a client that wants to go on is to
	// come back, and leave by another.
	Age time.Duration

	// Bytes is how many may be moved, in both directions together, for the same
	// reason. It is noticed after a second or so, and so what a second moves comes on top.
	Bytes int64

	// UserTimeout is the TCP_USER_TIMEOUT that both sockets have. With it the
	// kernel gives up a peer that acknowledges nothing, but also one that is
	// alive and takes no more for the time being; a Pipe keeps it from that, see
	// stall.go. Zero means that the sockets have none.
	UserTimeout time.Duration
}

// Reason says why a tunnel ended. The values are logged and are metric labels.
type Reason string

const (
	ClientClosed    Reason = "client-closed"    // both sides sent FIN, the client first
	UpstreamClosed  Reason = "upstream-closed"  // both sides sent FIN, upstream first
	ClientReset     Reason = "client-reset"     // RST, or a TLS stream that is broken
	UpstreamReset   Reason = "upstream-reset"   // the same
	ClientTimeout   Reason = "client-timeout"   // keepalive or TCP_USER_TIMEOUT gave it up
	UpstreamTimeout Reason = "upstream-timeout" // the same
	Denied          Reason = "denied"           // a Screen did not let it pass
	Idle            Reason = "idle"             // Limits.Idle
	HalfClosed      Reason = "half-closed"      // Limits.HalfClosed
	Lifetime        Reason = "lifetime"         // Limits.Lifetime
	MaxAge          Reason = "max-tunnel-age"   // Limits.Age
	MaxBytes        Reason = "max-tunnel-bytes" // Limits.Bytes
	SourceGone      Reason = "source-gone"      // its source address left the host
	Drained         Reason = "drained"          // the process ends
	Killed          Reason = "killed"           // an operator asked for it
	Evicted         Reason = "evicted"          // a flow of datagrams, for another one
)

// Pipe relays between a client and an upstream.
//
// The first cause that cuts it stands: a later error or End adds nothing.
type Pipe struct {
	client, upstream side
	up, down         direction
	limits           *Limits
	watch            watch

	done func(Reason, error) // of Start

	lot *parkingLot // nil if each direction has a goroutine
	key int32       // in the lot

	open     int8 // guarded by mu; directions that have not ended
	mu       sync.Mutex
	firstFIN *side  // guarded by mu; whose EOF came first
	cause    *cause // guarded by mu; why it was cut; nil if it was not
}

// cause is why a Pipe was cut.
type cause struct {
	reason Reason
	failed *side // nil if the cut came from End
	err    error // what the failed side said
}

// NewPipe returns a Pipe between client and upstream, which it owns from now on:
// Start, Run and End close them.
func NewPipe(client, upstream Duplex, l Limits) *Pipe {
	p := &Pipe{limits: shared(l), open: 2}
	p.client = side{Duplex: client, sideReasons: &clientReasons}
	p.upstream = side{Duplex: upstream, sideReasons: &upstreamReasons}
	p.up.pipe, p.up.src, p.up.dst = p, &p.client, &p.upstream
	p.down.pipe, p.down.src, p.down.dst = p, &p.upstream, &p.client
	p.watch.pipe = p
	if l.UserTimeout > 0 {
		p.up.stream.watch, p.down.stream.watch = &p.watch, &p.watch
	}
	return p
}

// lastLimits are those of the last Pipe.
var lastLimits atomic.Pointer[Limits]

// shared returns l for all Pipes with the same, as nearly all are.
func shared(l Limits) *Limits {
	if last := lastLimits.Load(); last != nil && *last == l {
		return last
	}
	own := new(Limits)
	*own = l
	lastLimits.Store(own)
	return own
}

// Start relays until both directions have ended, closes both sides, and then calls
// done. It is called once. The error is nil unless a side failed; then it is what
// that side said.
//
// Between two TCP connections a direction has a goroutine only while bytes flow that
// are more than a message: see park.go. Others have one each, of which one is the
// caller's; Start then returns when that direction has ended. It may return before
// done or after it.
//
// EOF of one side is passed on as a half-close, so that a client that has sent
// its request can still read the reply. When a side fails, what it had sent
// before is delivered to the other side, which sees RST only then.
func (p *Pipe) Start(done func(Reason, error)) {
	p.done = done
	p.watch.start()
	if p.park() {
		p.up.step()
		p.down.step()
		return
	}
	go p.up.run() // ends with its direction
	p.down.run()
}

// Run is Start, and returns what done is given.
func (p *Pipe) Run() (reason Reason, err error) {
	ended := make(chan struct{})
	p.Start(func(r Reason, e error) {
		reason, err = r, e
		close(ended)
	})
	<-ended
	return reason, err
}

// End cuts the tunnel: both sides see RST, and its reason is r. It may be called
// at any time, more than once, and by several goroutines. A tunnel that has been
// cut already keeps its reason; one that has ended is left alone.
func (p *Pipe) End(r Reason) {
	p.mu.Lock()
	if p.cause == nil {
		p.cause = &cause{reason: r}
	}
	inUse := p.lot != nil && p.open > 0
	p.mu.Unlock()
	if inUse { // the descriptors of the sides: finish closes them
		p.up.interrupt()
		p.down.interrupt()
		return
	}
	Abort(p.client.Duplex)
	Abort(p.upstream.Duplex)
}

// Up returns how many bytes upstream's socket has taken so far.
func (p *Pipe) Up() int64 { return p.up.stream.moved.Load() }

// Down returns how many bytes the client's socket has taken so far.
func (p *Pipe) Down() int64 { return p.down.stream.moved.Load() }
