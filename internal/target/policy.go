package target

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// What a Policy answers. The texts say no address: a client may not learn from a
// refusal what a name resolves to.
var (
	ErrName    = errors.New("destination name denied")
	ErrPort    = errors.New("destination port denied")
	ErrAddress = errors.New("destination address denied")
	ErrLoop    = errors.New("destination is this proxy")
)

// Policy says where clients may go. The zero Policy lets them go to the public
// Internet, ports 443 and 80. A Policy is not written to once it is in use.
//
// Special addresses (see special.go) are denied unless a rule of Allow covers them.
// One by name covers whatever the name resolves to, so that "*" in Allow opens every
// private service that has a name. A rule of Deny wins over all of Allow.
type Policy struct {
	Allow, Deny []Rule

	// Ports are open everywhere. Empty means 443 and 80. A rule of Allow that has a
	// port opens it for what the rule matches.
	Ports []PortRange

	// Own reports whether an address is this host's own. Such addresses are denied,
	// loopback excepted, unless a rule of Allow is for that address alone or for
	// exactly the name that led to it: a wide prefix is not meant to open the
	// services of the proxy's host. Nil means none is.
	Own func(netip.Addr) bool

	// Loop reports whether dialing an address would reach a listener of ours. No
	// rule allows that. Nil means none would.
	Loop func(netip.AddrPort) bool
}

// maxAddrs bounds how many addresses of one name are tried.
const maxAddrs = 16

// Resolve judges t and returns the addresses to dial, in the order of lookup, 16 at
// most. It asks lookup at most once, and never for an address nor for a name that
// is refused by its name or port. Addresses of a name that are denied are left out.
//
// The error is ErrName, ErrPort, ErrAddress or ErrLoop when t is refused (a name
// only when none of its addresses is left), and lookup's own when that fails.
func (p *Policy) Resolve(ctx context.Context, t Target, lookup func(ctx context.Context, name string) ([]netip.Addr, error)) ([]netip.AddrPort, error) {
	if t.Name == "" {
		ap := netip.AddrPortFrom(t.Addr, t.Port)
		if err := p.judge(ap, grant{port: p.listed(t.Port)}); err != nil {
			return nil, err
		}
		return []netip.AddrPort{ap}, nil
	}
	g, err := p.judgeName(t)
	if err != nil {
		return nil, err
	}
	addrs, err := lookup(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	var usable []netip.AddrPort
	refusal := ErrAddress // also when lookup had nothing to say
	for _, addr := range addrs {
		ap := netip.AddrPortFrom(addr.Unmap().WithZone(""), t.Port)
		switch err := p.judge(ap, g); {
		case err == nil && len(usable) < maxAddrs:
			usable = append(usable, ap)
		case err != nil && refusal != ErrLoop:
			refusal = err
		}
	}
	if len(usable) == 0 {
		return nil, refusal
	}
	return usable, nil
}

// Pass judges where a client was going on its own, under the server name that it
// gives, or "", before the packet filter sent it here: by Ports and the rules of Deny
// alone. Where it may go is for the network to say, in which private addresses are
// ordinary. The error is ErrName, ErrPort, ErrAddress or ErrLoop.
func (p *Policy) Pass(to netip.AddrPort, name string) error {
	t := Target{Name: name, Port: to.Port()}
	if p.Loop != nil && p.Loop(to) {
		return ErrLoop
	}
	for i := range p.Deny {
		switch r := &p.Deny[i]; {
		case r.matchAddr(to):
			return ErrAddress
		case r.matchName(t):
			return ErrName
		}
	}
	if p.listed(to.Port()) {
		return nil
	}
	for i := range p.Allow {
		if r := &p.Allow[i]; r.port != 0 && (r.matchAddr(to) || r.matchName(t)) {
			return nil
		}
	}
	return ErrPort
}

// JudgeName judges t, which has a name, for somebody else to look it up: by its name
// and port alone. A port that is open to some addresses only is refused.
func (p *Policy) JudgeName(t Target) error {
	g, err := p.judgeName(t)
	switch {
	case err != nil:
		return err
	case !g.port:
		return ErrPort
	case !g.special && (t.Name == "localhost" || strings.HasSuffix(t.Name, ".localhost")):
		return ErrAddress // of whoever looks it up, RFC 6761
	}
	return nil
}

// grant is what the rules of Allow give to one destination.
type grant struct {
	port    bool // its port is open
	special bool // it may be a special address
	own     bool // it may be an address of this host
}

// judgeName judges t before its addresses are known.
func (p *Policy) judgeName(t Target) (grant, error) {
	for i := range p.Deny {
		if p.Deny[i].matchName(t) {
			return grant{}, ErrName
		}
	}
	g := grant{port: p.listed(t.Port)}
	maybe := false // a rule by prefix may open the port to what t resolves to
	for i := range p.Allow {
		r := &p.Allow[i]
		switch {
		case r.matchName(t):
			g.special = true
			g.own = g.own || !r.sub
			g.port = g.port || r.port != 0
		case r.prefix.IsValid() && r.port == t.Port:
			maybe = true
		}
	}
	switch {
	case t.Name == metadataName && !g.special:
		return grant{}, ErrName
	case !g.port && !maybe:
		return grant{}, ErrPort
	}
	return g, nil
}

// judge judges an address, to which the name that led to it gave g.
func (p *Policy) judge(ap netip.AddrPort, g grant) error {
	if p.Loop != nil && p.Loop(ap) {
		return ErrLoop
	}
	addr := ap.Addr()
	for i := range p.Allow {
		if r := &p.Allow[i]; r.matchAddr(ap) {
			g.special = true
			g.own = g.own || r.prefix.IsSingleIP()
			g.port = g.port || r.port != 0
		}
	}
	if !g.port {
		return ErrPort
	}
	for i := range p.Deny {
		if p.Deny[i].matchAddr(ap) {
			return ErrAddress
		}
	}
	switch {
	case !g.special && special(addr):
		return ErrAddress
	case !g.own && !addr.IsLoopback() && p.Own != nil && p.Own(addr):
		return ErrAddress
	}
	return nil
}

var defaultPorts = []PortRange{{443, 443}, {80, 80}}

// listed reports whether Ports opens port everywhere.
func (p *Policy) listed(port uint16) bool {
	ports := p.Ports
	if len(ports) == 0 {
		ports = defaultPorts
	}
	return slices.ContainsFunc(ports, func(r PortRange) bool { return r.From <= port && port <= r.To })
}
