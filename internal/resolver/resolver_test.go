package resolver

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"swivel/internal/netlab"
)

var (
	a1 = netip.MustParseAddr("192.0.2.1")
	a2 = netip.MustParseAddr("192.0.2.2")
	b1 = netip.MustParseAddr("2001:db8::1")
	b2 = netip.MustParseAddr("2001:db8::2")
)

// patience is the Timeout of tests in which no answer comes.
const patience = 60 * time.Millisecond

func TestLookup(t *testing.T) {
	netlab.Leaks(t)
	dns := netlab.NewDNS(t, map[string][]netip.Addr{
		"both.example":   {a1, a2, b1},
		"v4.example":     {a1},
		"v6.example":     {b1, b2},
		"mapped.example": {netip.MustParseAddr("::ffff:192.0.2.1")},
		"empty.example":  nil,
		"many.example":   manyAddrs(4000), // 64 KB, over TCP
	})
	for _, tt := range []struct {
		name, prefer string
		want         []netip.Addr
		err          error
	}{
		{"both.example", "any", []netip.Addr{b1, a1, a2}, nil},
		{"both.example", "ipv6", []netip.Addr{b1, a1, a2}, nil},
		{"both.example", "ipv4", []netip.Addr{a1, b1, a2}, nil},
		{"BOTH.example.", "", []netip.Addr{b1, a1, a2}, nil},
		{"v4.example", "any", []netip.Addr{a1}, nil},
		{"v6.example", "ipv4", []netip.Addr{b1, b2}, nil},
		{"mapped.example", "any", []netip.Addr{a1}, nil},
		{"many.example", "any", manyAddrs(16), nil},
		{"empty.example", "any", nil, ErrNotFound},
		{"nowhere.example", "any", nil, ErrNotFound},
		{"", "any", nil, ErrNotFound},
		{"a..b", "any", nil, ErrNotFound},
		{strings.Repeat("a", 64), "any", nil, ErrNotFound},
		{strings.Repeat("a.", 200), "any", nil, ErrNotFound},
	} {
		t.Run("D2 "+tt.name[:min(len(tt.name), 20)]+" "+tt.prefer, func(t *testing.T) {
			r := patient(Config{Servers: []netip.AddrPort{dns.AddrPort()}, Prefer: tt.prefer})
			checkLookup(t, r, tt.name, tt.want, tt.err)
		})
	}
}

func TestLookupLocalhost(t *testing.T) {
	dns := netlab.NewDNS(t, nil)
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	r := New(Config{Servers: []netip.AddrPort{dns.AddrPort()}})
	for _, name := range []string{"localhost", "LOCALHOST.", "a.b.localhost"} {
		t.Run("3a/15 "+name, func(t *testing.T) { checkLookup(t, r, name, []netip.Addr{v6, v4}, nil) })
	}
	r = New(Config{Servers: []netip.AddrPort{dns.AddrPort()}, Prefer: "ipv4"})
	checkLookup(t, r, "localhost", []netip.Addr{v4, v6}, nil)
	if got := dns.Queries(); len(got) != 0 {
		t.Errorf("server was asked %q", got)
	}
}

// TestLookupOddServers has a server that does to every question what hook does.
func TestLookupOddServers(t *testing.T) {
	netlab.Leaks(t)
	rcode := func(c dnsmessage.RCode) func(*testing.T, netlab.DNSQuery) [][]byte {
		return func(t *testing.T, q netlab.DNSQuery) [][]byte {
			q.Reply.RCode = c
			return [][]byte{q.Pack(t)}
		}
	}
	for _, tt := range []struct {
		id   string
		hook func(t *testing.T, q netlab.DNSQuery) (replies [][]byte)
		want []netip.Addr
		err  error
	}{
		{"D1 silence", func(*testing.T, netlab.DNSQuery) [][]byte { return nil }, nil, ErrTimeout},
		{"D2 SERVFAIL", rcode(dnsmessage.RCodeServerFailure), nil, ErrServer},
		{"D2 REFUSED", rcode(dnsmessage.RCodeRefused), nil, ErrServer},
		{"D2 garbage that cannot be told from a forgery", func(*testing.T, netlab.DNSQuery) [][]byte {
			return [][]byte{nil, {1}, []byte(strings.Repeat("\xff", 600))}
		}, nil, ErrTimeout},
		{"D2 garbage behind the question", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			msg := q.Pack(t)
			return [][]byte{msg[:len(msg)-3]}
		}, nil, ErrServer},
		{"D2 larger than a datagram may be", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			for range 300 {
				q.Reply.Answers = append(q.Reply.Answers, netlab.DNSRecord(q.Name, a2))
			}
			return [][]byte{q.Pack(t)}
		}, nil, ErrServer},
		{"D2 wrong id", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			q.Reply.ID++
			return [][]byte{q.Pack(t)}
		}, nil, ErrTimeout},
		{"D2 wrong id and question before the answer", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			right := q.Pack(t)
			q.Reply.ID++
			wrongID := q.Pack(t)
			q.Reply.ID--
			q.Reply.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("b.example."), Type: q.Type, Class: q.Class}}
			return [][]byte{wrongID, q.Pack(t), right}
		}, []netip.Addr{b1, a1}, nil},
		{"D2 question in other case", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			q.Reply.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("A.Example."), Type: q.Type, Class: q.Class}}
			return [][]byte{q.Pack(t)}
		}, []netip.Addr{b1, a1}, nil},
		{"D2 truncated, then TCP", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			if !q.TCP {
				q.Reply.Truncated, q.Reply.Answers = true, nil
			}
			return [][]byte{q.Pack(t)}
		}, []netip.Addr{b1, a1}, nil},
		{"D2 truncated over TCP too", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			q.Reply.Truncated = true
			return [][]byte{q.Pack(t)}
		}, nil, ErrServer},
		{"D2 truncated, then silence", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			if q.TCP {
				return nil
			}
			q.Reply.Truncated = true
			return [][]byte{q.Pack(t)}
		}, nil, ErrTimeout},
		{"D2 AAAA is dropped", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			if q.Type == dnsmessage.TypeAAAA {
				return nil
			}
			return [][]byte{q.Pack(t)}
		}, []netip.Addr{a1}, nil},
		{"D2 A is dropped", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			if q.Type == dnsmessage.TypeA {
				return nil
			}
			return [][]byte{q.Pack(t)}
		}, []netip.Addr{b1}, nil},
		{"D2 A is NXDOMAIN, AAAA is not", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			if q.Type == dnsmessage.TypeA {
				return rcode(dnsmessage.RCodeNameError)(t, q)
			}
			return [][]byte{q.Pack(t)}
		}, []netip.Addr{b1}, nil},
		{"D2 A is NXDOMAIN, AAAA fails", func(t *testing.T, q netlab.DNSQuery) [][]byte {
			if q.Type == dnsmessage.TypeA {
				return rcode(dnsmessage.RCodeNameError)(t, q)
			}
			return rcode(dnsmessage.RCodeServerFailure)(t, q)
		}, nil, ErrServer},
	} {
		t.Run(tt.id, func(t *testing.T) {
			dns := netlab.NewDNS(t, map[string][]netip.Addr{"a.example": {a1, b1}})
			dns.Hook(func(q netlab.DNSQuery) ([][]byte, bool) { return tt.hook(t, q), true })
			c := Config{Servers: []netip.AddrPort{dns.AddrPort()}}
			if errors.Is(tt.err, ErrTimeout) {
				c.Timeout = patience
			}
			r := patient(c)
			if strings.HasSuffix(tt.id, "is dropped") {
				r = New(c)
			}
			checkLookup(t, r, "a.example", tt.want, tt.err)
		})
	}
}

func TestLookupServers(t *testing.T) {
	netlab.Leaks(t)
	zone := map[string][]netip.Addr{"a.example": {a1}}
	bad := netlab.NewDNS(t, zone)
	good := netlab.NewDNS(t, zone)
	servers := []netip.AddrPort{bad.AddrPort(), good.AddrPort()}

	t.Run("D1 closed port, at once", func(t *testing.T) {
		r := New(Config{Servers: []netip.AddrPort{closedPort(t)}, Timeout: time.Hour})
		checkLookup(t, r, "a.example", nil, ErrServer)
	})
	t.Run("D1 second server after a closed port", func(t *testing.T) {
		r := New(Config{Servers: []netip.AddrPort{closedPort(t), good.AddrPort()}})
		checkLookup(t, r, "a.example", []netip.Addr{a1}, nil)
	})
	t.Run("first server is enough", func(t *testing.T) {
		before := len(good.Queries())
		checkLookup(t, New(Config{Servers: servers}), "a.example", []netip.Addr{a1}, nil)
		if got := len(good.Queries()); got != before {
			t.Errorf("second server was asked %d times", got-before)
		}
	})
	t.Run("NXDOMAIN is an answer", func(t *testing.T) {
		before := len(good.Queries())
		checkLookup(t, New(Config{Servers: servers}), "b.example", nil, ErrNotFound)
		if got := len(good.Queries()); got != before {
			t.Errorf("second server was asked %d times", got-before)
		}
	})
	t.Run("D2 second server after SERVFAIL", func(t *testing.T) {
		bad.Hook(func(q netlab.DNSQuery) ([][]byte, bool) {
			q.Reply.RCode = dnsmessage.RCodeServerFailure
			return [][]byte{q.Pack(t)}, true
		})
		checkLookup(t, New(Config{Servers: servers}), "a.example", []netip.Addr{a1}, nil)
	})
	t.Run("D1 second server after silence", func(t *testing.T) {
		bad.Hook(func(netlab.DNSQuery) ([][]byte, bool) { return nil, true })
		checkLookup(t, New(Config{Servers: servers, Timeout: time.Second}), "a.example", []netip.Addr{a1}, nil)
	})
	t.Run("second round after a loss", func(t *testing.T) {
		lost := make(chan bool, 2) // the first packet of each family
		lost <- true
		lost <- true
		bad.Hook(func(q netlab.DNSQuery) ([][]byte, bool) {
			select {
			case <-lost:
				return nil, true
			default:
				return nil, false
			}
		})
		checkLookup(t, New(Config{Servers: servers[:1], Timeout: time.Second}), "a.example", []netip.Addr{a1}, nil)
	})
}

// patient returns a Resolver that always waits for both families, however slow the
// machine is at the moment.
func patient(c Config) *Resolver {
	r := New(c)
	r.waitIPv4, r.waitIPv6 = time.Hour, time.Hour
	return r
}

// checkLookup also checks that an error says the name.
func checkLookup(t *testing.T, r *Resolver, name string, want []netip.Addr, wantErr error) {
	t.Helper()
	got, err := r.Lookup(t.Context(), name)
	if !errors.Is(err, wantErr) || !slices.Equal(got, want) {
		t.Errorf("Lookup(%q) = %v, %v, want %v, %v", name, got, err, want, wantErr)
	}
	if err != nil && !strings.Contains(err.Error(), `"`+strings.TrimSuffix(name, ".")+`"`) {
		t.Errorf("error does not say %q: %v", name, err)
	}
}

// closedPort returns an address at which nothing listens.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func manyAddrs(n int) (addrs []netip.Addr) {
	for i := range n {
		addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
	}
	return addrs
}

func BenchmarkLookup(b *testing.B) {
	dns := netlab.NewDNS(b, map[string][]netip.Addr{"a.example": {a1, b1}})
	for _, c := range []Config{{}, {Cache: time.Hour}} {
		b.Run("cache "+c.Cache.String(), func(b *testing.B) {
			b.ReportAllocs()
			c.Servers = []netip.AddrPort{dns.AddrPort()}
			r := New(c)
			for b.Loop() {
				if _, err := r.Lookup(b.Context(), "a.example"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
