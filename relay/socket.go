package relay

import (
	"cmp"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is a connected TCP socket that is not package net's. A tunnel needs no more
// of it than its descriptor: it is in no epoll set but that of the tunnel, and takes
// 128 bytes where package net's takes 700, one allocation to connect and not 28, one to
// be accepted and not 7, and no second goroutine. Who has to wait for it, to read or
// to write otherwise, makes it join the runtime's poller, by way of [os.File].
//
// Its owner closes it; nothing else does.
type Socket struct {
	remote netip.AddrPort
	lot    *parkingLot // whose set it is in, or nil

	mu    sync.Mutex
	fd    int32          // guarded by mu; -1 once it is closed
	local netip.AddrPort // guarded by mu; not valid until it is asked for
	file  *os.File       // guarded by mu; nil until somebody has to wait

	// guarded by mu; deadlines that file is to have, zero for none
	readBy, writeBy duration
}

// blocking returns s as what can be waited for.
func (s *Socket) blocking() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fd < 0:
		return nil, net.ErrClosed
	case s.file == nil:
		if s.lot != nil {
			s.lot.forget(int(s.fd))
			s.lot = nil
		}
		s.file = os.NewFile(uintptr(s.fd), "tcp")
		if s.readBy != 0 {
			s.file.SetReadDeadline(began.Add(s.readBy))
		}
		if s.writeBy != 0 {
			s.file.SetWriteDeadline(began.Add(s.writeBy))
		}
	}
	return s.file, nil
}

// attempt makes a call that does not block, as long as nobody has had to wait. It
// reports false if that is to be done now.
func (s *Socket) attempt(by *duration, call func(fd int, p []byte) (int, error), p []byte) (n int, err error, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil || s.fd < 0 || len(p) == 0 || *by != 0 && *by <= sinceBegin() {
		return 0, nil, false
	}
	n, err = call(int(s.fd), p)
	return n, err, err != unix.EAGAIN
}

// Read implements [io.Reader].
func (s *Socket) Read(p []byte) (int, error) {
	if n, err, ok := s.attempt(&s.readBy, read, p); ok {
		if n == 0 && err == nil {
			return 0, io.EOF
		}
		return n, s.opError("read", os.NewSyscallError("read", err))
	}
	f, err := s.blocking()
	if err != nil {
		return 0, s.opError("read", err)
	}
	n, err := f.Read(p)
	return n, s.opError("read", err)
}

// Write implements [io.Writer].
func (s *Socket) Write(p []byte) (int, error) {
	done, err, ok := s.attempt(&s.writeBy, write, p)
	if ok && (err != nil || done == len(p)) {
		return done, s.opError("write", os.NewSyscallError("write", err))
	}
	f, err := s.blocking()
	if err != nil {
		return done, s.opError("write", err)
	}
	n, err := f.Write(p[done:])
	return done + n, s.opError("write", err)
}

// Peek is Read that leaves the bytes where they are. p is not empty.
func (s *Socket) Peek(p []byte) (n int, err error) {
	n, err, ok := s.attempt(&s.readBy, peek, p)
	if !ok {
		rerr := rawSocket{s}.Read(func(fd uintptr) bool {
			n, err = peek(int(fd), p)
			return err != unix.EAGAIN
		})
		if rerr != nil {
			return 0, rerr
		}
	}
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return n, s.opError("read", os.NewSyscallError("recvfrom", err))
}

// opError describes err, which may come from package os, as package net does.
func (s *Socket) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if perr, ok := errors.AsType[*os.PathError](err); ok {
		err = perr.Err
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError(op, errno)
		}
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// Close implements [io.Closer].
func (s *Socket) Close() error {
	s.mu.Lock()
	fd, file := s.fd, s.file
	s.fd = -1
	s.mu.Unlock()
	switch {
	case fd < 0:
		return s.opError("close", net.ErrClosed)
	case file != nil:
		return s.opError("close", file.Close())
	}
	return s.opError("close", os.NewSyscallError("close", unix.Close(int(fd))))
}

// control calls f with the descriptor, which stays open meanwhile.
func (s *Socket) control(op string, f func(fd int) error) error {
	return s.opError(op, s.withDescriptor(f))
}

func (s *Socket) withDescriptor(f func(fd int) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	return f(int(s.fd))
}

// CloseWrite sends FIN.
func (s *Socket) CloseWrite() error {
	return s.control("close", func(fd int) error {
		return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR))
	})
}

// SetLinger is [net.TCPConn.SetLinger].
func (s *Socket) SetLinger(sec int) error {
	return s.control("set", func(fd int) error {
		l := unix.Linger{}
		if sec >= 0 {
			l = unix.Linger{Onoff: 1, Linger: int32(sec)}
		}
		return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	})
}

// Local returns our own end. It is not valid if s was closed before anybody asked.
// An IPv4 address is one, whatever the socket is, and there is no zone.
func (s *Socket) Local() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.local.IsValid() && s.fd >= 0 {
		s.local, _ = localAddr(int(s.fd)) // fails for what is no socket
	}
	return s.local
}

// Remote returns the peer's end, in the same form.
func (s *Socket) Remote() netip.AddrPort { return s.remote }

// LocalAddr implements [net.Conn]. It is nil where Local's is not valid.
func (s *Socket) LocalAddr() net.Addr { return tcpAddr(s.Local()) }

// RemoteAddr implements [net.Conn].
func (s *Socket) RemoteAddr() net.Addr { return tcpAddr(s.remote) }

// SetDeadline implements [net.Conn].
func (s *Socket) SetDeadline(t time.Time) error { return s.setDeadlines(t, true, true) }

// SetReadDeadline implements [net.Conn].
func (s *Socket) SetReadDeadline(t time.Time) error { return s.setDeadlines(t, true, false) }

// SetWriteDeadline implements [net.Conn].
func (s *Socket) SetWriteDeadline(t time.Time) error { return s.setDeadlines(t, false, true) }

// setDeadlines keeps them, until there is a file to have them.
func (s *Socket) setDeadlines(t time.Time, read, write bool) error {
	return s.control("set", func(int) (err error) {
		by := sinceBeginOf(t)
		if read {
			s.readBy = by
		}
		if write {
			s.writeBy = by
		}
		if s.file != nil && read {
			err = s.file.SetReadDeadline(t)
		}
		if s.file != nil && write {
			err = cmp.Or(s.file.SetWriteDeadline(t), err)
		}
		return err
	})
}

// SyscallConn implements [syscall.Conn].
func (s *Socket) SyscallConn() (syscall.RawConn, error) { return rawSocket{s}, nil }

// rawSocket leaves a Socket out of the poller for as long as nobody waits.
type rawSocket struct{ s *Socket }

func (r rawSocket) Control(f func(fd uintptr)) error {
	return r.s.control("control", func(fd int) error { f(uintptr(fd)); return nil })
}

func (r rawSocket) Read(f func(fd uintptr) bool) error {
	return r.wait("read", syscall.RawConn.Read, f)
}

func (r rawSocket) Write(f func(fd uintptr) bool) error {
	return r.wait("write", syscall.RawConn.Write, f)
}

func (r rawSocket) wait(op string, until func(syscall.RawConn, func(fd uintptr) bool) error, f func(fd uintptr) bool) error {
	file, err := r.s.blocking()
	if err != nil {
		return r.s.opError(op, err)
	}
	raw, err := file.SyscallConn()
	if err == nil {
		err = until(raw, f)
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = net.ErrClosed // package os leaves an error of its own poller's as it is
	}
	return r.s.opError(op, err)
}

// tcpAddr returns a as package net has it, nil if it is not valid.
func tcpAddr(a netip.AddrPort) net.Addr {
	if !a.IsValid() {
		return nil
	}
	return net.TCPAddrFromAddrPort(a)
}
