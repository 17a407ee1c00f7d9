// Package sockopt sets the Linux socket options that swivel needs: one option,
// one function, one reference.
//
// An Option is applied to a descriptor before bind, connect or listen; Control
// makes of several what net.Dialer and net.ListenConfig take. The package opens
// and closes nothing.
package sockopt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Option sets one thing on a socket. Its error names the option.
type Option func(fd int) error

// Control returns a function for net.Dialer.Control or net.ListenConfig.Control
// that applies opts in order and stops at the first error.
func Control(opts ...Option) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error { return Apply(c, opts...) }
}

// Apply sets opts, in order, on a socket that is already open, and stops at the
// first error. Set on a listening socket they are inherited by the connections
// that it accepts from then on.
func Apply(c syscall.RawConn, opts ...Option) error {
	var oerr error
	err := c.Control(func(fd uintptr) {
		for _, o := range opts {
			if oerr = o(int(fd)); oerr != nil {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return oerr
}

// BindLater makes the kernel choose the source port in connect(2) rather than in
// bind(2). With a source address and port 0, bind must find a port that is free
// for every destination, and runs out at some 28,000 connections per address;
// connect only needs the four-tuple to be free. See IP_BIND_ADDRESS_NO_PORT in
// ip(7); it serves IPv6 sockets as well.
func BindLater(fd int) error {
	return set(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT", 1)
}

// NoDelay sends small messages at once. See TCP_NODELAY in tcp(7). Package net sets it
// on connections of its own.
func NoDelay(fd int) error { return set(fd, unix.SOL_TCP, unix.TCP_NODELAY, "TCP_NODELAY", 1) }

// FreeBind lets bind(2) take an address that no interface has: one of a prefix
// that is routed to this host. See IP_FREEBIND in ip(7); it serves IPv6 sockets
// as well, and needs no privilege.
func FreeBind(fd int) error {
	return set(fd, unix.SOL_IP, unix.IP_FREEBIND, "IP_FREEBIND", 1)
}

// ReuseAddr lets bind(2) take an address and port that another socket has, as long as
// neither listens; connect(2) then sees to it that the two go to different places. See
// SO_REUSEADDR in socket(7).
func ReuseAddr(fd int) error {
	return set(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, "SO_REUSEADDR", 1)
}

// Transparent lets bind(2) take any address, also one that belongs to another host,
// and a listening socket accept what was sent to one. What comes back to such an
// address reaches this host only if a route says so. See IP_TRANSPARENT in ip(7); it
// serves IPv6 sockets as well. It needs CAP_NET_ADMIN or CAP_NET_RAW.
func Transparent(fd int) error {
	err := set(fd, unix.SOL_IP, unix.IP_TRANSPARENT, "IP_TRANSPARENT", 1)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (needs CAP_NET_ADMIN)", err)
	}
	return err
}

// Mark sets the mark of the packets that the socket sends, for rules that choose
// a route by it. See SO_MARK in socket(7). It needs CAP_NET_ADMIN.
func Mark(mark int) Option {
	return func(fd int) error {
		err := set(fd, unix.SOL_SOCKET, unix.SO_MARK, "SO_MARK", mark)
		if err != nil {
			return fmt.Errorf("%w (needs CAP_NET_ADMIN)", err)
		}
		return nil
	}
}

// UserTimeout ends the connection with ETIMEDOUT when data that was sent stays
// unacknowledged for d, rounded to milliseconds. Also when the peer keeps its
// window closed for that long. See TCP_USER_TIMEOUT in tcp(7).
func UserTimeout(d time.Duration) Option {
	return func(fd int) error {
		return set(fd, unix.SOL_TCP, unix.TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT", int(d.Milliseconds()))
	}
}

// KeepAlive makes the kernel probe a silent peer after idle, then every interval,
// both rounded up to seconds. After count probes without an answer the connection
// ends with ETIMEDOUT; UserTimeout, when it is set too, decides instead of count.
// See SO_KEEPALIVE in socket(7) and TCP_KEEPIDLE in tcp(7).
func KeepAlive(idle, interval time.Duration, count int) Option {
	return func(fd int) error {
		for _, o := range []struct {
			level, opt int
			name       string
			value      int
		}{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, "SO_KEEPALIVE", 1},
			{unix.SOL_TCP, unix.TCP_KEEPIDLE, "TCP_KEEPIDLE", seconds(idle)},
			{unix.SOL_TCP, unix.TCP_KEEPINTVL, "TCP_KEEPINTVL", seconds(interval)},
			{unix.SOL_TCP, unix.TCP_KEEPCNT, "TCP_KEEPCNT", count},
		} {
			if err := set(fd, o.level, o.opt, o.name, o.value); err != nil {
				return err
			}
		}
		return nil
	}
}

// OriginalDst is where an IPv4 (or IPv6) connection was going before the packet
// filter of this host sent it here. Its error is ENOENT, or ENOPROTOOPT without
// conntrack, when nothing did. See SO_ORIGINAL_DST in linux/netfilter_ipv4.h and
// IP6T_SO_ORIGINAL_DST in linux/netfilter_ipv6/ip6_tables.h.
func OriginalDst(c syscall.RawConn, is4 bool) (dst netip.AddrPort, err error) {
	cerr := c.Control(func(fd uintptr) {
		if is4 {
			dst, err = originalDst4(int(fd))
		} else {
			dst, err = originalDst6(int(fd))
		}
	})
	if cerr != nil {
		err = cerr
	}
	return dst, os.NewSyscallError("getsockopt SO_ORIGINAL_DST", err)
}

// x/sys has no call that reads a sockaddr; these two read structs of the sizes of
// sockaddr_in and sockaddr_in6, and more.

func originalDst4(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, err
	}
	sa := m.Multiaddr // family, port, address
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(sa[4:8])), binary.BigEndian.Uint16(sa[2:4])), nil
}

func originalDst6(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], m.Addr.Port)
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), binary.BigEndian.Uint16(port[:])), nil
}

func seconds(d time.Duration) int {
	return max(1, int((d+time.Second-1)/time.Second))
}

func set(fd, level, opt int, name string, value int) error {
	if err := unix.SetsockoptInt(fd, level, opt, value); err != nil {
		return os.NewSyscallError("setsockopt "+name, err)
	}
	return nil
}
