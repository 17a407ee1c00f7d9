package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Addresses go to the kernel and come from it in a struct on the stack. Package unix
// has each in one or two allocations.

// Bind binds a socket to an address of its own.
func Bind(fd int, a netip.AddrPort) error {
	if err := withSockaddr(unix.SYS_BIND, fd, a); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return nil
}

func connect(fd int, a netip.AddrPort) error { return withSockaddr(unix.SYS_CONNECT, fd, a) }

// withSockaddr makes a call that takes a descriptor and an address.
func withSockaddr(call uintptr, fd int, a netip.AddrPort) error {
	var sa unix.RawSockaddrInet6 // the longer one
	size := uintptr(unix.SizeofSockaddrInet6)
	if a.Addr().Is4() {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		in.Family, in.Addr = unix.AF_INET, a.Addr().As4()
		size = unix.SizeofSockaddrInet4
	} else {
		sa.Family, sa.Addr = unix.AF_INET6, a.Addr().As16()
		if zone := a.Addr().Zone(); zone != "" {
			if i, err := net.InterfaceByName(zone); err == nil {
				sa.Scope_id = uint32(i.Index)
			}
		}
	}
	// At the same place in both, in network byte order.
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], a.Port())
	_, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size)
	if errno != 0 {
		return errno
	}
	return nil
}

// localAddr is getsockname(2).
func localAddr(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6
	size := uint32(unix.SizeofSockaddrInet6)
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", errno)
	}
	return addrPortOf(&sa), nil
}

// accept is accept4(2) of a connection that does not block.
func accept(fd int) (c int, remote netip.AddrPort, errno unix.Errno) {
	var sa unix.RawSockaddrInet6
	size := uint32(unix.SizeofSockaddrInet6)
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(n), addrPortOf(&sa), 0
}

// addrPortOf takes an IPv4 address, also from a socket of both families, for what it
// is, and leaves out the zone: those of sockets are compared.
func addrPortOf(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
}
