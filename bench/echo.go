package main

import (
	"errors"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// echo is the server behind the relays. It runs on a thread of its own until close.
type echo struct {
	fd   int
	addr netip.AddrPort
	done chan struct{}
}

func newEcho() (*echo, error) {
	fd, addr, err := bindUDP()
	if err != nil {
		return nil, err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	e := &echo{fd, addr, make(chan struct{})}
	go e.serve() // until close
	return e, nil
}

// bindUDP returns a socket on a port that nothing has, and where it is.
func bindUDP() (fd int, addr netip.AddrPort, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, addr, os.NewSyscallError("socket", err)
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	sa, gerr := unix.Getsockname(fd)
	if err = errors.Join(err, gerr); err != nil {
		unix.Close(fd)
		return -1, addr, err
	}
	in := sa.(*unix.SockaddrInet4)
	return fd, netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)), nil
}

func (e *echo) serve() {
	defer close(e.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var b [1 << 11]byte
	for {
		n, from, err := unix.Recvfrom(e.fd, b[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 { // shutdown
			return
		}
		unix.Sendto(e.fd, b[:n], 0, from)
	}
}

func (e *echo) close() {
	unix.Shutdown(e.fd, unix.SHUT_RD)
	<-e.done
	unix.Close(e.fd)
}
