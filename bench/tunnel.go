package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A door asks a relay for a connection to the origin, on a connection to it.
type door func(c blocking, origin netip.AddrPort) error

// direct is for relays that know where to go.
func direct(blocking, netip.AddrPort) error { return nil }

// connect is HTTP CONNECT.
func connect(c blocking, origin netip.AddrPort) error {
	if err := c.write(fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", origin)); err != nil {
		return err
	}
	var buf [1024]byte
	for n := 0; n < len(buf); {
		m, err := c.read(buf[n:])
		if err != nil {
			return err
		}
		n += m
		if bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
			if len(buf[:n]) < 12 || string(buf[9:12]) != "200" {
				return fmt.Errorf("answer %q", buf[:n])
			}
			return nil
		}
	}
	return errors.New("answer too long")
}

// socks5 is SOCKS5 without a password.
func socks5(c blocking, origin netip.AddrPort) error {
	var buf [10]byte
	if err := c.write([]byte{5, 1, 0}); err != nil {
		return err
	}
	if err := c.readFull(buf[:2]); err != nil {
		return err
	}
	ip := origin.Addr().As4()
	request := append([]byte{5, 1, 0, 1}, ip[:]...)
	request = binary.BigEndian.AppendUint16(request, origin.Port())
	if err := c.write(request); err != nil {
		return err
	}
	if err := c.readFull(buf[:]); err != nil {
		return err
	}
	if buf[1] != 0 {
		return fmt.Errorf("socks5: reply %d", buf[1])
	}
	return nil
}

// serverName is what routers by name are configured for.
const serverName = "origin.test"

// hello is a ClientHello, for relays that route by server name. The origin skips it.
func hello(c blocking, _ netip.AddrPort) error { return c.write(clientHello()) }

var clientHello = sync.OnceValue(func() []byte {
	client, server := net.Pipe()
	go func() { // ends with the handshake, which the close below ends
		tls.Client(client, &tls.Config{ServerName: serverName}).Handshake()
		client.Close()
	}()
	defer server.Close()
	buf := make([]byte, 4096)
	n, _ := server.Read(buf) // crypto/tls writes a record at once
	return buf[:n]
})

// blocking is a connected socket in blocking mode, with time limits.
type blocking int

// sources is how many addresses the clients come from. It bounds the connections
// of each: no port runs out, and no limit per client is met.
const sources = 32

var nextSource atomic.Uint32

// dial connects to a relay. A segment size other than zero is the largest that the
// relay sends.
func dial(to netip.AddrPort, segment int) (blocking, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	c := blocking(fd)
	limit := unix.Timeval{Sec: 5}
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if segment != 0 {
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, segment)
	}
	from := [4]byte{127, 0, 1, byte(1 + nextSource.Add(1)%sources)}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from}); err != nil {
		c.close()
		return 0, os.NewSyscallError("bind", err)
	}
	for {
		err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		switch err {
		case nil, unix.EISCONN: // the latter after EINTR
			return c, nil
		case unix.EINTR, unix.EALREADY:
		default:
			c.close()
			return 0, os.NewSyscallError("connect", err)
		}
	}
}

func (c blocking) close() { unix.Close(int(c)) }

func (c blocking) read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(c), p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, errors.New("read: connection closed")
		default:
			return n, nil
		}
	}
}

func (c blocking) readFull(p []byte) error {
	for len(p) > 0 {
		n, err := c.read(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (c blocking) write(p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(int(c), p)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("write", err)
		}
		p = p[max(n, 0):]
	}
	return nil
}

// tunnel opens a tunnel to origin and sends a byte through it and back.
func (r *running) tunnel(origin netip.AddrPort) (blocking, error) {
	c, err := dial(r.addr, r.segment)
	if err != nil {
		return 0, err
	}
	echo := []byte{askEcho}
	for _, step := range []func() error{
		func() error { return r.door(c, origin) },
		func() error { return c.write(echo) },
		func() error { return c.readFull(echo) },
		func() error { return isEcho(echo[0]) },
	} {
		if err := step(); err != nil {
			c.close()
			return 0, err
		}
	}
	return c, nil
}

// isEcho tells the origin's answer from what a relay may say instead.
func isEcho(b byte) error {
	if b != askEcho {
		return fmt.Errorf("the first byte of the answer is %#x", b)
	}
	return nil
}

// openers is how many tunnels are opened at the same time.
const openers = 8

// tunnels opens n tunnels, or as many as it can before the first error.
func (r *running) tunnels(ctx context.Context, origin netip.AddrPort, n int) ([]blocking, error) {
	var (
		mu    sync.Mutex
		list  []blocking // guarded by mu
		first error      // guarded by mu
		wg    sync.WaitGroup
		left  atomic.Int64
	)
	left.Store(int64(n))
	for range openers {
		wg.Go(func() {
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				c, err := r.tunnel(origin)
				mu.Lock()
				if err == nil {
					list = append(list, c)
				} else if first == nil {
					first = err
					left.Store(0)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if first == nil {
		first = ctx.Err()
	}
	if first != nil {
		closeAll(list)
		return nil, fmt.Errorf("%d of %d tunnels, then: %w", len(list), n, first)
	}
	return list, nil
}

func closeAll(list []blocking) {
	for _, c := range list {
		c.close()
	}
}
