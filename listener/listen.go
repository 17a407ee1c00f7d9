package listener

import (
	"context"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"swivel/internal/sockopt"
	"swivel/relay"
)

// Acceptor is what Serve needs of a *Listener.
type Acceptor interface {
	Accept() (*relay.Socket, error)
	Close() error
}

// Listener is a listening TCP socket. What it accepts is not package net's; see
// [relay.Socket].
type Listener struct {
	addr net.Addr
	file *os.File // not the net.TCPListener, which lets nobody wait for it but itself
	raw  syscall.RawConn

	// of Accept, whose results are here because a closure would be an allocation
	accept   func(fd uintptr) bool
	accepted *relay.Socket
	err      error
}

// Listen opens a listening socket. The connections that it accepts inherit opts
// and need no system call of their own for them.
func Listen(ctx context.Context, address string, opts ...sockopt.Option) (*Listener, error) {
	ln, err := ListenTCP(ctx, address, append(opts[:len(opts):len(opts)], sockopt.NoDelay)...)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	file, err := ln.File() // another descriptor of the same socket
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	l := &Listener{addr: ln.Addr(), file: file, raw: raw}
	l.accept = func(fd uintptr) bool {
		l.accepted, l.err = relay.Accept(int(fd))
		return l.err != unix.EAGAIN
	}
	return l, nil
}

// ListenTCP is Listen for who is content with package net's.
func ListenTCP(ctx context.Context, address string, opts ...sockopt.Option) (*net.TCPListener, error) {
	lc := net.ListenConfig{
		Control:   sockopt.Control(opts...),
		KeepAlive: -1, // net would set its own values on each accepted connection
	}
	lc.SetMultipathTCP(false) // Not net's default, because splice(2) is slower through MPTCP.
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil
}

// Accept waits for a connection. One goroutine at a time calls it. The error is
// [net.ErrClosed] after Close.
func (l *Listener) Accept() (*relay.Socket, error) {
	if err := l.raw.Read(l.accept); err != nil {
		return nil, net.ErrClosed // nothing else ends the waiting
	}
	if l.err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: l.err}
	}
	return l.accepted, nil
}

// Addr is where l listens.
func (l *Listener) Addr() net.Addr { return l.addr }

// SyscallConn implements [syscall.Conn].
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.raw, nil }

// Close makes l listen no more.
func (l *Listener) Close() error { return l.file.Close() }
