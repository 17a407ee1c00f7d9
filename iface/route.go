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
	return localRoute(a, attribute(unix.RTA_MARK, binary.NativeEndian.AppendUint32(nil, mark)), 0)
}

// AnswerRoute is LocalRoute for a datagram that a server at from, which this host has,
// sends to a: rules can choose a table by address, protocol and port.
func AnswerRoute(a netip.Addr, from netip.AddrPort) (bool, error) {
	src := plain(from.Addr()).AsSlice()
	attrs := attribute(unix.RTA_SRC, src)
	attrs = append(attrs, attribute(unix.RTA_IP_PROTO, []byte{unix.IPPROTO_UDP})...)
	attrs = append(attrs, attribute(unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, from.Port()))...)
	return localRoute(a, attrs, uint8(8*len(src)))
}

// localRoute asks about a packet to a with more attributes, of which a source has
// srcLen bits.
func localRoute(a netip.Addr, attrs []byte, srcLen uint8) (bool, error) {
	a = plain(a)
	if a.IsUnspecified() {
		return true, nil // connect(2) takes it for the loopback address
	}
	c, err := dial(routeSize)
	if err != nil {
		return false, err
	}
	defer c.close()
	head := unix.RtMsg{Family: unix.AF_INET6, Dst_len: uint8(a.BitLen()), Src_len: srcLen}
	if a.Is4() {
		head.Family = unix.AF_INET
	}
	req, err := binary.Append(nil, binary.NativeEndian, head)
	if err != nil {
		return false, err
	}
	req = append(append(req, attribute(unix.RTA_DST, a.AsSlice())...), attrs...)
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

// attribute is a struct rtattr with its value, padded to four bytes.
func attribute(typ uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// noRoute reports whether the kernel's answer is that the destination cannot be
// reached: there is no route, or one of type unreachable, prohibit or blackhole.
func noRoute(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) ||
		errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL)
}
