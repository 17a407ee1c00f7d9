package rotate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// inNamespace runs the test that calls it once more, as a process in a namespace,
// and reports whether this is that process. A Dial whose attempts race has
// goroutines of its own, which Namespace.Do would leave outside.
func inNamespace(t *testing.T, setup func(*netlab.Namespace)) bool {
	t.Helper()
	const variable = "ROTATE_TEST_IN_NAMESPACE"
	if os.Getenv(variable) != "" {
		return true
	}
	ns := netlab.New(t).Namespace("a")
	setup(ns)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := ns.Command(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), variable+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in the namespace: %v\n%s", err, out)
	}
	return false
}

// ports is how many each source has in the namespaces below. All of 127.0.0.0/8
// is local there, as everywhere.
const ports = 2

func fewPorts(ns *netlab.Namespace) {
	ns.Run("sh", "-c", fmt.Sprintf("echo 40000 %d > /proc/sys/net/ipv4/ip_local_port_range", 40000+ports-1))
}

// listen accepts what comes to address and holds it until the test ends.
func listen(t *testing.T, address string) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return netip.MustParseAddrPort(address)
}

// exhaust connects from all the ports of n sources.
func exhaust(t *testing.T, p *Pool, n int, dst netip.AddrPort) (open []*Upstream) {
	t.Helper()
	for i := range n * ports {
		up, err := dial(t, p, dst)
		if err != nil {
			t.Fatalf("connection %d of %d: %v", i, n*ports, err)
		}
		open = append(open, up)
	}
	return open
}

// S7: ports are counted for each source and each destination.
func TestDialExhausted(t *testing.T) {
	if !inNamespace(t, fewPorts) {
		return
	}
	web1, web2 := listen(t, "127.0.0.1:443"), listen(t, "127.0.0.2:443")
	p := pool(RoundRobin, "127.0.1.1", "127.0.1.2", "127.0.1.3")
	exhaust(t, p, 3, web1)

	_, err := dial(t, p, web1)
	if derr, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, ErrExhausted) || derr.Attempts != 3 {
		t.Errorf("no port is left: got %v, want ErrExhausted after each source was tried", err)
	}
	up, err := dial(t, p, web1, web2)
	if err != nil {
		t.Fatalf("another address of the name: %v", err)
	}
	if got := up.RemoteAddr().String(); got != web2.String() || up.Attempts != 4 {
		t.Errorf("connected to %s after %d attempts, want %s after 4", got, up.Attempts, web2)
	}
}

// A large pool is not searched to its end each time, and yet all of it is used.
func TestDialExhaustedPool(t *testing.T) {
	if !inNamespace(t, fewPorts) {
		return
	}
	const sources = maxExhausted + 20
	var addrs []string
	for i := range sources {
		addrs = append(addrs, fmt.Sprintf("127.0.1.%d", i))
	}
	web := listen(t, "127.0.0.1:443")
	p := pool(RoundRobin, addrs...)
	open := exhaust(t, p, sources, web)

	free := open[sources-1] // by the last source
	free.SetLinger(0)
	free.Close()
	free.Done()
	_, err := dial(t, p, web)
	if derr, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, ErrExhausted) || derr.Attempts != maxExhausted {
		t.Errorf("first: got %v, want ErrExhausted after %d attempts", err, maxExhausted)
	}
	up, err := dial(t, p, web)
	if err != nil {
		t.Fatalf("second: %v", err)
	}
	if up.Source.Addr != free.Source.Addr || up.Attempts != sources-maxExhausted {
		t.Errorf("second: by %s after %d attempts, want %s after %d", up.Source.Addr, up.Attempts, free.Source.Addr, sources-maxExhausted)
	}
}
