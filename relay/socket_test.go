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
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
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
	// What is accepted inherits it.
	control(t, ln, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) })
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
	ln.Close()
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return s, c
}

// acceptedPair is socketPair, but of a Socket that was accepted.
func acceptedPair(t testing.TB) (*Socket, *net.TCPConn) {
	t.Helper()
	ln, to := listen(t)
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	var s *Socket
	control(t, ln, func(fd int) (err error) {
		s, err = Accept(fd)
		return err
	})
	ln.Close()
	t.Cleanup(func() { s.Close() })
	return s, c
}

func TestAccept(t *testing.T) {
	ln, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Skip(err) // no IPv6
	}
	defer ln.Close()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var s *Socket
		raw.Control(func(fd uintptr) { s, err = Accept(int(fd)) })
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if s.LocalAddr().String() != c.RemoteAddr().String() || s.RemoteAddr().String() != c.LocalAddr().String() {
			t.Errorf("from %v to %v; the peer has %v, %v", s.RemoteAddr(), s.LocalAddr(), c.LocalAddr(), c.RemoteAddr())
		}
		if addr := netip.MustParseAddr(host); s.Local().Addr() != addr || s.Remote().Addr() != addr {
			t.Errorf("%s: the ends are %v and %v", host, s.Local(), s.Remote())
		}
	}
	raw.Control(func(fd uintptr) { _, err = Accept(int(fd)) })
	if err != unix.EAGAIN {
		t.Errorf("with none in the queue: got %v", err)
	}
	raw.Control(func(fd uintptr) { _, err = Accept(1 << 20) })
	if call, ok := errors.AsType[*os.SyscallError](err); !ok || call.Syscall != "accept4" || !errors.Is(err, unix.EBADF) {
		t.Errorf("of no socket: got %v", err)
	}
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
	control(t, full, func(fd int) error { return unix.Listen(fd, 0) })
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

// A Socket is a net.Conn like others for who does not relay it.
func TestSocketConn(t *testing.T) {
	t.Run("connected", func(t *testing.T) { isConn(t, socketPair) })
	t.Run("accepted", func(t *testing.T) { isConn(t, acceptedPair) })
}

func isConn(t *testing.T, pair func(testing.TB) (*Socket, *net.TCPConn)) {
	s, c := pair(t)
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

// Deadlines hold before anybody has waited, when there is nothing yet to have them.
func TestSocketDeadlines(t *testing.T) {
	past := time.Unix(1, 0)
	for what, try := range map[string]func(s *Socket) error{
		"read":  func(s *Socket) error { return second(s.Read(make([]byte, 1))) },
		"peek":  func(s *Socket) error { return second(s.Peek(make([]byte, 1))) },
		"write": func(s *Socket) error { return second(s.Write(make([]byte, 1))) },
	} {
		s, c := socketPair(t)
		mustWrite(t, c, []byte("ab"))
		awaitInput(t, s)
		s.SetDeadline(past)
		for range 2 {
			if err := try(s); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: got %v, want a timeout", what, err)
			}
		}
		s.SetDeadline(time.Now().Add(patience))
		if err := try(s); err != nil {
			t.Errorf("%s: got %v after a later deadline", what, err)
		}
		if file := s.file; file == nil {
			t.Errorf("%s: nobody has waited", what)
		}
	}
	s, _ := socketPair(t)
	s.SetReadDeadline(past)
	if n, err := s.Write([]byte("a")); n != 1 || err != nil {
		t.Errorf("a deadline to read ended a write: %v", err)
	}
	s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if err := second(s.Read(make([]byte, 1))); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
}

// Who never waits never joins the runtime's poller.
func TestSocketStaysOut(t *testing.T) {
	s, c := acceptedPair(t)
	s.SetDeadline(time.Now().Add(patience))
	mustWrite(t, c, []byte("abc"))
	awaitInput(t, s)
	wantRead(t, s, []byte("ab"))
	mustWrite(t, s, []byte("d"))
	wantRead(t, c, []byte("d"))
	if s.file != nil {
		t.Error("it has joined")
	}
}

func TestSocketPeek(t *testing.T) {
	s, c := acceptedPair(t)
	b := make([]byte, 10)
	peeked := make(chan error)
	go func() {
		n, err := s.Peek(b)
		if err == nil && string(b[:n]) != "abc" {
			err = errors.New("peeked " + string(b[:n]))
		}
		peeked <- err
	}()
	eventuallyWaits(t, s)
	mustWrite(t, c, []byte("abc"))
	if err := <-peeked; err != nil {
		t.Error(err)
	}
	wantRead(t, s, []byte("abc"))
	mustCloseWrite(t, c)
	if n, err := s.Peek(b); n != 0 || err != io.EOF {
		t.Errorf("at the end: got %d, %v", n, err)
	}
}

// awaitInput waits until there is something to be read from s.
func awaitInput(t *testing.T, s *Socket) {
	t.Helper()
	p := []unix.PollFd{{Fd: s.fd, Events: unix.POLLIN}}
	if n, err := unix.Poll(p, int(patience.Milliseconds())); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

// eventuallyWaits waits until somebody waits for s.
func eventuallyWaits(t *testing.T, s *Socket) {
	t.Helper()
	eventually(t, "waiting", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.file != nil
	})
}

// Closing ends who waits.
func TestSocketCloseInterrupts(t *testing.T) {
	for what, wait := range map[string]func(s *Socket) error{
		"read": func(s *Socket) error { return second(s.Read(make([]byte, 1))) },
		"raw": func(s *Socket) error {
			raw, err := s.SyscallConn()
			if err != nil {
				return err
			}
			return raw.Read(func(uintptr) bool { return false })
		},
	} {
		s, _ := socketPair(t)
		waited := make(chan error)
		go func() { waited <- wait(s) }()
		eventuallyWaits(t, s)
		s.Close()
		if err := <-waited; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
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

// What a Pipe has to do with a Socket, also with one that is in the runtime's poller
// because somebody has waited for it.
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
			in, client := acceptedPair(t)
			out, server := socketPair(t)
			if blocking {
				in.blocking()
				out.blocking()
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
