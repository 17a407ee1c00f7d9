package relay

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// FlowSocket is a listening socket of Flows.
type FlowSocket struct {
	flows *Flows
	fd    int
	addr  netip.AddrPort

	// guarded by Flows.mu
	front   Front // nil before Use
	closing bool  // there are to be no new flows
	open    map[*flow]struct{}
}

// Drop is why a datagram was dropped.
type Drop int

// Why datagrams are dropped.
const (
	DropSender   Drop = iota // from one who may not send here
	DropHeader               // no header, or not a valid one
	DropRefused              // the flow that it would begin is not allowed
	DropFull                 // no room for another flow, and none could go for it
	DropBusy                 // too many flows begin
	DropUpstream             // could not be sent upstream
	DropAnswer               // an answer, could not be sent
)

func (d Drop) String() string {
	return [...]string{"untrusted-peer", "bad-header", "refused", "full", "busy", "upstream", "answer"}[d]
}

// ErrFull says that a flow could be opened if there were fewer.
var ErrFull = errors.New("too many flows")

// receiveBuffer bounds the datagrams that wait to be taken, in bytes of the kernel's
// own accounting: some ten thousand small ones. The usual 208 KiB are full within a
// millisecond of a flood.
const receiveBuffer = 4 << 20

// Listen takes over c, which nobody has read from, as a listening socket. Nothing is
// taken from it before Use. It closes c, also after an error.
func (f *Flows) Listen(c *net.UDPConn) (*FlowSocket, error) {
	// A duplicate, because Close takes c out of the runtime's own epoll set, which each
	// datagram would wake a thread for.
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &FlowSocket{flows: f, fd: -1, addr: boundAddr(c), open: make(map[*flow]struct{})}
	cerr := raw.Control(func(fd uintptr) {
		if err = packetInfo(int(fd)); err != nil {
			return
		}
		s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = cmp.Or(cerr, err); err != nil {
		return nil, err
	}
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.add(s.fd, 0, slot{socket: s}); err != nil {
		unix.Close(s.fd)
		return nil, err
	}
	f.sockets[s] = struct{}{}
	return s, nil
}

func boundAddr(c *net.UDPConn) netip.AddrPort {
	ap := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// packetInfo makes a socket tell where each datagram was sent to. See IP_PKTINFO in
// ip(7) and IPV6_RECVPKTINFO in ipv6(7).
func packetInfo(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_DOMAIN", err)
	}
	if domain == unix.AF_INET {
		return os.NewSyscallError("setsockopt IP_PKTINFO", unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1))
	}
	return os.NewSyscallError("setsockopt IPV6_RECVPKTINFO", unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1))
}

// Addr is the address that s is bound to.
func (s *FlowSocket) Addr() netip.AddrPort { return s.addr }

// Hold makes sure that s stays, although it may have been closed, and reports false if
// it has gone already: the last flow of a closed one has ended. again says that it had
// been closed.
func (s *FlowSocket) Hold() (here, again bool) {
	s.flows.mu.Lock()
	defer s.flows.mu.Unlock()
	again = s.closing
	s.closing = false
	return s.fd >= 0, again
}

// Use makes front decide about the datagrams that come from now on. Flows that are
// there stay, but for those whose sender may not send any more.
func (s *FlowSocket) Use(front Front) {
	f := s.flows
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.front == nil {
		f.control(unix.EPOLL_CTL_MOD, s.fd, unix.EPOLLIN)
	}
	if s.front != nil {
		s.front.Report()
	}
	s.front = front
	for fl := range s.open {
		if !front.Sender(fl.sender.addrPort().Addr()) {
			f.close(fl, Killed)
		}
	}
}

// Close lets no more flows begin. The socket is closed with the last one: it is what
// they answer from.
//
// It reports whether there could have been more until now.
func (s *FlowSocket) Close() bool {
	s.flows.mu.Lock()
	defer s.flows.mu.Unlock()
	was := !s.closing
	s.flows.retire(s)
	return was
}

func (f *Flows) retire(s *FlowSocket) {
	s.closing = true
	if s.fd >= 0 && len(s.open) == 0 {
		if s.front != nil {
			s.front.Report()
		}
		f.remove(s.fd)
		s.fd = -1
		delete(f.sockets, s)
	}
}

// drop tells the front of a datagram that is dropped.
func (s *FlowSocket) drop(why Drop, sender *rawAddr, err error) {
	s.front.Dropped(why, sender.addrPort(), err)
	s.flows.dropped = true
}
