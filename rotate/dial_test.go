package rotate

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"swivel/internal/sockopt"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("swivel/relay.(*parkingLot).attend"))
}

// server accepts and closes what it accepted at the end of the test; it tells the
// address that each connection came from.
func server(t *testing.T, address string) (netip.AddrPort, <-chan netip.Addr) {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip(err) // no IPv6
	}
	t.Cleanup(func() { ln.Close() })
	from := make(chan netip.Addr, 100)
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			from <- c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
			c.Close()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort(), from
}

// silent returns an address that answers no SYN: its backlog is full.
func silent(t *testing.T, address netip.Addr) netip.AddrPort {
	t.Helper()
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if address.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: address.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, sa); err != nil {
		t.Skip(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, _ := unix.Getsockname(fd)
	var port int
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		port = name.Port
	case *unix.SockaddrInet6:
		port = name.Port
	}
	ap := netip.AddrPortFrom(address, uint16(port))
	c, err := net.Dial("tcp", ap.String()) // the one that the backlog has room for
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return ap
}

// closed returns an address that refuses.
func closed(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func dial(t *testing.T, p *Pool, addrs ...netip.AddrPort) (*Upstream, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	up, err := (&Dialer{Pool: p, Options: []sockopt.Option{sockopt.UserTimeout(time.Minute)}}).Dial(ctx, Request{Addrs: addrs})
	if err == nil {
		t.Cleanup(func() { up.Close() })
	}
	return up, err
}

func TestDialRotates(t *testing.T) {
	dst, from := server(t, "127.0.0.1:0")
	p := pool(RoundRobin, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	for _, want := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.2"} {
		up, err := dial(t, p, dst)
		if err != nil {
			t.Fatal(err)
		}
		if got := <-from; got != netip.MustParseAddr(want) || up.Source.Addr != got || up.Attempts != 1 {
			t.Errorf("got %s, %d attempts, server saw %s; want %s", up.Source.Addr, up.Attempts, got, want)
		}
		up.Done()
	}
}

// The unspecified address is no source that a socket is bound to: the kernel chooses.
func TestDialUnspecified(t *testing.T) {
	d := &Dialer{Pool: new(Pool)}
	d.Pool.Set(Config{}, []Source{{Addr: netip.IPv4Unspecified()}, {Addr: netip.IPv6Unspecified()}})
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		dst, from := server(t, address)
		up, err := d.Dial(t.Context(), Request{Addrs: []netip.AddrPort{dst}})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-from; got != dst.Addr() || up.Addr != dst {
			t.Errorf("left by %v for %v", got, up.Addr)
		}
		up.Close()
		up.Done()
	}
}

func TestDialMovesOnFromSource(t *testing.T) {
	const foreign = "203.0.113.77" // on no interface
	dst, from := server(t, "127.0.0.1:0")
	t.Run("that is gone", func(t *testing.T) {
		up, err := dial(t, pool(RoundRobin, foreign, "127.0.0.3"), dst)
		if err != nil {
			t.Fatal(err)
		}
		if got := <-from; got != netip.MustParseAddr("127.0.0.3") || up.Attempts != 2 {
			t.Errorf("server saw %s after %d attempts, want 127.0.0.3 after 2", got, up.Attempts)
		}
	})
	t.Run("and says so when there is no other", func(t *testing.T) {
		_, err := dial(t, pool(RoundRobin, foreign, "203.0.113.78"), dst)
		if !errors.Is(err, ErrNoSource) {
			t.Errorf("got %v, want ErrNoSource", err)
		}
	})
	t.Run("but not when the destination refuses", func(t *testing.T) {
		p := pool(RoundRobin, "127.0.0.2", "127.0.0.3")
		_, err := dial(t, p, closed(t))
		derr, ok := errors.AsType[*Error](err)
		if !ok || !errors.Is(err, syscall.ECONNREFUSED) || derr.Attempts != 1 || derr.Source.Addr != netip.MustParseAddr("127.0.0.2") {
			t.Errorf("got %v", err)
		}
	})
}

func TestDialNoSource(t *testing.T) {
	dst, _ := server(t, "127.0.0.1:0")
	for _, p := range []*Pool{{}, pool(RoundRobin, "fd00::1")} {
		if _, err := dial(t, p, dst); !errors.Is(err, ErrNoSource) {
			t.Errorf("got %v, want ErrNoSource", err)
		}
	}
	if _, err := dial(t, pool(RoundRobin, "127.0.0.2")); !errors.Is(err, ErrNoSource) {
		t.Errorf("no address: got %v, want ErrNoSource", err)
	}
}

// U1: the next address of a name is tried at once.
func TestDialNextAddress(t *testing.T) {
	dst, _ := server(t, "127.0.0.1:0")
	p := pool(RoundRobin, "127.0.0.2", "127.0.0.3")
	up, err := dial(t, p, closed(t), dst)
	if err != nil {
		t.Fatal(err)
	}
	if up.Attempts != 2 || up.Source.Addr != netip.MustParseAddr("127.0.0.2") {
		t.Errorf("got %d attempts from %s, want 2, both from 127.0.0.2", up.Attempts, up.Source.Addr)
	}
}

func TestDialRace(t *testing.T) {
	dst4, _ := server(t, "127.0.0.1:0")
	p := pool(RoundRobin, "127.0.0.2", "::1")
	slow := silent(t, netip.IPv6Loopback())
	t.Run("a silent address is overtaken, its turn given back", func(t *testing.T) {
		up, err := dial(t, p, slow, dst4)
		if err != nil {
			t.Fatal(err)
		}
		if up.Source.Addr != netip.MustParseAddr("127.0.0.2") || up.Attempts != 2 {
			t.Errorf("got %s after %d attempts", up.Source.Addr, up.Attempts)
		}
		up.Done()
		for _, use := range p.Sources() {
			if use.Open != 0 {
				t.Errorf("%s: %d open, want 0", use.Addr, use.Open)
			}
		}
	})
	t.Run("time runs out", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := (&Dialer{Pool: p}).Dial(ctx, Request{Addrs: []netip.AddrPort{slow}})
		if !isTimeout(err) {
			t.Errorf("got %v, want a timeout", err)
		}
	})
}

func TestLoserTurnGivenBack(t *testing.T) {
	dst4, _ := server(t, "127.0.0.1:0")
	refused6 := netip.AddrPortFrom(netip.IPv6Loopback(), closed(t).Port())
	p := pool(RoundRobin, "127.0.0.2", "::1", "2001:db8::7")
	for range 3 {
		up, err := dial(t, p, refused6, dst4)
		if err != nil {
			t.Fatal(err)
		}
		up.Done()
	}
	if turn, _ := p.Next(&Request{}, dst6, nil); turn.Addr != netip.IPv6Loopback() {
		t.Errorf("next IPv6 source: got %s, want ::1 still", turn.Addr)
	}
}

func BenchmarkDial(b *testing.B) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // ends with c
				c.Read(make([]byte, 1))
				c.Close()
			}()
		}
	}()
	dst := []netip.AddrPort{ln.Addr().(*net.TCPAddr).AddrPort()}
	d := Dialer{Pool: pool(RoundRobin, "127.0.0.2", "127.0.0.3")}
	b.ReportAllocs()
	for b.Loop() {
		up, err := d.Dial(b.Context(), Request{Addrs: dst})
		if err != nil {
			b.Fatal(err)
		}
		up.SetLinger(0)
		up.Close()
		up.Done()
	}
}
