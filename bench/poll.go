package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// socket is what a poller calls when its descriptor is ready. An error removes and
// closes it. EAGAIN is none.
type socket interface {
	ready() error
}

// poller calls the sockets that are ready, one after the other. It belongs to one
// goroutine.
//
// Not package net: at 256 connections its scheduler would cost as much as a relay.
type poller struct {
	fd      int
	sockets []socket // by descriptor
	events  []unix.EpollEvent
	open    func(change int) // told how many were added or closed; may be nil
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &poller{fd: fd, events: make([]unix.EpollEvent, 256)}, nil
}

// add makes s wait for events. It puts fd into non-blocking mode, and owns it unless
// there is an error.
func (p *poller) add(fd int, events uint32, s socket) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err := p.ctl(unix.EPOLL_CTL_ADD, fd, events); err != nil {
		return err
	}
	for len(p.sockets) <= fd {
		p.sockets = append(p.sockets, nil)
	}
	p.sockets[fd] = s
	if p.open != nil {
		p.open(+1)
	}
	return nil
}

// adopt adds tunnels, as what open makes of each, once it has sent the question. It
// owns the tunnels from now on, after an error too.
func (p *poller) adopt(tunnels []blocking, question []byte, events uint32, open func(fd int) socket) error {
	for i, c := range tunnels {
		err := c.write(question)
		if err == nil {
			err = p.add(int(c), events, open(int(c)))
		}
		if err != nil {
			closeAll(tunnels[i:])
			return err
		}
	}
	return nil
}

// want changes what the socket of fd waits for.
func (p *poller) want(fd int, events uint32) error { return p.ctl(unix.EPOLL_CTL_MOD, fd, events) }

func (p *poller) ctl(op, fd int, events uint32) error {
	err := unix.EpollCtl(p.fd, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	return os.NewSyscallError("epoll_ctl", err)
}

// run calls sockets until d has passed. It returns how many of them were closed.
func (p *poller) run(d time.Duration) (closed int, err error) {
	end := time.Now().Add(d)
	for {
		rest := time.Until(end)
		if rest <= 0 {
			return closed, nil
		}
		n, err := unix.EpollWait(p.fd, p.events, int(rest/time.Millisecond)+1)
		if err != nil && err != unix.EINTR {
			return closed, os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range p.events[:max(n, 0)] {
			fd := int(e.Fd)
			if s := p.sockets[fd]; s != nil && s.ready() != nil {
				p.remove(fd)
				closed++
			}
		}
	}
}

func (p *poller) remove(fd int) {
	unix.Close(fd)
	p.sockets[fd] = nil
	if p.open != nil {
		p.open(-1)
	}
}

// close closes p and its sockets.
func (p *poller) close() {
	for fd, s := range p.sockets {
		if s != nil {
			p.remove(fd)
		}
	}
	unix.Close(p.fd)
}

// transient reports whether err says no more than that fd is not ready.
func transient(err error) bool { return err == unix.EAGAIN || err == unix.EINTR }
