//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"swivel/iface"
	"swivel/internal/auth"
	"swivel/internal/config"
	"swivel/internal/geo"
	"swivel/internal/resolver"
	"swivel/internal/sockopt"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/listener/unwrap"
	"swivel/relay"
	"swivel/rotate"
)

// generation is what a configuration amounts to, built and not in effect yet: all
// that can fail has been done.
type generation struct {
	config    *config.Config
	names     *resolver.Resolver
	exits     *exits
	pools     map[string]*rotate.Pool
	services  map[string]*listener.Service  // by the key of their socket
	opened    map[string]*listener.Listener // sockets that were not there before, by key
	countries *geo.Countries                // nil: there is no database
	admin     *net.TCPListener              // nil: that of p stays, or there is none
	users     map[string]*auth.Users        // by path
	checks    []func(context.Context)       // of backends; each ends with its context
	udp       datagramGeneration
}

// build makes a generation of cfg. It takes over the pools and sockets of p that
// cfg keeps. After an error, nothing has changed.
func (p *proxy) build(cfg *config.Config) (*generation, error) {
	g := &generation{
		config:   cfg,
		pools:    make(map[string]*rotate.Pool),
		services: make(map[string]*listener.Service),
		opened:   make(map[string]*listener.Listener),
		users:    make(map[string]*auth.Users),
		udp:      newDatagramGeneration(),
	}
	var err error
	if g.countries, err = countriesOf(cfg.Geo); err != nil {
		return nil, fmt.Errorf("geo: %w", err)
	}
	for _, pc := range cfg.Pools {
		pool := p.pools[pc.Name]
		if pool == nil {
			pool = new(rotate.Pool)
		}
		g.pools[pc.Name] = pool
	}
	if g.exits, err = newExits(cfg.Pools); err != nil {
		return nil, err
	}
	names := newResolver(cfg.Resolver)
	g.names = names
	for _, lc := range cfg.Listeners {
		if err := g.add(p, lc, names); err != nil {
			g.discard()
			return nil, err
		}
	}
	if n := len(g.services); n > 1 && n >= listener.Capacity(descriptors()) {
		g.discard()
		return nil, fmt.Errorf("listen: %d ports need more than %d descriptors (ulimit -n %d)", n, descriptors(), 4*n+1024)
	}
	if err := g.listenAdmin(p, cfg.Admin); err != nil {
		g.discard()
		return nil, err
	}
	return g, nil
}

func newResolver(c config.Resolver) *resolver.Resolver {
	return resolver.New(resolver.Config{Servers: c.Servers, Timeout: c.Timeout, Prefer: c.Prefer, Cache: c.Cache})
}

// add builds a listener's front door and opens those of its sockets that p has not.
func (g *generation) add(p *proxy, lc config.Listener, names *resolver.Resolver) error {
	door, err := g.door(p, lc, names)
	if err != nil {
		return err
	}
	svc := &listener.Service{Name: lc.Name, Clients: lc.Clients, Door: door}
	g.proxied(svc, lc)
	if door, ok := door.(*unwrap.Door); ok {
		if err := g.addDatagrams(p, lc, door); err != nil {
			return err
		}
	}
	for _, address := range lc.Listen {
		if _, ok := isUDP(address); ok {
			continue
		}
		key := g.key(address)
		if err := g.listen(p, key, address, listenOptions(lc)...); err != nil {
			return err
		}
		g.services[key] = svc
	}
	return nil
}

// tcpOptions are those of both legs, but for keepAlive. Accepted sockets inherit
// them from the listening one. TCP_NODELAY is package net's default.
func tcpOptions(l config.Limits) []sockopt.Option {
	return []sockopt.Option{sockopt.UserTimeout(l.UserTimeout)}
}

// keepAlive probes a silent peer several times within TCP_USER_TIMEOUT, which
// decides when it is given up: with 30s for both, one lost probe ended a tunnel.
//
// It is not for peers on loopback, who cannot vanish. There, the probes of some
// thousand idle tunnels come at the same moment, and the kernel drops what exceeds
// net.core.netdev_max_backlog.
func keepAlive(l config.Limits) sockopt.Option {
	return sockopt.KeepAlive(l.UserTimeout/2, l.UserTimeout/8, 4)
}

// acceptOptions are those of a socket that listens on address.
func acceptOptions(l config.Limits, address string) []sockopt.Option {
	opts := tcpOptions(l)
	if ap, err := netip.ParseAddrPort(address); err == nil && ap.Addr().IsLoopback() {
		return opts
	}
	return append(opts, keepAlive(l))
}

// key is what the next socket that listens on address is known by, also in the
// generations to come: its address, with a number where there are several. That is
// so with port 0, for which the kernel chooses another each time.
func (g *generation) key(address string) string {
	key := address
	for n := 2; g.services[key] != nil || g.udp.fronts[key] != nil; n++ {
		key = fmt.Sprintf("%s (%d)", address, n)
	}
	return key
}

// listenOptions are what a listener's sockets have beside acceptOptions.
func listenOptions(lc config.Listener) []sockopt.Option {
	if lc.SNI != nil && lc.SNI.Transparent == config.TransparentTProxy {
		return []sockopt.Option{sockopt.Transparent}
	}
	return nil
}

func (g *generation) listen(p *proxy, key, address string, opts ...sockopt.Option) error {
	if s := p.sockets[key]; s != nil {
		rc, err := s.ln.SyscallConn()
		if err == nil {
			err = sockopt.Apply(rc, opts...)
		}
		return err
	}
	ln, err := listener.Listen(context.Background(), address, append(acceptOptions(g.config.Limits, address), opts...)...)
	if err != nil {
		return p.explainListen(address, err)
	}
	g.opened[key] = ln
	return nil
}

// explainListen is the function of that name, for a reload: the port may be taken
// by swivel itself, when 127.0.0.1:8080 becomes :8080.
func (p *proxy) explainListen(address string, err error) error {
	_, port, _ := net.SplitHostPort(address)
	for _, s := range p.sockets {
		if errors.Is(err, syscall.EADDRINUSE) && strconv.Itoa(int(portOf(s.ln))) == port {
			return fmt.Errorf("listen %s: swivel itself listens on %s until a restart (or choose another port)", address, s.ln.Addr())
		}
	}
	return explainListen(address, err)
}

func explainListen(address string, err error) error {
	_, port, _ := net.SplitHostPort(address)
	flags := "-ltnp"
	if _, ok := isUDP(address); ok {
		flags = "-lunp"
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen %s: address already in use (who uses it: ss %s 'sport = :%s')", address, flags, port)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen %s: permission denied (needs CAP_NET_BIND_SERVICE)", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen %s: this host does not have the address (ip address)", address)
	}
	return fmt.Errorf("listen %s: %w", address, err)
}

func (g *generation) discard() {
	for _, ln := range g.opened {
		ln.Close()
	}
	g.discardDatagrams()
	if g.admin != nil {
		g.admin.Close()
	}
}

// door builds the front door of a listener.
func (g *generation) door(p *proxy, lc config.Listener, names *resolver.Resolver) (listener.Door, error) {
	switch lc.Mode {
	case "connect":
		return g.connect(p, lc, names)
	case "unwrap":
		return g.unwrap(p, lc)
	case "sni":
		return g.sni(p, lc, names)
	default:
		panic("mode " + lc.Mode) // config lets none through that is not here
	}
}

// policy judges where the clients of a listener want to go.
func (p *proxy) policy(d config.Destinations) *target.Policy {
	return &target.Policy{Allow: d.Allow, Deny: d.Deny, Ports: d.Ports, Own: p.own, Loop: p.loops}
}

// dialer leaves by the sources of a listener's pool.
func (g *generation) dialer(p *proxy, lc config.Listener) *rotate.Dialer {
	return &rotate.Dialer{
		Pool:      g.pools[lc.Pool],
		Options:   g.dialOptions(lc),
		KeepAlive: keepAlive(g.config.Limits),
		Lookup:    g.names.Lookup,
		Loop:      p.loops,
		ID:        p.id,
	}
}

// dialOptions are those of upstream connections, but for keepAlive.
func (g *generation) dialOptions(lc config.Listener) []sockopt.Option {
	opts := tcpOptions(g.config.Limits)
	if lc.Mark != 0 {
		opts = append(opts, sockopt.Mark(lc.Mark))
	}
	return opts
}

// tunnelLimits are those of all tunnels.
func (g *generation) tunnelLimits() relay.Limits {
	l := g.config.Limits
	return relay.Limits{Idle: l.Idle, HalfClosed: l.HalfClosed, Lifetime: l.Lifetime, UserTimeout: l.UserTimeout}
}

// own reports whether a is an address of this host.
func (p *proxy) own(a netip.Addr) bool { return p.host.Load().Own(a) }

// loops reports whether a connection to ap would come back to one of our
// listening sockets. The kernel is asked whether the address is local: 127.0.0.2
// is, and so is all of a prefix with a local route.
func (p *proxy) loops(ap netip.AddrPort) bool {
	ports := p.ports.Load()
	if ports == nil || len((*ports)[ap.Port()]) == 0 {
		return false
	}
	local, err := iface.LocalRoute(ap.Addr())
	return local || err != nil // out of descriptors, say: rather not
}

func portOf(ln *listener.Listener) uint16 { return addrOf(ln).Port() }

func addrOf(ln interface{ Addr() net.Addr }) netip.AddrPort {
	ap := ln.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
