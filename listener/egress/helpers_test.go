package egress_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"swivel/internal/netlab"
	"swivel/internal/resolver"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/listener/egress"
	"swivel/relay"
	"swivel/rotate"
)

// patience is how long a test waits for what must come. Nothing is asserted of
// how soon it does.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("swivel/relay.(*parkingLot).attend"))
}

// rig is a Door behind a listening socket. A test changes its fields in the
// function that it gives to newRig.
type rig struct {
	*egress.Door
	service  listener.Service
	gate     *listener.Gate
	table    listener.Table
	pool     *rotate.Pool
	dns      *netlab.DNS
	resolver resolver.Config

	addr      string // of the listening socket
	log       *accessLog
	sink      io.Writer          // where the log goes to; nil means log
	accepting context.CancelFunc // ends it
}

// newRig serves with a Door that leaves by 127.0.0.2, .3 and .4, and lets clients go
// to 127.0.0.0/8 on every port.
func newRig(t testing.TB, change func(*rig)) *rig {
	t.Helper()
	r := &rig{gate: listener.NewGate(20000), pool: new(rotate.Pool), log: newAccessLog()}
	r.gate.Limit(10000, 10000)
	r.pool.Set(rotate.Config{Strategy: rotate.RoundRobin}, sources("127.0.0.2", "127.0.0.3", "127.0.0.4"))
	r.dns = newDNS(t)
	r.resolver = resolver.Config{Servers: []netip.AddrPort{r.dns.AddrPort()}, Timeout: patience}
	r.Door = &egress.Door{
		Name:   "egress",
		Policy: &target.Policy{Allow: rules(t, "127.0.0.0/8"), Ports: allPorts},
		Dialer: &rotate.Dialer{Pool: r.pool},
		Head:   patience,
		Dial:   patience,
		Limits: relay.Limits{HalfClosed: patience},
	}
	r.service = listener.Service{Name: "egress", Door: r.Door}
	if change != nil {
		change(r)
	}
	if r.Lookup == nil {
		r.Lookup = resolver.New(r.resolver).Lookup
	}
	r.serve(t)
	return r
}

// serve runs the server until the test ends. Every client must have gone by then.
func (r *rig) serve(t testing.TB) {
	t.Helper()
	ln, err := listener.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	if r.sink == nil {
		r.sink = r.log
	}
	s := &listener.Server{Gate: r.gate, Table: &r.table, Log: zerolog.New(r.sink)}
	s.Use(&r.service)
	accept, stop := context.WithCancel(context.Background())
	r.accepting = stop
	served := make(chan error, 1)
	go func() { served <- s.Serve(accept, context.Background(), ln) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-served:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Errorf("%d clients are still served", r.table.Len())
			r.table.End(relay.Killed)
		}
	})
}

// newDNS serves UDP alone. A port that is free for TCP, too, is hard to find on a
// host that is busy with tests.
func newDNS(t testing.TB) *netlab.DNS {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return netlab.ListenDNS(t, pc, nil, map[string][]netip.Addr{"canary.test": {loopback}})
}

var (
	loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	allPorts = []target.PortRange{{From: 1, To: 65535}}
)

func sources(addrs ...string) (list []rotate.Source) {
	for _, a := range addrs {
		list = append(list, rotate.Source{Addr: netip.MustParseAddr(a)})
	}
	return list
}

func rules(t testing.TB, list ...string) (rs []target.Rule) {
	t.Helper()
	for _, s := range list {
		r, err := target.ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	return rs
}

// dial connects as a client.
func (r *rig) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	return dialFrom(t, "127.0.0.1", r.addr)
}

func dialFrom(t testing.TB, from, to string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// line is an access line.
type line struct {
	Message, Mode, User, Target, Address, Source, Reason, Mismatch, Error string

	Attempts, Status int
	Up, Down         int64
}

// accessLog is where a server writes its lines to.
type accessLog struct {
	mu    sync.Mutex
	all   bytes.Buffer // guarded by mu
	lines chan line
}

func newAccessLog() *accessLog { return &accessLog{lines: make(chan line, 20000)} }

func (a *accessLog) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all.Write(p)
	var l line
	if err := json.Unmarshal(p, &l); err != nil {
		return 0, err
	}
	a.lines <- l
	return len(p), nil
}

// text returns everything that was logged.
func (a *accessLog) text() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all.String()
}

// line waits for the next access line.
func (r *rig) line(t testing.TB) line {
	t.Helper()
	l := r.anyLine(t)
	if l.Message != "closed" {
		t.Errorf("log has %+v, want an access line", l)
	}
	return l
}

// anyLine waits for the next line of the log.
func (r *rig) anyLine(t testing.TB) line {
	t.Helper()
	select {
	case l := <-r.log.lines:
		return l
	case <-time.After(patience):
		t.Fatal("nothing more in the log")
		return line{}
	}
}

// await waits until there are n clients.
func (r *rig) await(n int) {
	for r.table.Len() != n {
		runtime.Gosched()
	}
}

// noLine checks that every line has been taken.
func (r *rig) noLine(t testing.TB) {
	t.Helper()
	select {
	case l := <-r.log.lines:
		t.Errorf("one line too many: %+v", l)
	default:
	}
}

// talk sends in, in one segment or many, and returns all that comes back. A reset
// counts as an end: closing with unread input leads to one.
func (r *rig) talk(t testing.TB, in string, segment int) string {
	t.Helper()
	c := r.dial(t)
	defer c.Close()
	go func() { // ends when the answer has been read, and c is closed
		for part := []byte(in); len(part) > 0; part = part[min(segment, len(part)):] {
			if _, err := c.Write(part[:min(segment, len(part))]); err != nil {
				return
			}
		}
	}()
	got, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after %q: %v", got, err)
	}
	return string(got)
}

// open makes a tunnel to the origin.
func (r *rig) open(t testing.TB, o *origin) (client, upstream *net.TCPConn) {
	t.Helper()
	client = r.dial(t)
	send(t, client, connectHead(o.String()))
	if got := readHead(t, client); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Fatalf("got %q", got)
	}
	return client, o.accept(t)
}
