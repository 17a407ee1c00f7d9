package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"swivel/internal/netlab"
)

// heldServer is a DNS server that answers once it is released, and a Resolver that
// asks it.
func heldServer(t *testing.T, c Config) (dns *netlab.DNS, r *Resolver, asked <-chan string, release func()) {
	t.Helper()
	dns = netlab.NewDNS(t, map[string][]netip.Addr{"a.example": {a1}, "b.example": {a2}})
	names := make(chan string, 100)
	released := make(chan struct{})
	dns.Hook(func(q netlab.DNSQuery) ([][]byte, bool) {
		names <- q.Name.String()
		<-released
		return nil, false
	})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release) // before the server's, which waits for the hook
	c.Servers = []netip.AddrPort{dns.AddrPort()}
	c.Timeout = time.Minute
	return dns, patient(c), names, release
}

// noticed is a context that tells when a wait on it begins.
type noticed struct {
	context.Context
	once func()
}

func notice(ctx context.Context, f func()) noticed { return noticed{ctx, sync.OnceFunc(f)} }

func (n noticed) Done() <-chan struct{} {
	n.once()
	return n.Context.Done()
}

type result struct {
	addrs []netip.Addr
	err   error
}

func lookupAsync(ctx context.Context, r *Resolver, name string) <-chan result {
	c := make(chan result, 1)
	go func() {
		addrs, err := r.Lookup(ctx, name)
		c <- result{addrs, err}
	}()
	return c
}

// TestFlightIsShared and the two below are of D1: lookups do not pile up.
func TestFlightIsShared(t *testing.T) {
	netlab.Leaks(t)
	dns, r, asked, release := heldServer(t, Config{})
	results := []<-chan result{lookupAsync(t.Context(), r, "a.example")}
	<-asked

	var joined sync.WaitGroup
	for range 99 {
		joined.Add(1)
		results = append(results, lookupAsync(notice(t.Context(), joined.Done), r, "A.example"))
	}
	joined.Wait()
	release()
	for _, c := range results {
		if got := <-c; got.err != nil || len(got.addrs) != 1 || got.addrs[0] != a1 {
			t.Fatalf("got %v, %v, want %v", got.addrs, got.err, a1)
		} else {
			got.addrs[0] = a2 // each has a slice of its own
		}
	}
	if got := dns.Queries(); len(got) != 2 {
		t.Errorf("server was asked %q, want one pair", got)
	}
}

func TestFlightOutlivesItsFirst(t *testing.T) {
	netlab.Leaks(t)
	dns, r, asked, release := heldServer(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	first := lookupAsync(ctx, r, "a.example")
	<-asked
	joined := make(chan struct{})
	second := lookupAsync(notice(t.Context(), func() { close(joined) }), r, "a.example")
	<-joined

	cancel()
	if got := <-first; !errors.Is(got.err, context.Canceled) || errors.Is(got.err, ErrTimeout) {
		t.Errorf("first: %v, want %v", got.err, context.Canceled)
	}
	release()
	if got := <-second; got.err != nil || len(got.addrs) != 1 {
		t.Errorf("second: %v, %v, want %v", got.addrs, got.err, a1)
	}
	if got := dns.Queries(); len(got) != 2 {
		t.Errorf("server was asked %q, want one pair", got)
	}
}

func TestFlightsAreBounded(t *testing.T) {
	netlab.Leaks(t)
	_, r, asked, release := heldServer(t, Config{})
	r.flights.slots = make(chan struct{}, 1)
	first := lookupAsync(t.Context(), r, "a.example")
	<-asked

	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := r.Lookup(late, "b.example"); !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a slot: %v, want %v", err, ErrTimeout)
	}
	waiting := make(chan struct{})
	second := lookupAsync(notice(t.Context(), func() { close(waiting) }), r, "b.example")
	<-waiting
	release()
	for _, c := range []<-chan result{first, second} {
		if got := <-c; got.err != nil {
			t.Error(got.err)
		}
	}
}

func TestMemory(t *testing.T) {
	netlab.Leaks(t)
	ttl := func(seconds uint32) func(*testing.T, *dnsmessage.Message) {
		return func(_ *testing.T, m *dnsmessage.Message) {
			for i := range m.Answers {
				m.Answers[i].Header.TTL = seconds
			}
		}
	}
	for _, tt := range []struct {
		id, name string
		cache    time.Duration
		edit     func(*testing.T, *dnsmessage.Message)
		want     time.Duration // it is remembered for
	}{
		{"no longer than Cache", "a.example", 5 * time.Second, ttl(60), 5 * time.Second},
		{"no longer than its TTL", "a.example", time.Hour, ttl(2), 2 * time.Second},
		{"3a/28 TTL 0 is not remembered", "a.example", time.Hour, ttl(0), 0},
		{"Cache 0 remembers nothing", "a.example", 0, ttl(60), 0},
		{"NXDOMAIN for a second", "b.example", time.Hour, ttl(60), time.Second},
		{"NXDOMAIN no longer than Cache", "b.example", time.Millisecond, ttl(60), time.Millisecond},
		{"SERVFAIL is not remembered", "a.example", time.Hour, func(_ *testing.T, m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }, 0},
		{"half of it is not remembered", "a.example", time.Hour, func(_ *testing.T, m *dnsmessage.Message) {
			if m.Questions[0].Type == dnsmessage.TypeAAAA {
				m.RCode = dnsmessage.RCodeServerFailure
			}
		}, 0},
	} {
		t.Run(tt.id, func(t *testing.T) {
			dns := netlab.NewDNS(t, map[string][]netip.Addr{"a.example": {a1, b1}})
			dns.Hook(func(q netlab.DNSQuery) ([][]byte, bool) {
				tt.edit(t, &q.Reply)
				return [][]byte{q.Pack(t)}, true
			})
			r := patient(Config{Servers: []netip.AddrPort{dns.AddrPort()}, Cache: tt.cache})
			now := time.Now()
			r.now = func() time.Time { return now }
			// asks reports whether a lookup now asks the server.
			asks := func() bool {
				before := len(dns.Queries())
				r.Lookup(t.Context(), tt.name)
				return len(dns.Queries()) > before
			}
			asks()
			if got, want := asks(), tt.want == 0; got != want {
				t.Errorf("second lookup asks: %t, want %t", got, want)
			}
			now = now.Add(tt.want - 1)
			if got, want := asks(), tt.want == 0; got != want {
				t.Errorf("lookup before the end asks: %t, want %t", got, want)
			}
			now = now.Add(1)
			if !asks() {
				t.Errorf("lookup after %v does not ask", tt.want)
			}
		})
	}
}

func TestMemoryIsBounded(t *testing.T) {
	fs := newFlights()
	flying := &flight{landed: make(chan struct{})}
	fs.byName["flying"] = flying
	now := time.Now()
	for i := range maxAnswers + 100 {
		name := fmt.Sprint(i)
		f := &flight{landed: make(chan struct{})}
		fs.byName[name] = f
		fs.land(f, name, now, time.Second)
		if fs.find(name, now) != f {
			t.Fatalf("answer %d is not remembered", i)
		}
	}
	if got := len(fs.byName); got != maxAnswers {
		t.Errorf("%d answers, want %d", got, maxAnswers)
	}
	if fs.find("flying", now) != flying {
		t.Error("a flight under way was dropped")
	}
}
