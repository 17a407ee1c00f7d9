package unwrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"swivel/internal/sockopt"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/relay"
)

// dial connects from src to dst and notes on l how that went. An src that is not
// valid is the kernel's choice.
func (d *Door) dial(ctx context.Context, l *listener.Line, src, dst netip.AddrPort) (*net.TCPConn, error) {
	l.Address, l.Attempts = dst, 1
	if src.IsValid() {
		l.Source = src.Addr().String()
	}
	if d.Source != KeepPort {
		src = netip.AddrPortFrom(src.Addr(), 0)
	}
	c, err := d.attempt(ctx, src, dst)
	if src.Port() != 0 && portTaken(err) {
		l.Attempts++
		c, err = d.attempt(ctx, netip.AddrPortFrom(src.Addr(), 0), dst)
	}
	if err != nil && isTimeout(err) && src.Addr().IsValid() {
		err = fmt.Errorf("%w (if it is there, its answers do not come back: swivel check)", err)
	}
	if err != nil {
		return nil, err
	}
	if !src.IsValid() {
		l.Source = c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String()
	}
	if c.LocalAddr().String() == c.RemoteAddr().String() {
		relay.Abort(c) // the kernel chose the port that it was to reach
		return nil, target.ErrLoop
	}
	return c, nil
}

func (d *Door) attempt(ctx context.Context, src, dst netip.AddrPort) (*net.TCPConn, error) {
	nd := net.Dialer{
		KeepAlive: -1, // net would set its own values, in four calls
		Control: func(_, _ string, c syscall.RawConn) error {
			return sockopt.Apply(c, d.options(src, dst)...)
		},
	}
	return nd.DialTCP(ctx, "tcp", src, dst)
}

func (d *Door) options(src, dst netip.AddrPort) []sockopt.Option {
	opts := make([]sockopt.Option, 0, 8)
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
// in use: by a server, or towards the same target.
func portTaken(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EACCES)
}
