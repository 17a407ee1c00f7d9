package sockopt

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// get reads an option back from the kernel.
func get(t *testing.T, c syscall.Conn, level, opt int) int {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	var gerr error
	if err := rc.Control(func(fd uintptr) { v, gerr = unix.GetsockoptInt(int(fd), level, opt) }); err != nil {
		t.Fatal(err)
	}
	if gerr != nil {
		t.Fatal(gerr)
	}
	return v
}

func TestAcceptedSocketsInherit(t *testing.T) {
	lc := net.ListenConfig{
		Control:         Control(KeepAlive(30*time.Second, 10*time.Second, 3), UserTimeout(1500*time.Millisecond)),
		KeepAliveConfig: net.KeepAliveConfig{Enable: false},
		KeepAlive:       -1,
	}
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for _, tt := range []struct {
		name             string
		level, opt, want int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.SOL_TCP, unix.TCP_KEEPIDLE, 30},
		{"TCP_KEEPINTVL", unix.SOL_TCP, unix.TCP_KEEPINTVL, 10},
		{"TCP_KEEPCNT", unix.SOL_TCP, unix.TCP_KEEPCNT, 3},
		{"TCP_USER_TIMEOUT", unix.SOL_TCP, unix.TCP_USER_TIMEOUT, 1500},
	} {
		if got := get(t, in.(*net.TCPConn), tt.level, tt.opt); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestBindLaterLeavesThePortOpen(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := BindLater(fd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if port := sa.(*unix.SockaddrInet4).Port; port != 0 {
		t.Errorf("port after bind: got %d, want 0", port)
	}
}

func TestFreeBindTakesAForeignAddress(t *testing.T) {
	foreign := &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 77}}
	for _, free := range []bool{false, true} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if free {
			if err := FreeBind(fd); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Bind(fd, foreign); (err == nil) != free {
			t.Errorf("free %v: bind: %v", free, err)
		}
	}
}

func TestTransparentTakesAForeignAddress(t *testing.T) {
	for _, tt := range []struct {
		family  int
		foreign unix.Sockaddr
	}{
		{unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{203, 0, 113, 77}, Port: 7777}},
		{unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 77}, Port: 7777}},
	} {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			fd, err := unix.Socket(tt.family, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Skip(err) // no IPv6, say
			}
			defer unix.Close(fd)
			if err := unix.Bind(fd, tt.foreign); err == nil {
				t.Errorf("bound to %+v without", tt.foreign)
			}
			switch err := Transparent(fd); {
			case errors.Is(err, unix.EPERM):
				t.Skip(err)
			case err != nil:
				t.Fatal(err)
			}
			if err := unix.Bind(fd, tt.foreign); err != nil {
				t.Errorf("%+v: %v", tt.foreign, err)
			}
		}
	}
}

func TestErrorNamesTheOption(t *testing.T) {
	for name, o := range map[string]Option{
		"IP_FREEBIND": FreeBind, "IP_TRANSPARENT": Transparent, "SO_REUSEADDR": ReuseAddr, "IP_BIND_ADDRESS_NO_PORT": BindLater,
		"TCP_USER_TIMEOUT": UserTimeout(time.Second), "SO_KEEPALIVE": KeepAlive(time.Second, time.Second, 1), "SO_MARK": Mark(1),
	} {
		if err := o(-1); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s on a bad descriptor: %v", name, err)
		}
	}
}
