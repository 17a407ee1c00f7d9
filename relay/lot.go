package relay

import (
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// parkingLot is an epoll set, in which the sockets of tunnels between two TCP
// connections are for as long as they live, and a goroutine that attends to it.
//
// Package net has every socket in an epoll set too, but offers no way to wait there
// other than with a goroutine.
type parkingLot struct {
	epfd int

	mu    sync.Mutex
	pipes []*Pipe // guarded by mu; by key, nil if nobody has it
	free  []int32 // guarded by mu; keys
}

// lots has one for each processor. A Pipe keeps to the one it got.
var lots struct {
	mu   sync.Mutex
	list []*parkingLot // guarded by mu
	turn int           // guarded by mu
}

var maxLots = runtime.GOMAXPROCS(0)

// nextLot returns the lot for another Pipe, or nil when none could be opened so far:
// there are no descriptors.
func nextLot() *parkingLot {
	lots.mu.Lock()
	defer lots.mu.Unlock()
	if len(lots.list) < maxLots {
		if l := openLot(); l != nil {
			lots.list = append(lots.list, l)
		}
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

// enter puts the sockets of p into the set, and reports whether it could. What is
// there to be read already is an event.
func (l *parkingLot) enter(p *Pipe) bool {
	l.mu.Lock()
	if n := len(l.free); n > 0 {
		p.key = l.free[n-1]
		l.free = l.free[:n-1]
		l.pipes[p.key] = p
	} else {
		p.key = int32(len(l.pipes))
		l.pipes = append(l.pipes, p)
	}
	l.mu.Unlock()
	if l.control(unix.EPOLL_CTL_ADD, p, &p.client, inEvents) && l.control(unix.EPOLL_CTL_ADD, p, &p.upstream, inEvents) {
		return true
	}
	l.control(unix.EPOLL_CTL_DEL, p, &p.client, 0)
	l.leave(p)
	return false
}

// leave forgets p. Its sockets leave the set when they are closed.
func (l *parkingLot) leave(p *Pipe) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pipes[p.key] = nil
	l.free = append(l.free, p.key)
}

func (l *parkingLot) control(op int, p *Pipe, s *side, events uint32) bool {
	e := unix.EpollEvent{Events: events, Fd: p.key << 1}
	if s == &p.upstream {
		e.Fd |= 1
	}
	return unix.EpollCtl(l.epfd, op, int(s.fd), &e) == nil
}

// pipe returns who has the key. An event that was fetched before its Pipe ended may
// find another one, which then tries in vain, and waits on.
func (l *parkingLot) pipe(key int32) *Pipe {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pipes[key]
}

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
				if p := l.pipe(e.Fd >> 1); p != nil {
					p.ready(e.Fd&1 != 0, e.Events)
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
