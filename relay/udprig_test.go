package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// testFront takes a header of one byte, which is the last one of the client's
// address.
type testFront struct {
	once   bool
	target netip.AddrPort
	prefix []byte
	most   int // flows; 0 is any number

	mu sync.Mutex
	// guards
	refused map[netip.Addr]bool
	opened  []Origin
	open    int
	ends    []FlowEnd
	drops   map[Drop]int
}

func (f *testFront) Once() bool { return f.once }

func (f *testFront) Sender(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.refused[a]
}

func (f *testFront) Header(b []byte) (Claim, int, error) {
	switch {
	case len(b) == 0:
		return Claim{}, 0, errors.New("no header")
	case b[0] == 'L':
		return Claim{}, 1, nil
	}
	return Claim{
		Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, b[0]}), 1),
		Dst: netip.MustParseAddrPort("203.0.113.1:2"),
	}, 1, nil
}

func (f *testFront) Open(o Origin) (Upstream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.most > 0 && f.open >= f.most {
		return Upstream{}, fmt.Errorf("%w: %d", ErrFull, f.open)
	}
	if o.Src == (Claim{}).Src && f.refused[o.Sender.Addr()] {
		return Upstream{}, errors.New("refused")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Upstream{}, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(f.target.Port()), Addr: f.target.Addr().As4()}); err != nil {
		unix.Close(fd)
		return Upstream{}, err
	}
	f.opened = append(f.opened, o)
	f.open++
	return Upstream{FD: fd, Prefix: f.prefix, Closed: f.closed}, nil
}

func (f *testFront) closed(e FlowEnd) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	f.ends = append(f.ends, e)
}

func (f *testFront) Report() {}

func (f *testFront) Dropped(why Drop, _ netip.AddrPort, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.drops == nil {
		f.drops = make(map[Drop]int)
	}
	f.drops[why]++
}

// flowRig is Flows with a socket on loopback.
type flowRig struct {
	*Flows
	socket *FlowSocket
	addr   *net.UDPAddr
}

func newFlowRig(t testing.TB, front Front, address string) *flowRig {
	t.Helper()
	f, err := NewFlows()
	if err != nil {
		t.Fatal(err)
	}
	f.Idle(time.Minute)
	c := listenUDP(t, address)
	addr := c.LocalAddr().(*net.UDPAddr)
	s, err := f.Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Use(front)
	done := make(chan struct{})
	go func() { f.Run(); close(done) }()
	t.Cleanup(func() {
		f.Stop()
		f.End(Drained)
		<-done
	})
	return &flowRig{f, s, addr}
}

func listenUDP(t testing.TB, address string) *net.UDPConn {
	t.Helper()
	pc, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	return pc.(*net.UDPConn)
}

// echoUDP answers each datagram with itself.
func echoUDP(t testing.TB) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() { // until Cleanup
		b := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			pc.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (r *flowRig) dial(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, r.addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

func exchange(t testing.TB, c *net.UDPConn, send, want string) {
	t.Helper()
	b := make([]byte, 1<<16)
	if _, err := c.Write([]byte(send)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != want {
		t.Fatalf("sent %.40q: got %.40q, %v, want %.40q", send, b[:n], err, want)
	}
}
