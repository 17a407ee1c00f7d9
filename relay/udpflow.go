package relay

import (
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// flow is the datagrams of one client through one sender.
type flow struct {
	flows  *Flows
	socket *FlowSocket
	key    flowKey
	fd     int // -1 when it has ended
	closed func(FlowEnd)
	prefix []byte // of answers

	sender rawAddr       // the latest one
	local  pktinfo       // answers leave from the address that it sent to
	active time.Duration // when a datagram went either way
	end    FlowEnd

	// A flow is a conversation once its client has sent something after an answer:
	// whoever claims addresses at random sends, and may even be answered, but does not
	// go on. This is what conntrack calls assured.
	answered, steady bool

	newer, older *flow // in a flowList
	first, last  int   // of what the inbox has for it; first is -1 when that is nothing
}

// flowKey is what tells flows apart. All of it is in one piece of memory without
// gaps, which hashes fast.
type flowKey struct{ sender, local, src, dst endpoint }

// endpoint is an address, IPv4 as mapped, and a port.
type endpoint struct {
	addr [16]byte
	port uint16
}

func endpointOf(ap netip.AddrPort) endpoint {
	if !ap.IsValid() {
		return endpoint{}
	}
	return endpoint{ap.Addr().As16(), ap.Port()}
}

const (
	// While datagrams come faster than they are relayed, opening flows may take this
	// part of the time of Run, if there are conversations to protect: opening one costs
	// as much as relaying ten datagrams, and those of the conversations would be lost in
	// a full socket buffer.
	openingShare = 4
	maxAllowance = 100 * time.Millisecond // what may be saved up, for those who all come at once
	maxOpening   = time.Millisecond       // what one counts at most: others may have had the processor meanwhile
)

var (
	errSender  = errors.New("who sends it may not")
	errBusy    = errors.New("too many new flows at once")
	errClosing = errors.New("no new flows here any more")
)

// receive relays what has come to s.
func (f *Flows) receive(s *FlowSocket) {
	n, _ := f.in.receive(s.fd)
	f.pressed = n == batchSize
	for i := range n {
		if fl := f.route(s, &f.in.msgs[i]); fl != nil {
			f.in.queue(fl, i)
		}
	}
	for _, fl := range f.in.flows {
		if h := f.in.take(fl); fl.fd >= 0 { // it may have had to go for another one
			fl.send(h)
		}
	}
	f.in.flows = f.in.flows[:0]
}

// route finds the flow that m belongs to, or opens it, and takes the header off. It
// returns nil if m is dropped.
func (f *Flows) route(s *FlowSocket, m *message) *flow {
	sender := m.name.addrPort()
	if !s.front.Sender(sender.Addr()) {
		s.drop(DropSender, &m.name, errSender)
		return nil
	}
	local := netip.AddrPortFrom(m.local.addr(), s.addr.Port())
	key := flowKey{sender: endpointOf(sender), local: endpointOf(local)}
	once := s.front.Once()
	fl := f.table[key]
	if !once || fl == nil {
		c, n, err := s.front.Header(m.payload)
		if err != nil {
			s.drop(DropHeader, &m.name, err)
			return nil
		}
		m.payload = m.payload[n:]
		if !once && c.Src.IsValid() {
			// The sender may use any port, and another one each time.
			key.sender.port = 0
			key.src, key.dst = endpointOf(c.Src), endpointOf(c.Dst)
			fl = f.table[key]
		}
		if fl == nil {
			fl = f.begin(s, m, key, Origin{Sender: sender, Local: local, Claim: c})
		}
		if fl == nil {
			return nil
		}
	}
	fl.sender = m.name
	if fl.answered && !fl.steady {
		fl.unlink()
		fl.steady = true
		f.steady.push(fl)
	}
	f.touch(fl)
	return fl
}

// send sends h upstream. What does not fit into the socket's buffer is dropped.
func (fl *flow) send(h []mmsghdr) {
	for again := false; len(h) > 0; {
		n, err := sendmmsg(fl.fd, h)
		for i := range n {
			fl.end.Up += int64(h[i].len)
		}
		h = h[n:]
		switch {
		case err == nil:
			again = false
			continue
		case err == unix.EAGAIN || err == unix.ENOBUFS:
			for range h {
				fl.socket.drop(DropUpstream, &fl.sender, err)
			}
			return
		case !again: // the error may be of an earlier datagram, reported once: ICMP
			fl.end.Err = os.NewSyscallError("sendmmsg", err)
			again = true
			continue
		}
		fl.socket.drop(DropUpstream, &fl.sender, fl.end.Err)
		h, again = h[1:], false
	}
}

// answer takes what has come from upstream for fl.
func (f *Flows) answer(fl *flow) {
	if f.out.n == batchSize || f.out.socket != fl.socket {
		f.flush()
		f.out.socket = fl.socket
	}
	before := f.out.n
	err := f.out.receive(fl)
	switch {
	case err == nil:
	case err != unix.EAGAIN: // of what was sent: ICMP
		fl.end.Err = os.NewSyscallError("recvmmsg", err)
	}
	if f.out.n > before {
		fl.answered = true
		f.touch(fl)
	}
}

// flush sends the answers.
func (f *Flows) flush() {
	o := f.out
	for i := 0; i < o.n && o.socket.fd >= 0; {
		n, err := sendmmsg(o.socket.fd, o.out[i:o.n])
		for range n {
			fl := o.flows[i]
			fl.end.Down += int64(o.in[i].len)
			i++
		}
		if err != nil {
			o.flows[i].unanswered(err)
			i++
		}
	}
	o.n = 0
}

func (fl *flow) unanswered(err error) {
	fl.end.Err = os.NewSyscallError("sendmmsg", err)
	fl.socket.drop(DropAnswer, &fl.sender, fl.end.Err)
}

// begin opens the flow of a datagram that belongs to none.
func (f *Flows) begin(s *FlowSocket, m *message, key flowKey, o Origin) *flow {
	if s.closing {
		s.drop(DropRefused, &m.name, errClosing)
		return nil
	}
	bounded := f.pressed && f.steady.last() != nil
	if bounded && f.allowance <= 0 {
		s.drop(DropBusy, &m.name, errBusy)
		return nil
	}
	began := time.Now()
	fl, err := f.open(s, m, key, o)
	if bounded {
		f.allowance -= min(time.Since(began), maxOpening)
	}
	switch {
	case errors.Is(err, ErrFull):
		s.drop(DropFull, &m.name, err)
		return nil
	case err != nil:
		s.drop(DropRefused, &m.name, err)
		return nil
	}
	return fl
}

func (f *Flows) open(s *FlowSocket, m *message, key flowKey, o Origin) (*flow, error) {
	up, err := s.front.Open(o)
	if errors.Is(err, ErrFull) && f.evict() {
		up, err = s.front.Open(o)
	}
	if err != nil {
		return nil, err
	}
	fl := &flow{flows: f, socket: s, key: key, fd: up.FD, closed: up.Closed, prefix: up.Prefix, local: m.local.answer(), sender: m.name, first: -1}
	if err := f.add(fl.fd, unix.EPOLLIN, slot{flow: fl}); err != nil {
		unix.Close(fl.fd)
		fl.closed(FlowEnd{Reason: Killed, Err: err})
		return nil, err
	}
	f.table[key] = fl
	s.open[fl] = struct{}{}
	f.fresh.push(fl)
	return fl, nil
}
