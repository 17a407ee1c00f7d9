package unwrap

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"swivel/internal/sockopt"
)

// Ports is which pairs of a client's own address and port and a target are in use by
// flows. The kernel does not keep UDP sockets from having the same pair, and would
// give the answers to one of them. It belongs to the goroutine of relay.Flows.
type Ports struct{ taken map[pair]struct{} }

type pair struct{ src, dst netip.AddrPort }

func (p *Ports) take(src, dst netip.AddrPort) bool {
	if p.taken == nil {
		p.taken = make(map[pair]struct{})
	}
	if _, ok := p.taken[pair{src, dst}]; ok {
		return false
	}
	p.taken[pair{src, dst}] = struct{}{}
	return true
}

func (p *Ports) giveBack(src, dst netip.AddrPort) { delete(p.taken, pair{src, dst}) }

// datagramSocket is the upstream socket of a flow.
type datagramSocket struct {
	fd       int
	local    netip.AddrPort
	kept     bool // the client's own port, which Ports knows
	attempts int
}

// socket makes an upstream socket from src to dst. An src that is not valid is the
// kernel's choice.
func (d *Datagrams) socket(src, dst netip.AddrPort) (s datagramSocket, err error) {
	if d.Door.Source == KeepPort && src.IsValid() && src.Port() != 0 && d.Ports.take(src, dst) {
		s.attempts++
		// Other flows of the client, to other targets, may have its port, too.
		s.fd, err = d.connected(src, dst, sockopt.ReuseAddr)
		if err == nil {
			s.local, s.kept = src, true
			return s, nil
		}
		d.Ports.giveBack(src, dst)
		if !portTaken(err) {
			return s, err
		}
	}
	s.attempts++
	if src.IsValid() {
		src = netip.AddrPortFrom(src.Addr(), 0)
	}
	if s.fd, err = d.connected(src, dst); err != nil {
		return s, err
	}
	s.local, err = localOf(s.fd)
	if err != nil {
		unix.Close(s.fd)
	}
	return s, err
}

func (d *Datagrams) connected(src, dst netip.AddrPort, opts ...sockopt.Option) (int, error) {
	domain := unix.AF_INET6
	if dst.Addr().Is4() {
		domain = unix.AF_INET
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := d.prepare(fd, src, dst, opts); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (d *Datagrams) prepare(fd int, src, dst netip.AddrPort, opts []sockopt.Option) error {
	for _, list := range [][]sockopt.Option{d.Options, opts} {
		for _, o := range list {
			if err := o(fd); err != nil {
				return err
			}
		}
	}
	if src.IsValid() {
		if err := sockopt.Transparent(fd); err != nil {
			return err
		}
		if err := unix.Bind(fd, sockaddr(src)); err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	return os.NewSyscallError("connect", unix.Connect(fd, sockaddr(dst)))
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

func localOf(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
}
