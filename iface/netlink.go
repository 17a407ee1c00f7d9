package iface

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// errInterrupted is returned by dump when the tables changed while they were
// read: what each was told may be missing an entry that was there all the time.
var errInterrupted = errors.New("netlink: dump interrupted by a change")

// conn asks the kernel, one request at a time.
type conn struct {
	fd  int
	seq uint32
	buf []byte
}

// The messages of a dump are as large as the buffer that they are read into, up
// to 32 KiB less the kernel's overhead.
const bufSize = 32 << 10

// dial returns a conn for answers of up to size bytes a message.
func dial(size int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket AF_NETLINK", err)
	}
	// An answer is there when the request has been sent, or the next part of it when
	// one has been taken. But should the kernel drop one for want of memory, the
	// wait would have no end.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt SO_RCVTIMEO", err)
	}
	return &conn{fd: fd, buf: make([]byte, size)}, nil
}

func (c *conn) close() { unix.Close(c.fd) }

// dump calls each with every entry of a table, which typ, an RTM_GET…, names.
// The message is good until each returns.
func (c *conn) dump(typ uint16, each func(*syscall.NetlinkMessage) error) error {
	return c.ask(typ, unix.NLM_F_DUMP, []byte{unix.AF_UNSPEC}, each) // struct rtgenmsg
}

// ask sends a request and calls each with the answers. An error that the kernel
// answers is a syscall.Errno.
func (c *conn) ask(typ, flags uint16, body []byte, each func(*syscall.NetlinkMessage) error) error {
	c.seq++
	if err := c.send(typ, flags|unix.NLM_F_REQUEST, body); err != nil {
		return err
	}
	interrupted := false
	for {
		msgs, err := c.receive()
		if err != nil {
			return err
		}
		for i := range msgs {
			m := &msgs[i]
			if m.Header.Seq != c.seq {
				continue // left of a request that was given up
			}
			interrupted = interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Header.Type {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				if err := status(m); err != nil || !interrupted {
					return err
				}
				return errInterrupted
			}
			if err := each(m); err != nil {
				return err
			}
			if m.Header.Flags&unix.NLM_F_MULTI == 0 {
				return nil
			}
		}
	}
}

func (c *conn) send(typ, flags uint16, body []byte) error {
	req, err := binary.Append(nil, binary.NativeEndian, unix.NlMsghdr{
		Len:   uint32(unix.SizeofNlMsghdr + len(body)),
		Type:  typ,
		Flags: flags,
		Seq:   c.seq,
	})
	if err != nil {
		return err
	}
	req = append(req, body...)
	return os.NewSyscallError("sendto netlink", unix.Sendto(c.fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
}

func (c *conn) receive() ([]syscall.NetlinkMessage, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		if err == unix.EINTR { // SO_RCVTIMEO rules out SA_RESTART, signal(7)
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom netlink", err)
		}
		if n > len(c.buf) {
			return nil, fmt.Errorf("netlink: message of %d bytes, want at most %d", n, len(c.buf))
		}
		msgs, err := syscall.ParseNetlinkMessage(c.buf[:n])
		return msgs, os.NewSyscallError("netlink message", err)
	}
}

// status returns the error that ends an answer: an errno, negative, in NLMSG_DONE
// as in NLMSG_ERROR.
func status(m *syscall.NetlinkMessage) error {
	if len(m.Data) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(m.Data)); code < 0 {
		return syscall.Errno(-code)
	}
	return nil
}

// decode reads the fixed part of a message into head, and returns the list of
// attributes behind it.
func decode(m *syscall.NetlinkMessage, head any) ([]byte, error) {
	n, err := binary.Decode(m.Data, binary.NativeEndian, head)
	if err != nil {
		return nil, fmt.Errorf("netlink message of type %d: %w", m.Header.Type, err)
	}
	return m.Data[n:], nil
}

// attributes yields the type and value of each attribute of a list, rtnetlink(7),
// as far as its lengths add up.
//
// Not syscall.ParseNetlinkRouteAttr, because it panics when the last attribute
// has no padding.
func attributes(list []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(list) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(list))
			if n < unix.SizeofRtAttr || n > len(list) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(list[2:]), list[unix.SizeofRtAttr:n]) {
				return
			}
			list = list[min(align(n), len(list)):]
		}
	}
}

// align rounds up to where the next attribute or nexthop begins.
func align(n int) int { return (n + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1) }
