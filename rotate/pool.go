// Package rotate chooses the address that a connection leaves by, and connects
// from it.
//
// A Pool holds source addresses and gives them out in turn; a Dialer connects
// from a socket bound to the source that the Pool gave, moves on to the next one
// when a source turns out to be gone or exhausted, and races IPv6 against IPv4.
//
// The package does not know which addresses this host has: whoever does calls
// Pool.Set. It does not resolve names and judges no destination.
package rotate

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// ErrNoSource means that the pool has no source address that could be used.
var ErrNoSource = errors.New("rotate: no source address")

// Strategy is the way in which a Pool chooses.
type Strategy string

const (
	RoundRobin Strategy = "round-robin" // each in turn, as often as its weight
	Random     Strategy = "random"      // any, with a chance in proportion to its weight
	LeastUsed  Strategy = "least-used"  // the one with the fewest open connections for its weight
)

// Source is an address that connections can leave by.
type Source struct {
	Addr   netip.Addr        // that a connection is bound to
	Weight int               // how often it is used in comparison to others; below 1 means 1
	Labels map[string]string // what an operator says of it; not changed after Set

	// Free: no interface has Addr, it is routed to this host all the same, and
	// binding to it takes IP_FREEBIND.
	Free bool
}

// ID tells the sources of a pool apart.
type ID struct {
	Net netip.Prefix // the address, as a prefix of all its bits
}

// ID is what s is known by.
func (s *Source) ID() ID {
	return ID{Net: netip.PrefixFrom(s.Addr, s.Addr.BitLen())}
}

// String is how s stands in logs, and how clients are told of it: the address, or
// nothing when there is none.
func (s *Source) String() string {
	if !s.Addr.IsValid() {
		return ""
	}
	return s.Addr.String()
}

// Want is a condition on the labels of a source: the label must be there and have
// one of the values, in upper or lower case.
type Want struct {
	Label  string
	Values []string
}

// is reports whether s is as all of wants say.
func (s *Source) is(wants []Want) bool {
	for _, w := range wants {
		if !s.has(w) {
			return false
		}
	}
	return true
}

func (s *Source) has(w Want) bool {
	for label, value := range s.Labels {
		if strings.EqualFold(label, w.Label) && slices.ContainsFunc(w.Values, func(v string) bool { return strings.EqualFold(v, value) }) {
			return true
		}
	}
	return false
}

// Pool is a set of sources of both families. The zero Pool is empty and takes
// turns. Its methods may be called by several goroutines at once.
type Pool struct{ v4, v6 ring }

// Set replaces the sources and the strategy. Turns go on behind the source that
// was used last; connections that are open count on.
func (p *Pool) Set(s Strategy, sources []Source) {
	var v4, v6 []Source
	for _, src := range sources {
		src.Addr = src.Addr.Unmap()
		if src.Addr.Is4() {
			v4 = append(v4, src)
		} else {
			v6 = append(v6, src)
		}
	}
	p.v4.set(s, v4)
	p.v6.set(s, v6)
}

// Next takes a source for r of dst's family, other than those that skip (may be
// nil) says true of. Its error is ErrNoSource.
//
// Each family takes its own turns: with one counter for both, clients that
// alternate families would see half of the pool.
func (p *Pool) Next(r *Request, dst netip.Addr, skip func(ID) bool) (*Turn, error) {
	return p.ring(dst).next(func(s *Source) bool { return s.is(r.Wants) && (skip == nil || !skip(s.ID())) })
}

// Has reports whether there is any source of dst's family.
func (p *Pool) Has(dst netip.Addr) bool {
	r := p.ring(dst)
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.members) > 0
}

// Empty reports whether there is no source at all.
func (p *Pool) Empty() bool {
	return !p.Has(netip.IPv4Unspecified()) && !p.Has(netip.IPv6Unspecified())
}

// Use is a source with the number of connections that it has open.
type Use struct {
	Source
	Open int
}

// Sources lists the sources in the order of Set, IPv4 first.
func (p *Pool) Sources() []Use { return append(p.v4.sources(), p.v6.sources()...) }

func (p *Pool) ring(dst netip.Addr) *ring {
	if dst.Unmap().Is4() {
		return &p.v4
	}
	return &p.v6
}
