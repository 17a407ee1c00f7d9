package egress_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"swivel/internal/netlab"
	"swivel/internal/sockopt"
	"swivel/rotate"
)

// slowLookup finds 127.0.0.1 for every name, after a while.
func slowLookup(d time.Duration) func(context.Context, string) ([]netip.Addr, error) {
	return func(context.Context, string) ([]netip.Addr, error) {
		<-time.After(d)
		return []netip.Addr{loopback}, nil
	}
}

func failingLookup(err error) func(context.Context, string) ([]netip.Addr, error) {
	return func(context.Context, string) ([]netip.Addr, error) { return nil, err }
}

// fullBacklog returns an address that answers no SYN.
func fullBacklog(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
	c, err := net.Dial("tcp", addr) // the one that the backlog has room for
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return addr
}

// answerTo is a row of the table of answers.
type answerTo struct {
	name   string
	target string // "" is the origin
	change func(*testing.T, *rig)
	want   string // $T is the target
	field  string
	rep    byte
	sends  bool // the origin may be connected to, DNS may be asked
}

var answersToTargets = []answerTo{
	{name: "address denied", target: "10.1.2.3:443", want: "403 destination_ip_prohibited", rep: 2},
	{name: "what a name leads to denied", target: "private.test:443", want: "403 destination_ip_prohibited", rep: 2, sends: true,
		change: func(_ *testing.T, r *rig) { r.dns.Set("private.test", netip.MustParseAddr("10.1.2.3")) }},
	{name: "name denied", target: "a.denied.test:443", want: "403 http_request_denied name", rep: 2,
		change: func(t *testing.T, r *rig) { r.Policy.Deny = rules(t, "*.denied.test") }},
	{name: "port denied", want: "403 http_request_denied port", rep: 2,
		change: func(_ *testing.T, r *rig) { r.Policy.Ports = nil }},
	{name: "loop", want: "502 proxy_loop_detected", rep: 2,
		change: func(_ *testing.T, r *rig) { r.Policy.Loop = func(netip.AddrPort) bool { return true } }},
	{name: "malformed", target: "2130706433:443", want: "400 http_request_error bad target", rep: 1},

	{name: "no source", want: "503 proxy_configuration_error no source address", rep: 1,
		change: func(_ *testing.T, r *rig) { r.pool.Set(rotate.Config{Strategy: rotate.RoundRobin}, nil) }},
	{name: "no source for a name", target: "canary.test:443", want: "503 proxy_configuration_error no source address", rep: 1,
		change: func(_ *testing.T, r *rig) { r.pool.Set(rotate.Config{Strategy: rotate.RoundRobin}, nil) }},
	{name: "no source of the family", want: "503 proxy_configuration_error no source address", rep: 1,
		change: func(_ *testing.T, r *rig) { r.pool.Set(rotate.Config{Strategy: rotate.RoundRobin}, sources("::1")) }},
	{name: "no source that is there", want: "503 proxy_configuration_error no source address", rep: 1,
		change: func(_ *testing.T, r *rig) {
			r.pool.Set(rotate.Config{Strategy: rotate.RoundRobin}, sources("203.0.113.77", "203.0.113.78"))
		}},
	{name: "sources exhausted", want: "503 connection_limit_reached every source address is exhausted", field: "Retry-After: 1", rep: 1,
		change: func(_ *testing.T, r *rig) { r.failSockets(syscall.EADDRINUSE) }},
	{name: "out of sockets", want: "503 connection_limit_reached out of sockets", field: "Retry-After: 1", rep: 1,
		change: func(_ *testing.T, r *rig) { r.failSockets(syscall.EMFILE) }},
	{name: "shutting down", target: "canary.test:443", want: "503 connection_limit_reached shutting down", field: "Retry-After: 1", rep: 1,
		change: func(_ *testing.T, r *rig) { r.Lookup = failingLookup(context.Canceled) }},
	{name: "our fault", target: "canary.test:443", want: "500 proxy_internal_error", rep: 1,
		change: func(_ *testing.T, r *rig) { r.Lookup = failingLookup(errors.New("out of order")) }},

	{name: "no such name", target: "absent.test:443", want: "502 dns_error no such name", rep: 4, sends: true},
	{name: "DNS fails", target: "canary.test:443", want: "502 dns_error no answer from the name server", rep: 4, sends: true,
		change: func(t *testing.T, r *rig) {
			r.dns.Hook(func(q netlab.DNSQuery) ([][]byte, bool) {
				q.Reply.RCode = dnsmessage.RCodeServerFailure
				return [][]byte{q.Pack(t)}, true
			})
		}},
	{name: "DNS is silent", target: "canary.test:443", want: "504 dns_timeout", rep: 4, sends: true,
		change: func(_ *testing.T, r *rig) {
			r.resolver.Timeout = 50 * time.Millisecond
			r.dns.Hook(func(netlab.DNSQuery) ([][]byte, bool) { return nil, true })
		}},
	{name: "DNS is slower than a connection may be", target: "canary.test:443", want: "504 dns_timeout", rep: 4, sends: true,
		change: func(_ *testing.T, r *rig) {
			r.Dial = 50 * time.Millisecond
			r.dns.Hook(func(netlab.DNSQuery) ([][]byte, bool) { return nil, true })
			r.resolver.Timeout = time.Second
		}},

	{name: "U1 refused", target: "closed", want: "502 connection_refused $T", rep: 5},
	{name: "U2 timed out", target: "silent", want: "504 connection_timeout $T", rep: 6,
		change: func(_ *testing.T, r *rig) { r.Dial = 100 * time.Millisecond }},
	{name: "U4 unroutable", target: "192.0.2.1:443", want: "502 destination_ip_unroutable $T", rep: 3,
		change: func(t *testing.T, r *rig) { r.Policy.Allow = rules(t, "192.0.2.0/24") }},
	{name: "U4 blackhole route", want: "502 destination_ip_unroutable $T", rep: 3,
		change: func(_ *testing.T, r *rig) { r.failSockets(syscall.EINVAL) }},
	{name: "U4 prohibit route", want: "502 destination_ip_unroutable $T", rep: 3,
		change: func(_ *testing.T, r *rig) { r.failSockets(syscall.EACCES) }},
}

// failSockets makes every attempt to connect fail as if the kernel had said so.
func (r *rig) failSockets(errno syscall.Errno) {
	r.Dialer.Options = []sockopt.Option{func(int) error { return errno }}
}

// Every cause has the same answer in each protocol, and one line in the log.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range answersToTargets {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) {
				if tt.change != nil {
					tt.change(t, r)
				}
			})
			o := newOrigin(t)
			switch tt.target {
			case "":
				tt.target = o.String()
			case "closed":
				tt.target = closedPort(t)
			case "silent":
				tt.target = fullBacklog(t)
			}
			tt.check(t, r)
			if tt.sends {
				o.untouched(t)
				return
			}
			wantNothingDone(t, r, o)
		})
	}
}

func (tt *answerTo) check(t *testing.T, r *rig) {
	t.Helper()
	host, port, _ := strings.Cut(tt.target, ":")
	n, _ := strconv.Atoi(port)
	want := strings.ReplaceAll(tt.want, "$T", tt.target)
	whole := refusal(want)
	if tt.field != "" {
		whole = refusal(want, tt.field)
	}
	status, _ := strconv.Atoi(want[:3])
	for _, p := range []struct {
		mode, in, want string
		status         int
	}{
		{"connect", connectHead(tt.target), whole, status},
		{"http", "GET http://" + tt.target + "/ HTTP/1.1\r\nHost: a\r\n\r\n", whole, status},
		{"socks5", "\x05\x01\x00" + socksName(host, uint16(n)), "\x05\x00" + socksRefusal(tt.rep), 0},
	} {
		if got := r.talk(t, p.in, 64<<10); got != p.want {
			t.Errorf("%s: got %q, want %q", p.mode, got, p.want)
		}
		l := r.line(t)
		if l.Mode != p.mode || l.Status != p.status || l.Reason != strings.Fields(want)[1] || l.Error == "" {
			t.Errorf("%s: line %+v", p.mode, l)
		}
		if malformed := status == 400; malformed != (l.Target == "") || !malformed && l.Target != tt.target {
			t.Errorf("%s: target %q, want %q", p.mode, l.Target, tt.target)
		}
	}
}

// What a listener refuses without looking at the request.
func TestRefuse(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*rig)
		want   string
		field  []string
		rep    byte
	}{
		{"client address", func(r *rig) { r.service.Clients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} },
			"403 http_request_denied client address", nil, 2},
		{"per client", func(r *rig) { r.gate.Limit(10, 0) },
			"429 http_request_error too many connections from this client", []string{"Retry-After: 1"}, 1},
		{"in all", func(r *rig) { r.gate.Limit(0, 10) },
			"503 connection_limit_reached", []string{"Retry-After: 1"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.change)
			o := newOrigin(t)
			for in, want := range map[string]string{
				connectHead(o.String()): refusal(tt.want, tt.field...),
				"GET http://" + o.String() + "/ HTTP/1.1\r\nHost: a\r\n\r\n": refusal(tt.want, tt.field...),
				"\x05\x01\x00" + socksAddr(o.AddrPort):                       "\x05\x00" + socksRefusal(tt.rep),
				"\x05\x01\x02":                                               "\x05\xff",
				"\x16\x03\x01":                                               "",
				"":                                                           "",
			} {
				c := r.dial(t)
				send(t, c, in)
				c.CloseWrite()
				got := make([]byte, 1000)
				n := 0
				for m, err := c.Read(got); err == nil; m, err = c.Read(got[n:]) {
					n += m
				}
				if string(got[:n]) != want {
					t.Errorf("to %q got %q, want %q", in, got[:n], want)
				}
				if l := r.line(t); l.Reason != strings.Fields(tt.want)[1] {
					t.Errorf("line: %+v", l)
				}
			}
			wantNothingDone(t, r, o)
		})
	}
}

// A limit holds for those who come next, and ends when somebody leaves.
func TestLimitEnds(t *testing.T) {
	r := newRig(t, func(r *rig) { r.gate.Limit(10, 1) })
	o := newOrigin(t)
	first, _ := r.open(t, o)
	if got := r.talk(t, connectHead(o.String()), 1000); !strings.HasPrefix(got, "HTTP/1.1 429 ") {
		t.Errorf("got %q", got)
	}
	r.line(t)
	c := dialFrom(t, "127.0.0.99", r.addr)
	send(t, c, connectHead(o.String()))
	readHead(t, c)
	reset(first)
	r.line(t)
	for {
		c := r.dial(t)
		send(t, c, connectHead(o.String()))
		if strings.HasPrefix(readHead(t, c), "HTTP/1.1 200 ") {
			return // the place is free a moment after the line
		}
		c.Close()
	}
}

// Refusals to a user that needs a password do not lead to the request.
func TestRefuseWithUsers(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.Users = users(t)
		r.gate.Limit(0, 10)
	})
	if got := r.talk(t, "\x05\x02\x00\x02", 1000); got != "\x05\xff" {
		t.Errorf("got %q", got)
	}
}
