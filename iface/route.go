package iface

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// LocalRoute reports whether the kernel would deliver to this host itself what
// is sent to a. That is so for the addresses of its interfaces, for all of
// 127.0.0.0/8, and for whole prefixes that no interface lists, where there is a
// route of type local (`ip route add local 192.0.2.0/24 dev lo`).
//
// It asks about an unmarked packet with no source address. Rules for others, see
// ip-rule(8), are looked at by the kernel after its table of local routes.
func LocalRoute(a netip.Addr) (bool, error) { return MarkedRoute(a, 0) }

// MarkedRoute is LocalRoute for a packet with a mark, by which rules can choose
// another table of routes.
func MarkedRoute(a netip.Addr, mark uint32) (bool, error) {
	a = plain(a)
	if a.IsUnspecified() {
		return true, nil // connect(2) takes it for the loopback address
	}
	c, err := dial(routeSize)
	if err != nil {
		return false, err
	}
	defer c.close()
	req, err := routeRequest(a, mark)
	if err != nil {
		return false, err
	}
	local := false
	err = c.ask(unix.RTM_GETROUTE, 0, req, func(m *syscall.NetlinkMessage) error {
		var route unix.RtMsg
		_, err := decode(m, &route)
		local = route.Type == unix.RTN_LOCAL
		return err
	})
	if noRoute(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("route to %s: %w", a, err)
	}
	return local, nil
}

// routeSize is enough for one route, which has no list that could grow.
const routeSize = 4 << 10

// routeRequest returns the body of an RTM_GETROUTE for a, rtnetlink(7).
func routeRequest(a netip.Addr, mark uint32) ([]byte, error) {
	dst := a.AsSlice()
	head := unix.RtMsg{Family: unix.AF_INET6, Dst_len: uint8(a.BitLen())}
	if a.Is4() {
		head.Family = unix.AF_INET
	}
	req, err := binary.Append(nil, binary.NativeEndian, struct {
		Head unix.RtMsg
		Mark unix.RtAttr
		Word uint32
		Dst  unix.RtAttr // and dst
	}{
		head,
		unix.RtAttr{Len: unix.SizeofRtAttr + 4, Type: unix.RTA_MARK}, mark,
		unix.RtAttr{Len: uint16(unix.SizeofRtAttr + len(dst)), Type: unix.RTA_DST},
	})
	return append(req, dst...), err
}

// noRoute reports whether the kernel's answer is that the destination cannot be
// reached: there is no route, or one of type unreachable, prohibit or blackhole.
func noRoute(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) ||
		errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)
}
