package iface

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// events is a socket on which the kernel tells of changes. That something has
// changed is all that is taken from it: messages are lost when they come faster
// than they are read, so the tables must be read anyway.
type events struct {
	f   *os.File
	raw syscall.RawConn
	buf []byte
}

// subscribe joins the groups of all that a Host is made of.
func subscribe() (*events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket AF_NETLINK", err)
	}
	// The descriptor does not block, so that NewFile gives it to the runtime's
	// poller, and close wakes up who waits for it.
	e := &events{f: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, bufSize)}
	groups := []int{
		unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_NEXTHOP, // it takes its routes with it, without a word about them
	}
	addr := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, g := range groups {
		addr.Groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, addr); err != nil {
		e.close()
		return nil, os.NewSyscallError("bind AF_NETLINK", err)
	}
	if e.raw, err = e.f.SyscallConn(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *events) close() { e.f.Close() }

// wait returns true when something has changed, and false when d is over; zero
// means that there is no limit. Events that were queued are all taken as one.
func (e *events) wait(d time.Duration) (bool, error) {
	var deadline time.Time
	if d > 0 {
		deadline = time.Now().Add(d)
	}
	if err := e.f.SetReadDeadline(deadline); err != nil {
		return false, err
	}
	event := false
	var err error
	rerr := e.raw.Read(func(fd uintptr) bool {
		for err == nil {
			var n int
			n, _, err = unix.Recvfrom(int(fd), e.buf, 0)
			switch err {
			case nil:
				event = event || matters(e.buf[:n])
			case unix.EINTR:
				err = nil
			case unix.ENOBUFS: // some were lost
				event, err = true, nil
			case unix.EAGAIN:
				err = nil
				return event
			}
		}
		return true
	})
	switch {
	case errors.Is(rerr, os.ErrDeadlineExceeded):
		return false, nil
	case rerr != nil:
		return false, rerr
	}
	return event, os.NewSyscallError("recvfrom netlink", err)
}

// matters reports whether an event may have changed what a Host tells. On a
// router most events are of routes, and not of default ones.
func matters(event []byte) bool {
	msgs, err := syscall.ParseNetlinkMessage(event)
	if err != nil {
		return true // as good as any reason to read the tables again
	}
	for i := range msgs {
		switch msgs[i].Header.Type {
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if isDefault(&msgs[i]) {
				return true
			}
		default:
			return true
		}
	}
	return false
}
