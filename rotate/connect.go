package rotate

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"swivel/internal/sockopt"
	"swivel/relay"
)

// connect makes one attempt, which ends at a time unless that is zero. It binds to
// src, unless the kernel is to choose, with port 0: see sockopt.BindLater.
//
// Not by net.Dialer: it makes 28 allocations and starts a goroutine that only waits
// for ctx, where this makes one; and what it makes costs a tunnel more, see
// relay.Socket.
func (d *Dialer) connect(ctx context.Context, src Source, dst netip.AddrPort, until time.Time) (*relay.Socket, error) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	fd, err := d.socket(&src, dst)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Source: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src.Addr, 0)), Addr: net.TCPAddrFromAddrPort(dst), Err: err}
	}
	return relay.Connect(ctx, fd, dst, until)
}

// socket makes a socket that is to connect from src to dst.
func (d *Dialer) socket(src *Source, dst netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	if dst.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = d.set(fd, src, dst); err == nil && src.isBound() {
		err = relay.Bind(fd, netip.AddrPortFrom(src.Addr, 0))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// set sets the options of a socket.
func (d *Dialer) set(fd int, src *Source, dst netip.AddrPort) error {
	if err := sockopt.NoDelay(fd); err != nil {
		return err
	}
	if src.isBound() {
		if err := sockopt.BindLater(fd); err != nil {
			return err
		}
	}
	if src.Free {
		if err := sockopt.FreeBind(fd); err != nil {
			return err
		}
	}
	if d.KeepAlive != nil && !dst.Addr().IsLoopback() {
		if err := d.KeepAlive(fd); err != nil {
			return err
		}
	}
	for _, o := range d.Options {
		if err := o(fd); err != nil {
			return err
		}
	}
	return nil
}
