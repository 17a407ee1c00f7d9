package relay

import (
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// parkingLot is an epoll set, in which the sockets of tunnels between two TCP
// connections are for as long as they live, and a goroutine that attends to it. A
// Socket is in there from when it connects.
//
// Package net has every socket in an epoll set too, but offers no way to wait there
// other than with a goroutine.
type parkingLot struct {
	epfd int

	mu        sync.Mutex
	occupants []occupant // guarded by mu; by key, nil if nobody has it
	free      []int32    // guarded by mu; keys
}

// occupant is who is told of events, on the goroutine of the lot. A key stands for
// two sockets at most.
type occupant interface {
	ready(second bool, events uint32)
}

// lots has one for each processor. A Pipe keeps to the one it got.
var lots struct {
	mu   sync.Mutex
	list []*parkingLot // guarded by mu
	turn int           // guarded by mu
}

var maxLots = runtime.GOMAXPROCS(0)

// Open opens the epoll sets that tunnels wait in. The first tunnel does it otherwise,
// at a time when there may be no descriptors.
func Open() { nextLot() }

// nextLot returns the lot for another tunnel, or nil when none could be opened so
// far.
func nextLot() *parkingLot {
	lots.mu.Lock()
	defer lots.mu.Unlock()
	for len(lots.list) < maxLots {
		l := openLot()
		if l == nil {
			break
		}
		lots.list = append(lots.list, l)
	}
	if len(lots.list) == 0 {
		return nil
	}
	lots.turn = (lots.turn + 1) % len(lots.list)
	return lots.list[lots.turn]
}

func openLot() *parkingLot {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	if err := unix.SetNonblock(epfd, true); err != nil {
		unix.Close(epfd)
		return nil
	}
	l := &parkingLot{epfd: epfd}
	go l.attend(os.NewFile(uintptr(epfd), "epoll")) // for as long as the process lives
	return l
}

// The events of a socket. They come once for each change (EPOLLET), so that nothing
// is to be asked for again after each message. EPOLLOUT is added for a socket that
// has once taken no more.
const (
	inEvents  = unix.EPOLLET | unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI
	outEvents = inEvents | unix.EPOLLOUT
)

// occupy gives o a key.
func (l *parkingLot) occupy(o occupant) (key int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		key = l.free[n-1]
		l.free = l.free[:n-1]
		l.occupants[key] = o
		return key
	}
	l.occupants = append(l.occupants, o)
	return int32(len(l.occupants) - 1)
}

// vacate takes a key back. Sockets leave the set when they are closed.
func (l *parkingLot) vacate(key int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.occupants[key] = nil
	l.free = append(l.free, key)
}

// occupant returns who has the key. An event that was fetched before the key was
// given back may find somebody else, who then tries in vain, and waits on.
func (l *parkingLot) occupant(key int32) occupant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.occupants[key]
}

// watch makes a socket's events those of the first or second socket of a key. What
// has happened already is an event.
func (l *parkingLot) watch(fd int, key int32, second bool, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: key << 1}
	if second {
		e.Fd |= 1
	}
	err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &e)
	if err == unix.EEXIST {
		err = unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, fd, &e)
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// forget takes a socket out of the set.
func (l *parkingLot) forget(fd int) { unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, fd, nil) }

// attend lets directions go on.
func (l *parkingLot) attend(set *os.File) {
	raw, err := set.SyscallConn()
	if err != nil {
		panic(err) // only of a nil File
	}
	events := make([]unix.EpollEvent, 128)
	raw.Read(func(uintptr) bool {
		for {
			n := epollReady(l.epfd, events)
			for _, e := range events[:n] {
				if o := l.occupant(e.Fd >> 1); o != nil {
					o.ready(e.Fd&1 != 0, e.Events)
				}
			}
			// The set itself is waited for by its changes as well: what comes
			// after fewer events than there was room for is one.
			if n < len(events) {
				return false
			}
		}
	})
}
