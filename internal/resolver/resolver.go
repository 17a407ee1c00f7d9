// Package resolver finds the addresses of a name, and services, by DNS and nothing else.
//
// It is not net.Resolver, because that one always reads /etc/hosts and appends the
// search domains of the host. Names here come from strangers, and "db" must not mean
// to them what it means to the host.
//
// A name is asked as absolute, A and AAAA at once. Lookups of one name at one time
// share a flight, and its answer is remembered for a little while.
//
// The package does not judge addresses, and it trusts its servers: it does not
// validate DNSSEC. Of /etc/resolv.conf it reads the nameserver lines alone.
package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What Lookup's errors wrap. Their texts have the name, and the server if one was asked.
var (
	ErrNotFound = errors.New("no such name, or no address")
	ErrTimeout  = errors.New("no server answered in time")
	ErrServer   = errors.New("server failed") // it refused, or its answer made no sense
)

// Config says whom to ask, and for how long.
type Config struct {
	// Servers are asked in this order. Empty means those of /etc/resolv.conf as
	// it is then, at most three seconds ago.
	Servers []netip.AddrPort

	// Timeout bounds a lookup, all tries together. Zero means 5 seconds.
	Timeout time.Duration

	// Prefer is the family that comes first: "ipv4", or "ipv6", which "any" and ""
	// mean too (RFC 8305).
	Prefer string

	// Cache is how long an answer is remembered at most; its TTL may be shorter.
	// Zero means not at all.
	Cache time.Duration
}

// Resolver looks names up. Its methods may be called by several goroutines at once.
// It holds no goroutine and no descriptor between lookups.
type Resolver struct {
	conf    Config
	system  *system // nil: conf.Servers are asked
	flights *flights

	// Set by New, and otherwise by tests.
	now                func() time.Time
	waitIPv4, waitIPv6 time.Duration
}

// New returns a Resolver. It reads no file and asks no server yet.
func New(c Config) *Resolver {
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.Servers = slices.Clone(c.Servers)
	r := &Resolver{conf: c, flights: newFlights(), now: time.Now, waitIPv4: waitIPv4, waitIPv6: waitIPv6}
	if len(c.Servers) == 0 {
		r.system = &system{path: "/etc/resolv.conf", port: 53}
	}
	return r
}

// maxAddrs bounds how many addresses of a name are used.
const maxAddrs = 16

// Lookup returns the addresses of name, 16 at most, families in turn. They belong to
// the caller.
//
// An error is ErrNotFound, ErrTimeout or ErrServer. When ctx ends first, it is ctx's
// and, if that was its deadline, ErrTimeout too; the flight goes on for others.
func (r *Resolver) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return r.localhost(), nil
	}
	f, err := r.flight(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("lookup %q: %w", name, err)
	}
	if f.err != nil {
		return nil, fmt.Errorf("lookup %q: %w", name, f.err)
	}
	return slices.Clone(f.addrs), nil
}

// localhost answers for localhost and all below it, which are never asked of DNS
// (RFC 6761, section 6.3).
func (r *Resolver) localhost() []netip.Addr {
	return r.order([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, []netip.Addr{netip.IPv6Loopback()})
}

// How long the family that has found addresses waits for the other. For IPv6 it is
// the resolution delay of RFC 8305, section 3. For IPv4 it is longer: where there is
// no way out by IPv6, a name without its late A record would be out of reach.
const (
	waitIPv6 = 50 * time.Millisecond
	waitIPv4 = 250 * time.Millisecond
)

// keepNotFound is how long it is remembered, at most, that a name has no address.
const keepNotFound = time.Second

// resolve asks for both families at once. The outcome may be remembered for as long
// as it holds, which is not at all if a family did not answer.
func (r *Resolver) resolve(ctx context.Context, name string) (addrs []netip.Addr, holds time.Duration, err error) {
	servers := r.servers()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	landed := make(chan outcome, 2)
	for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		go func() { // ends with ctx, or before
			f, err := ask(ctx, servers, name, typ)
			landed <- outcome{f, typ, err}
		}()
	}
	first := <-landed
	wait := r.waitIPv6
	if first.typ == dnsmessage.TypeAAAA {
		wait = r.waitIPv4
	}
	if first.err == nil {
		defer time.AfterFunc(wait, cancel).Stop()
	}
	second := <-landed

	v4, v6 := first, second
	if first.typ == dnsmessage.TypeAAAA {
		v4, v6 = second, first
	}

	addrs = r.order(v4.addrs, v6.addrs)
	holds = min(v4.holds(), v6.holds())
	if len(addrs) > 0 {
		return addrs, holds, nil
	}
	// That there is no address is known only if both families say so.
	if err = v4.err; errors.Is(err, ErrNotFound) {
		err = v6.err
	}
	return nil, min(holds, keepNotFound), err
}

func (r *Resolver) servers() []netip.AddrPort {
	if r.system != nil {
		return r.system.get(r.now())
	}
	return r.conf.Servers
}

// outcome is what became of one family.
type outcome struct {
	found
	typ dnsmessage.Type
	err error
}

func (o outcome) holds() time.Duration {
	switch {
	case o.err == nil:
		return o.ttl
	case errors.Is(o.err, ErrNotFound):
		return math.MaxInt64 // the other family's sets the bound, or keepNotFound
	}
	return 0
}

// order puts the families in turn, the preferred one first.
func (r *Resolver) order(v4, v6 []netip.Addr) []netip.Addr {
	first, second := v6, v4
	if r.conf.Prefer == "ipv4" {
		first, second = v4, v6
	}
	var addrs []netip.Addr
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			addrs = append(addrs, first[i])
		}
		if i < len(second) {
			addrs = append(addrs, second[i])
		}
	}
	return addrs[:min(len(addrs), maxAddrs)]
}
