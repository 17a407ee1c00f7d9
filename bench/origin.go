package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// What a client asks of the origin, by one byte.
const (
	askEcho     = 'e'  // the same byte back; then another question
	askSource   = 'd'  // bytes without end
	askBacklog  = 'b'  // backlog bytes, then silence
	askSink     = 'u'  // takes bytes without end
	askExchange = 'x'  // and eight bytes, a size: that many back for that many, again and again
	askRecord   = 0x16 // a TLS record: skipped; then another question
)

// origin is the server behind the relays. It runs on a thread of its own, as long
// as the process.
type origin struct {
	addr   netip.AddrPort
	poller *poller
	file   int // what sources send

	sunk atomic.Int64 // bytes that sinks have taken
	sent atomic.Int64 // bytes that sources have sent
	open atomic.Int64 // connections
}

func newOrigin() (*origin, error) {
	fd, addr, err := listen()
	if err != nil {
		return nil, err
	}
	o := &origin{addr: addr}
	if o.file, err = newSendFile(); err != nil {
		return nil, err
	}
	if o.poller, err = newPoller(); err != nil {
		return nil, err
	}
	if err := o.poller.add(fd, unix.EPOLLIN, &acceptor{o, fd}); err != nil {
		return nil, err
	}
	o.poller.open = func(change int) { o.open.Add(int64(change)) }
	go o.serve() // until the process ends
	return o, nil
}

func (o *origin) serve() {
	runtime.LockOSThread()
	for {
		if _, err := o.poller.run(time.Hour); err != nil {
			panic(fmt.Sprintf("origin: %v", err)) // of epoll_wait: its arguments are wrong
		}
	}
}

// settle waits until no more than n connections are open, or for three seconds:
// relays close when they like, and what they do then is not the next one's cost.
func (o *origin) settle(n int64) {
	for end := time.Now().Add(3 * time.Second); o.open.Load() > n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// acceptor is the origin's listening socket.
type acceptor struct {
	origin *origin
	fd     int
}

func (a *acceptor) ready() error {
	for {
		fd, _, err := unix.Accept4(a.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return nil // EAGAIN; a connection that has gone; or descriptors, and it is called again
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if err := a.origin.poller.add(fd, unix.EPOLLIN, &asked{origin: a.origin, fd: fd, need: 1}); err != nil {
			unix.Close(fd)
		}
	}
}

// asked is a connection whose client has not said what it wants.
type asked struct {
	origin *origin
	fd     int
	buf    [16]byte
	have   int
	need   int // bytes until the question is complete
	skip   int // bytes of a TLS record to skip first
}

func (a *asked) ready() error {
	for {
		if a.skip > 0 {
			n, err := discard(a.fd, a.skip)
			if err != nil || n == 0 {
				return again(n, err)
			}
			a.skip -= n
			continue
		}
		n, err := unix.Read(a.fd, a.buf[a.have:a.need])
		if err != nil || n == 0 {
			return again(n, err)
		}
		if a.have += n; a.have < a.need {
			continue
		}
		if done, err := a.answer(); done || err != nil {
			return err
		}
	}
}

// answer does what the bytes read so far ask for. It is done when another socket
// has taken over.
func (a *asked) answer() (done bool, err error) {
	o := a.origin
	switch ask := a.buf[0]; {
	case ask == askEcho:
		_, err = unix.Write(a.fd, a.buf[:1])
		a.have = 0
		return false, err
	case ask == askRecord && a.need == 1:
		a.need = 5
		return false, nil
	case ask == askRecord:
		a.skip = int(binary.BigEndian.Uint16(a.buf[3:]))
		a.have, a.need = 0, 1
		return false, nil
	case ask == askExchange && a.need == 1:
		a.need = 9
		return false, nil
	case ask == askExchange:
		size := int(binary.BigEndian.Uint64(a.buf[1:]))
		o.poller.sockets[a.fd] = &exchange{poller: o.poller, fd: a.fd, size: size, unread: size}
		return true, nil
	case ask == askBacklog:
		unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, slowBuffer)
		o.poller.sockets[a.fd] = &finite{source{fd: a.fd, file: o.file, sent: &o.sent}, o.poller}
		return true, o.poller.want(a.fd, unix.EPOLLOUT)
	case ask == askSource:
		o.poller.sockets[a.fd] = &source{fd: a.fd, file: o.file, sent: &o.sent}
		return true, o.poller.want(a.fd, unix.EPOLLOUT)
	case ask == askSink:
		o.poller.sockets[a.fd] = &sink{a.fd, &o.sunk}
		return true, nil
	}
	return true, fmt.Errorf("asked for %q", a.buf[0])
}

// listen opens a listening socket on a free port of 127.0.0.1.
func listen() (fd int, addr netip.AddrPort, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, addr, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, addr, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return 0, addr, os.NewSyscallError("listen", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, addr, os.NewSyscallError("getsockname", err)
	}
	in := sa.(*unix.SockaddrInet4)
	return fd, netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)), nil
}
