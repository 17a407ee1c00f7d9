package relay

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawAddr is a sockaddr_in or sockaddr_in6 as the kernel writes it.
type rawAddr [unix.SizeofSockaddrInet6]byte

// addrPort returns a mapped IPv4 address as IPv4, and no zone.
func (s *rawAddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(s[2:])
	if binary.NativeEndian.Uint16(s[:]) == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s[4:8])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s[8:24])).Unmap(), port)
}

func (s *rawAddr) size() uint32 {
	if binary.NativeEndian.Uint16(s[:]) == unix.AF_INET {
		return unix.SizeofSockaddrInet4
	}
	return unix.SizeofSockaddrInet6
}

// pktinfo is a control message with in_pktinfo or in6_pktinfo, which say where a
// datagram was sent to, or is to be sent from.
type pktinfo struct {
	head unix.Cmsghdr
	info [unix.SizeofInet6Pktinfo]byte
}

// size of the control message for its family, padded as the kernel wants it.
func (c *pktinfo) size() int {
	if c.head.Level == unix.SOL_IP {
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	}
	return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
}

// addr is the address in c, with a mapped IPv4 address as IPv4.
func (c *pktinfo) addr() netip.Addr {
	if c.head.Level == unix.SOL_IP {
		p := (*unix.Inet4Pktinfo)(unsafe.Pointer(&c.info))
		return netip.AddrFrom4(p.Addr)
	}
	p := (*unix.Inet6Pktinfo)(unsafe.Pointer(&c.info))
	return netip.AddrFrom16(p.Addr).Unmap()
}

// answer is c for what is sent back: from the same address, by whatever interface
// the route says, unless the address means nothing without one.
func (c *pktinfo) answer() pktinfo {
	a := *c
	if a.head.Level == unix.SOL_IP {
		p := (*unix.Inet4Pktinfo)(unsafe.Pointer(&a.info))
		p.Ifindex, p.Spec_dst = 0, p.Addr
		return a
	}
	if p := (*unix.Inet6Pktinfo)(unsafe.Pointer(&a.info)); !netip.AddrFrom16(p.Addr).IsLinkLocalUnicast() {
		p.Ifindex = 0
	}
	return a
}
