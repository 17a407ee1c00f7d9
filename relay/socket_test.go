package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newSocket(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func listen(t testing.TB) (*net.TCPListener, netip.AddrPort) {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	a := ln.Addr().(*net.TCPAddr).AddrPort()
	return ln, netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// socketPair returns a Socket and its peer.
func socketPair(t testing.TB) (*Socket, *net.TCPConn) {
	t.Helper()
	ln, to := listen(t)
	s, err := Connect(t.Context(), newSocket(t), to, time.Now().Add(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return s, c
}

func TestConnect(t *testing.T) {
	nextLot() // opens them all
	start := descriptors(t)
	t.Run("connects", func(t *testing.T) {
		s, c := socketPair(t)
		if s.LocalAddr().String() != c.RemoteAddr().String() || s.RemoteAddr().String() != c.LocalAddr().String() {
			t.Errorf("from %v to %v; the peer has %v, %v", s.LocalAddr(), s.RemoteAddr(), c.LocalAddr(), c.RemoteAddr())
		}
	})
	t.Run("is refused", func(t *testing.T) {
		ln, to := listen(t)
		ln.Close()
		_, err := Connect(t.Context(), newSocket(t), to, time.Now().Add(patience))
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Error(err)
		}
		if call, ok := errors.AsType[*os.SyscallError](err); !ok || call.Syscall != "connect" {
			t.Errorf("%v: not by connect(2)", err)
		}
	})
	// With a full backlog SYN is dropped.
	full, to := listen(t)
	control2(t, full, func(fd int) error { return unix.Listen(fd, 0) })
	var queued []*Socket
	for {
		s, err := Connect(t.Context(), newSocket(t), to, time.Now().Add(200*time.Millisecond))
		if err != nil {
			if nerr, ok := errors.AsType[net.Error](err); !ok || !nerr.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v: no timeout", err)
			}
			break
		}
		queued = append(queued, s)
	}
	t.Run("is canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel() // ends at once
		if _, err := Connect(ctx, newSocket(t), to, time.Time{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for _, s := range queued {
		s.Close()
	}
	full.Close()
	if n := descriptors(t); n != start {
		t.Errorf("%d descriptors at the end, %d at the start", n, start)
	}
}

func control2(t *testing.T, ln *net.TCPListener, f func(fd int) error) {
	t.Helper()
	raw, err := ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil || ferr != nil {
		t.Fatal(err, ferr)
	}
}

// A Socket is a net.Conn like others for who does not relay it.
func TestSocketConn(t *testing.T) {
	s, c := socketPair(t)
	b := random(1 << 20)
	go mustWrite(t, c, b)
	wantRead(t, s, b)
	go mustWrite(t, s, b)
	wantRead(t, c, b)

	s.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := s.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	s.SetReadDeadline(time.Time{})
	mustCloseWrite(t, s)
	wantAll(t, c, nil)
	mustWrite(t, c, b[:1])
	mustCloseWrite(t, c)
	wantAll(t, s, b[:1])
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, err := range []error{s.Close(), s.CloseWrite(), s.SetDeadline(time.Time{}), s.SetLinger(0), second(s.Read(b)), second(s.Write(b))} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("once closed: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// Closing ends who waits.
func TestSocketCloseInterrupts(t *testing.T) {
	s, _ := socketPair(t)
	read := make(chan error)
	go func() {
		_, err := s.Read(make([]byte, 1))
		read <- err
	}()
	eventually(t, "reading", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.file != nil
	})
	s.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestSocketReset(t *testing.T) {
	s, c := socketPair(t)
	reset(c)
	if _, err := io.ReadAll(s); !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	s, c = socketPair(t)
	Abort(s)
	wantReset(t, c)
}

// What a Pipe has to do with a Socket: in a lot, or with a goroutine because it was
// read from before.
func TestSocketTunnel(t *testing.T) {
	for _, blocking := range []bool{false, true} {
		for _, end := range []struct {
			how  func(client, server *net.TCPConn, p *Pipe)
			want Reason
		}{
			{func(client, server *net.TCPConn, _ *Pipe) { client.Close(); server.Close() }, ""},
			{func(_, server *net.TCPConn, _ *Pipe) { reset(server) }, UpstreamReset},
			{func(client, _ *net.TCPConn, _ *Pipe) { reset(client) }, ClientReset},
			{func(_, _ *net.TCPConn, p *Pipe) { p.End(Killed) }, Killed},
		} {
			client, in := tcpPair(t)
			in.SetDeadline(time.Time{})
			out, server := socketPair(t)
			if blocking {
				out.SetDeadline(time.Time{})
			}
			p := NewPipe(in, out, Limits{UserTimeout: time.Minute})
			ended := make(chan Reason)
			go func() {
				r, _ := p.Run()
				ended <- r
			}()
			b := random(3 << 20)
			for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
				go mustWrite(t, way[0], b)
				wantRead(t, way[1], b)
			}
			end.how(client, server, p)
			if got := <-ended; got != end.want && end.want != "" {
				t.Errorf("got %s, want %s", got, end.want)
			}
		}
	}
}

// io.Copy finds the data path from a Socket as well.
func TestSocketCopy(t *testing.T) {
	client, in := tcpPair(t)
	out, server := socketPair(t)
	b := random(2 << 20)
	before := written(t)
	go func() {
		mustWrite(t, server, b)
		mustCloseWrite(t, server)
	}()
	go func() {
		io.Copy(NewConn(in, nil), NewConn(out, nil))
		in.CloseWrite()
	}()
	wantAll(t, client, b)
	if relayed := written(t) - before - len(b); relayed > len(b)/4 {
		t.Errorf("wrote %d of %d bytes itself", relayed, len(b))
	}
}

func BenchmarkConnect(b *testing.B) {
	ln, to := listen(b)
	go func() { // ends with ln
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			reset(c)
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		s, err := Connect(b.Context(), newSocket(b), to, time.Now().Add(patience))
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
