//go:build !race

package egress_test

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// maxAllocations is how many a CONNECT connection may cost, from accept to the access
// line.
const maxAllocations = 25

// Both of its ends are system calls alone, which allocate nothing: what is counted is
// the proxy's.
func TestConnectAllocations(t *testing.T) {
	r := newRig(t, func(r *rig) { r.sink = io.Discard })
	proxy := sockaddr(netip.MustParseAddrPort(r.addr))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	origin := int(file.Fd()) // blocks
	request := []byte(connectHead(ln.Addr().String()))
	buf := make([]byte, 1024)
	got := testing.AllocsPerRun(200, func() {
		client := must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
		if err := unix.Connect(client, proxy); err != nil {
			panic(err)
		}
		must(unix.Write(client, request))
		server, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(origin), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
		if errno != 0 {
			panic(errno)
		}
		must(unix.Read(client, buf)) // 200
		must(unix.Write(client, buf[:1]))
		must(unix.Read(int(server), buf))
		must(unix.Write(int(server), buf[:1]))
		must(unix.Read(client, buf))
		unix.Close(client)
		must(unix.Read(int(server), buf)) // the end
		unix.Close(int(server))
		r.await(0)
	})
	if got > maxAllocations {
		t.Errorf("%v allocations, want at most %d", got, maxAllocations)
	}
	t.Logf("%v allocations", got)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func must(n int, err error) int {
	if err != nil {
		panic(err)
	}
	return n
}
