package main

import (
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// chunk is how much one call sends or takes at most.
const chunk = 1 << 20

// sink takes and discards.
type sink struct {
	fd    int
	taken *atomic.Int64
}

func (s *sink) ready() error {
	n, err := discard(s.fd, chunk)
	s.taken.Add(int64(n))
	return again(n, err)
}

// discard takes up to size bytes from a socket without copying them.
func discard(fd, size int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), 0, uintptr(size), unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// again is what ready returns after a read: an error unless fd is to be waited for.
func again(n int, err error) error {
	switch {
	case err != nil && !transient(err):
		return err
	case err == nil && n == 0:
		return io.EOF
	}
	return nil
}

// source sends without end.
type source struct {
	fd   int
	file int
	off  int64
	sent *atomic.Int64
}

// sendSize is the size of the file that sources send from: more than a core's
// caches hold, so that the bytes of a relay that copies come from memory or from
// the cache that all cores share, as they would from a network card.
const sendSize = 16 << 20

// newSendFile returns a file in memory of sendSize bytes.
func newSendFile() (int, error) {
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("memfd_create", err)
	}
	data := make([]byte, sendSize)
	for i := range data {
		data[i] = byte(i * 7)
	}
	if _, err := unix.Write(fd, data); err != nil {
		return 0, os.NewSyscallError("write", err)
	}
	return fd, nil
}

func (s *source) ready() error {
	if s.off == sendSize {
		s.off = 0
	}
	n, err := unix.Sendfile(s.fd, s.file, &s.off, chunk)
	if err != nil && !transient(err) {
		return err
	}
	s.sent.Add(int64(max(n, 0)))
	return nil
}

// backlog is what a finite source sends. A slow reader does not come to its end
// within a measurement; sources without end would fill all memory that the kernel
// has for TCP (net.ipv4.tcp_mem), and what is measured would be retransmission.
const backlog = 1 << 20

// finite sends backlog bytes and then waits for the end.
type finite struct {
	source
	poller *poller
}

func (f *finite) ready() error {
	if f.off < backlog {
		n, err := unix.Sendfile(f.fd, f.file, &f.off, backlog-int(f.off))
		f.sent.Add(int64(max(n, 0)))
		return again(n, err)
	}
	f.poller.sockets[f.fd] = &sink{f.fd, new(atomic.Int64)}
	return f.poller.want(f.fd, unix.EPOLLIN)
}

// exchange reads size bytes and writes size bytes, in turn: at the origin a server
// that answers, at the client one that asks, which starts with a message unsent.
type exchange struct {
	poller  *poller
	fd      int
	size    int
	unread  int
	unsent  int
	blocked bool // waits for room to send

	asked time.Time
	took  *[]time.Duration // of every exchange; nil at the origin
}

// message is what exchanges send.
var message [64 << 10]byte

func (x *exchange) ready() error {
	if x.unsent > 0 {
		return x.send()
	}
	n, err := discard(x.fd, x.unread)
	if x.unread -= n; err != nil || n == 0 || x.unread > 0 {
		return again(n, err)
	}
	if x.took != nil {
		now := time.Now()
		*x.took = append(*x.took, now.Sub(x.asked))
		x.asked = now
	}
	x.unsent = x.size
	return x.send()
}

// send sends what is left of the message. The answer is read after it.
func (x *exchange) send() error {
	n, err := unix.Write(x.fd, message[:min(x.unsent, len(message))])
	if err != nil && !transient(err) {
		return err
	}
	x.unsent -= max(n, 0)
	if x.unsent == 0 {
		x.unread = x.size
	}
	if blocked := x.unsent > 0; blocked != x.blocked {
		x.blocked = blocked
		if blocked {
			return x.poller.want(x.fd, unix.EPOLLOUT)
		}
		return x.poller.want(x.fd, unix.EPOLLIN)
	}
	return nil
}
