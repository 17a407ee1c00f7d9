package rotate

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"swivel/internal/sockopt"
)

// connect makes one attempt. It binds to src with port 0: see sockopt.BindLater.
func (d *Dialer) connect(ctx context.Context, src Source, dst netip.AddrPort) (*net.TCPConn, error) {
	nd := net.Dialer{
		KeepAlive: -1, // net would set its own values, in four calls
		Control: func(_, _ string, c syscall.RawConn) error {
			return sockopt.Apply(c, d.options(src, dst)...)
		},
	}
	return nd.DialTCP(ctx, "tcp", netip.AddrPortFrom(src.Addr, 0), dst)
}

func (d *Dialer) options(src Source, dst netip.AddrPort) []sockopt.Option {
	opts := append(make([]sockopt.Option, 0, 8), sockopt.BindLater)
	if src.Free {
		opts = append(opts, sockopt.FreeBind)
	}
	if d.KeepAlive != nil && !dst.Addr().IsLoopback() {
		opts = append(opts, d.KeepAlive)
	}
	return append(opts, d.Options...)
}
