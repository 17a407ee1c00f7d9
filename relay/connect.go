package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Accept takes a connection from the queue of fd, a listening socket that does not
// block. The error is [unix.EAGAIN] when there is none, or what accept4(2) says, but
// for a connection that has gone while it was queued: then the next one is taken.
func Accept(fd int) (*Socket, error) {
	for {
		c, remote, errno := accept(fd)
		switch errno {
		case 0:
			return &Socket{fd: int32(c), remote: remote}, nil
		case unix.EAGAIN:
			return nil, unix.EAGAIN
		case unix.EINTR, unix.ECONNABORTED:
		default:
			return nil, os.NewSyscallError("accept4", errno)
		}
	}
}

// Connect connects fd, a TCP socket that does not block, to dst. It takes fd over:
// after an error it is closed. The error is what package net's would be; when ctx or
// until, unless that is zero, has passed, [os.ErrDeadlineExceeded] is in it.
func Connect(ctx context.Context, fd int, dst netip.AddrPort, until time.Time) (*Socket, error) {
	s := &Socket{fd: int32(fd), remote: dst}
	if err := s.connect(ctx, until); err != nil {
		err = &net.OpError{Op: "dial", Net: "tcp", Source: s.LocalAddr(), Addr: tcpAddr(dst), Err: err}
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *Socket) connect(ctx context.Context, until time.Time) (err error) {
	connected, err := s.tryConnect()
	if err == nil && !connected {
		// Within this host, and nowhere else, the other end has answered meanwhile.
		connected, err = s.tryConnect()
	}
	if err == nil && !connected {
		err = s.awaitConnect(ctx, until)
	}
	return err
}

// tryConnect begins to connect, or finds out what has become of that.
func (s *Socket) tryConnect() (connected bool, err error) {
	switch err := connect(int(s.fd), s.remote); err {
	case nil, unix.EISCONN:
		return true, nil
	case unix.EINPROGRESS, unix.EALREADY, unix.EINTR:
		return false, nil
	default:
		return false, os.NewSyscallError("connect", err)
	}
}

// connecting is who waits for connect(2).
type connecting struct {
	event chan struct{} // holds one
	timer *time.Timer
}

// ready implements occupant.
func (c *connecting) ready(bool, uint32) {
	select {
	case c.event <- struct{}{}:
	default:
	}
}

var connectings = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &connecting{make(chan struct{}, 1), t}
}}

func (s *Socket) awaitConnect(ctx context.Context, until time.Time) error {
	l := nextLot()
	if l == nil {
		return os.NewSyscallError("epoll_create1", unix.EMFILE)
	}
	c := connectings.Get().(*connecting)
	defer connectings.Put(c)
	key := l.occupy(c)
	defer l.vacate(key)
	if err := l.watch(int(s.fd), key, false, unix.EPOLLET|unix.EPOLLOUT); err != nil {
		return err
	}
	s.lot = l
	var late <-chan time.Time
	if !until.IsZero() {
		c.timer.Reset(time.Until(until))
		defer c.timer.Stop()
		late = c.timer.C
	}
	for {
		select {
		case <-c.event:
			// It may have been for who had the key before.
			if connected, err := s.tryConnect(); connected || err != nil {
				return err
			}
		case <-late:
			return os.ErrDeadlineExceeded
		case <-ctx.Done():
			if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return os.ErrDeadlineExceeded
		}
	}
}
