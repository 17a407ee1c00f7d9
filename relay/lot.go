package relay

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lot is where the parked directions of this process wait: one epoll set.
//
// Package net has every socket in an epoll set too, but offers no way to wait there
// other than with a goroutine.
var lot parkingLot

type parkingLot struct {
	once sync.Once
	err  error // of open
	epfd int
	set  syscall.RawConn // of epfd, which is itself waited for as a file

	mu    sync.Mutex
	slots []*direction // guarded by mu; by descriptor of src
}

// add makes the lot unpark d when there is something to read from its source, be it
// EOF or an error. It reports whether it does. The caller holds d.pipe.mu.
func (l *parkingLot) add(d *direction) bool {
	l.once.Do(l.open)
	c := tcpOf(d.src.Duplex)
	if l.err != nil || c == nil {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	cerr := raw.Control(func(fd uintptr) { err = l.wait(int(fd), d) })
	return cerr == nil && err == nil
}

// wait arms fd for one event. It stays in the set, disarmed, until it is closed.
func (l *parkingLot) wait(fd int, d *direction) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.slots) <= fd {
		l.slots = append(l.slots, nil)
	}
	l.slots[fd], d.fd = d, fd
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)}
	err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, fd, &e)
	if err == unix.ENOENT {
		err = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &e)
	}
	if err != nil {
		l.slots[fd] = nil
	}
	return err
}

// take returns the direction that waits for fd, if there is one. A descriptor that
// was closed and given out again since the event makes that another direction than
// the event was for: it finds nothing to read and parks again.
func (l *parkingLot) take(fd int) *direction {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fd >= len(l.slots) {
		return nil
	}
	d := l.slots[fd]
	l.slots[fd] = nil
	return d
}

// leave forgets d, which has ended while it was parked or before.
func (l *parkingLot) leave(d *direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.fd < len(l.slots) && l.slots[d.fd] == d {
		l.slots[d.fd] = nil
	}
}

func (l *parkingLot) open() {
	l.epfd, l.err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if l.err != nil {
		return
	}
	if l.err = unix.SetNonblock(l.epfd, true); l.err != nil {
		return
	}
	l.set, l.err = os.NewFile(uintptr(l.epfd), "epoll").SyscallConn()
	if l.err == nil {
		go l.attend() // for as long as the process lives
	}
}

// attend unparks directions.
func (l *parkingLot) attend() {
	events := make([]unix.EpollEvent, 256)
	l.set.Read(func(fd uintptr) bool {
		for {
			n, err := unix.EpollWait(int(fd), events, 0)
			if err != nil && err != unix.EINTR {
				return true
			}
			if n == 0 {
				return false
			}
			for _, e := range events[:max(n, 0)] {
				if d := l.take(int(e.Fd)); d != nil {
					d.unpark()
				}
			}
		}
	})
}
