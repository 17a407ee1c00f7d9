package unwrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"swivel/internal/sockopt"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/listener/refusal"
	"swivel/relay"
)

// dial connects from src to dst and notes on l how that went. An src that is not
// valid is the kernel's choice.
func (d *Door) dial(ctx context.Context, l *listener.Line, src, dst netip.AddrPort) (*relay.Socket, error) {
	until := time.Now().Add(d.Dial)
	l.Address, l.Attempts = dst, 1
	if src.IsValid() {
		l.Source = src.Addr().String()
	}
	if d.Source != KeepPort {
		src = netip.AddrPortFrom(src.Addr(), 0)
	}
	c, err := d.attempt(ctx, src, dst, until)
	if src.Port() != 0 && portTaken(err) {
		l.Attempts++
		c, err = d.attempt(ctx, netip.AddrPortFrom(src.Addr(), 0), dst, until)
	}
	if err != nil && refusal.IsTimeout(err) && src.Addr().IsValid() {
		err = fmt.Errorf("%w (if it is there, its answers do not come back: swivel check)", err)
	}
	if err != nil {
		return nil, err
	}
	l.Source = c.Local().Addr().String()
	if c.Local() == c.Remote() {
		relay.Abort(c) // the kernel chose the port that it was to reach
		return nil, target.ErrLoop
	}
	return c, nil
}

func (d *Door) attempt(ctx context.Context, src, dst netip.AddrPort, until time.Time) (*relay.Socket, error) {
	fd, err := d.socket(src, dst)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Source: net.TCPAddrFromAddrPort(src), Addr: net.TCPAddrFromAddrPort(dst), Err: err}
	}
	return relay.Connect(ctx, fd, dst, until)
}

// socket makes a socket that is to connect from src to dst.
func (d *Door) socket(src, dst netip.AddrPort) (int, error) {
	family := unix.AF_INET6
	if dst.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for _, o := range d.options(src, dst) {
		if err = o(fd); err != nil {
			break
		}
	}
	if err == nil && src.Addr().IsValid() {
		err = relay.Bind(fd, src)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (d *Door) options(src, dst netip.AddrPort) []sockopt.Option {
	opts := append(make([]sockopt.Option, 0, 8), sockopt.NoDelay)
	switch {
	case !src.Addr().IsValid():
	case src.Port() == 0:
		opts = append(opts, sockopt.Transparent, sockopt.BindLater)
	default:
		opts = append(opts, sockopt.Transparent, sockopt.ReuseAddr)
	}
	if d.KeepAlive != nil && !dst.Addr().IsLoopback() {
		opts = append(opts, d.KeepAlive)
	}
	return append(opts, d.Options...)
}

// portTaken reports whether bind(2) or connect(2) failed because the port of src is
// in use, by a server or towards the same target, or is a server's alone to have.
func portTaken(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EACCES)
}
