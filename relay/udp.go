package relay

import (
	"cmp"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Flows relays datagrams: those that come to its listening sockets to an upstream,
// and the answers back to whoever sent them.
//
// A flow is the datagrams of one client through one sender, a load balancer that
// says in a header of the datagram whose it is. Each flow has an upstream socket of
// its own, and nothing else: one goroutine, Run, serves them all from one epoll set.
// It blocks on nothing but that set; what does not fit into a socket's buffer is
// dropped, as a network would.
//
// It is bounded by what Front.Open lets in. When that is full, or the process is out
// of descriptors, the flow that has been idle for longest goes: first of those that
// have been no conversation (see flow.steady).
type Flows struct {
	epoll *os.File
	set   syscall.RawConn // of epoll

	// of Run
	poll   func(fd uintptr) bool
	events [maxEvents]unix.EpollEvent
	ready  int // of events
	failed error

	mu sync.Mutex
	// guards, and Run holds it but while it waits
	idle    time.Duration
	slots   []slot // by descriptor
	sockets map[*FlowSocket]struct{}
	table   map[flowKey]*flow
	fresh   flowList // idlest last
	steady  flowList
	stopped bool

	now       time.Duration // since start
	start     time.Time
	ticked    time.Duration // when tick has looked last
	ticking   bool          // wait returns in time for the next tick
	dropped   bool          // fronts have something to report
	allowance time.Duration // for opening flows: see openingShare
	pressed   bool          // more datagrams have come than are taken at a time
	in        *inbox
	out       *outbox
}

// slot is what a descriptor is: one of the two, or neither.
type slot struct {
	socket *FlowSocket
	flow   *flow
}

// Front decides about the datagrams that come to a listening socket. Its methods are
// called by one goroutine at a time, and must not block.
type Front interface {
	// Sender reports whether a may send datagrams here at all.
	Sender(a netip.Addr) bool

	// Once reports whether only the first datagram of a flow has a header: all that
	// comes from the same sender and port is one flow then, and payload as a whole.
	Once() bool

	// Header reads the header that b begins with, and returns its length.
	Header(b []byte) (c Claim, n int, err error)

	// Open makes what a new flow needs, or refuses it. An error that is ErrFull means
	// that there may be room when another flow has ended.
	Open(o Origin) (Upstream, error)

	// Dropped is told of each datagram that is dropped, with what was wrong.
	Dropped(why Drop, sender netip.AddrPort, err error)

	// Report is called within a second after Dropped, once for many.
	Report()
}

// Claim is what a header says: who the client is and where it sent its datagram. They
// are not valid when the sender speaks for itself.
type Claim struct {
	Src, Dst netip.AddrPort
	More     []byte // for Open; may point into the datagram
}

// Origin is where a flow comes from.
type Origin struct {
	Sender netip.AddrPort
	Local  netip.AddrPort // the address of ours that it was sent to
	Claim
}

// Upstream is the far side of a flow.
type Upstream struct {
	FD     int    // a connected, non-blocking UDP socket; the flow closes it
	Prefix []byte // goes in front of each answer

	// Closed is called when the flow has ended.
	Closed func(FlowEnd)
}

// FlowEnd says how a flow went.
type FlowEnd struct {
	Reason   Reason
	Up, Down int64 // bytes of payload
	Err      error // the last that sending or receiving met; the flow went on
}

// NewFlows returns Flows without listening sockets. Run must follow.
func NewFlows() (*Flows, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := &Flows{
		epoll: os.NewFile(uintptr(fd), "epoll"),
		start: time.Now(),
		in:    newInbox(),
		out:   newOutbox(),

		allowance: maxAllowance,

		sockets: make(map[*FlowSocket]struct{}),
		table:   make(map[flowKey]*flow),
	}
	f.fresh.init()
	f.steady.init()
	if f.set, err = f.epoll.SyscallConn(); err != nil {
		f.epoll.Close()
		return nil, err
	}
	return f, nil
}

// Idle sets after how long without a datagram a flow ends.
func (f *Flows) Idle(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = d
}

// Len is how many flows there are.
func (f *Flows) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.table)
}

// Stop makes all sockets close with their last flow, at once where there is none.
// Run returns when that has been.
func (f *Flows) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	for s := range f.sockets {
		f.retire(s)
	}
	f.finish()
}

// End ends all flows.
func (f *Flows) End(why Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fl := range f.table {
		f.close(fl, why)
	}
	f.finish()
}

// finish makes Run return when it has nothing more to do.
func (f *Flows) finish() {
	if f.stopped && len(f.sockets) == 0 {
		f.epoll.Close()
	}
}

// maxEvents bounds how many sockets are served between two looks at which are ready.
const maxEvents = 128

// Run relays until Stop, and then until the last flow has ended.
func (f *Flows) Run() {
	f.poll = f.newPoll()
	for {
		n, err := f.wait()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.serve(f.events[:n])
		f.mu.Unlock()
	}
}

// wait returns how many events there are: none when it is time for tick. Its error
// says that f has finished.
func (f *Flows) wait() (int, error) {
	switch err := f.set.Read(f.poll); {
	case os.IsTimeout(err):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return f.ready, f.failed
}

// newPoll returns what wait calls: a function that is made once allocates once.
func (f *Flows) newPoll() func(fd uintptr) bool {
	return func(fd uintptr) bool {
		for {
			f.ready, f.failed = unix.EpollWait(int(fd), f.events[:], 0)
			if f.failed != unix.EINTR {
				return f.ready != 0
			}
		}
	}
}

func (f *Flows) serve(events []unix.EpollEvent) {
	now := time.Since(f.start)
	f.allowance = min(f.allowance+(now-f.now)/openingShare, maxAllowance)
	f.now = now
	for _, e := range events {
		// What an event was for may be gone, and its descriptor given out again: the
		// new one has nothing to read then.
		switch s := f.slots[e.Fd]; {
		case s.socket != nil:
			f.receive(s.socket)
		case s.flow != nil:
			f.answer(s.flow)
		}
	}
	f.flush()
	if len(events) == 0 || now-f.ticked >= tickInterval {
		f.ticked = now
		f.tick()
	}
	if !f.ticking && (f.dropped || len(f.table) > 0) {
		f.ticking = true
		f.epoll.SetReadDeadline(time.Now().Add(tickInterval))
	}
}

// tickInterval is how exact the idle limit is.
const tickInterval = time.Second

// tick ends the flows that are idle, and reports what was dropped.
func (f *Flows) tick() {
	for _, l := range []*flowList{&f.fresh, &f.steady} {
		for fl := l.last(); fl != nil && f.now-fl.active >= f.idle; fl = l.last() {
			f.close(fl, Idle)
		}
	}
	for s := range f.sockets {
		if s.front != nil {
			s.front.Report()
		}
	}
	f.dropped, f.ticking = false, false
	f.epoll.SetReadDeadline(time.Time{})
	f.finish()
}

// add puts a descriptor into the set.
func (f *Flows) add(fd int, events uint32, s slot) error {
	if err := f.control(unix.EPOLL_CTL_ADD, fd, events); err != nil {
		return err
	}
	for len(f.slots) <= fd {
		f.slots = append(f.slots, slot{})
	}
	f.slots[fd] = s
	return nil
}

func (f *Flows) control(op, fd int, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(fd)}
	var err error
	cerr := f.set.Control(func(epfd uintptr) { err = unix.EpollCtl(int(epfd), op, fd, &e) })
	return cmp.Or(cerr, os.NewSyscallError("epoll_ctl", err))
}

// remove closes a descriptor, which takes it out of the set.
func (f *Flows) remove(fd int) {
	f.slots[fd] = slot{}
	unix.Close(fd)
}
