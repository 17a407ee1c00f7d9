//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"swivel/internal/config"
	"swivel/internal/resolver"
	"swivel/internal/sockopt"
	"swivel/internal/target"
	"swivel/listener/router"
	"swivel/rotate"
)

// sni builds the front door of a listener of mode sni.
func (g *generation) sni(p *proxy, lc config.Listener, names *resolver.Resolver) (*router.Door, error) {
	b := routeBuilder{g, p, lc}
	var routes []router.Route
	for _, r := range lc.SNI.Routes {
		routes = append(routes, router.Route{Names: r.Names, ALPN: r.ALPN, Target: b.route(r)})
	}
	table, err := router.NewTable(routes)
	if err != nil {
		return nil, fmt.Errorf("listener %s: routes: %w", lc.Name, err)
	}
	o := lc.SNI.Otherwise
	if lc.SNI.Source == config.SourceClient {
		if err := canBeTransparent(); err != nil {
			return nil, fmt.Errorf("listener %s: source: %w", lc.Name, err)
		}
	}
	d := &router.Door{
		Name:        lc.Name,
		Transparent: transparency[lc.SNI.Transparent],
		Routes:      table,
		Otherwise: router.Otherwise{
			router.NoRoute:   b.otherwise(o.NoRoute),
			router.NoName:    b.otherwise(o.NoName),
			router.NotTLS:    b.otherwise(o.NotTLS),
			router.Malformed: b.otherwise(o.Malformed),
			router.Timeout:   b.otherwise(o.Timeout),
			router.TooLarge:  b.otherwise(o.TooLarge),
		},
		Opaque:    lc.SNI.Opaque,
		Policy:    p.policy(lc.Destinations),
		Lookup:    names.Lookup,
		Leave:     b.leave(lc.Pool),
		Head:      g.config.Limits.Head,
		FirstByte: g.config.Limits.FirstByte,
		Dial:      g.config.Limits.Dial,
		Limits:    g.tunnelLimits(),
	}
	g.checks = append(g.checks, d.Check)
	return d, nil
}

// What the words of a configuration mean to the router.
var (
	transparency = map[string]router.Transparent{
		config.TransparentOff:      router.Off,
		config.TransparentRedirect: router.Redirect,
		config.TransparentTProxy:   router.TProxy,
	}
	kinds = map[string]router.Kind{
		config.ToClose:    router.Close,
		config.ToOriginal: router.Original,
		config.ToName:     router.Name,
		config.ToBackends: router.ToBackends,
	}
	balances    = map[string]router.Balance{"round-robin": router.RoundRobin, "least": router.Least, "client": router.ByClient}
	proxyHeader = map[string]router.SendProxy{"off": router.NoProxy, "v1": router.V1, "v2": router.V2}
)

// routeBuilder makes what the routes of one listener are to the router.
type routeBuilder struct {
	g  *generation
	p  *proxy
	lc config.Listener
}

func (b routeBuilder) route(r config.Route) router.Target {
	t := router.Target{Kind: kinds[r.To.Kind], SendProxy: proxyHeader[r.SendProxy]}
	if r.Pool != "" {
		t.Leave = b.leave(r.Pool)
	}
	if r.To.Kind == config.ToBackends {
		t.Backends = b.backends(r.To, balances[r.Balance], r.Check)
	}
	return t
}

func (b routeBuilder) otherwise(to config.To) *router.Target {
	t := &router.Target{Kind: kinds[to.Kind]}
	if to.Kind == config.ToBackends {
		t.Backends = b.backends(to, router.RoundRobin, 0)
	}
	return t
}

func (b routeBuilder) backends(to config.To, balance router.Balance, every time.Duration) *router.Backends {
	list := router.NewBackends(balance, to.Backends...)
	list.Every = every
	list.Changed = func(backend target.Target, err error) {
		if err != nil {
			b.p.log.Warn().Str("listener", b.lc.Name).Stringer("backend", backend).Err(err).Msg("backend left out")
			return
		}
		b.p.log.Info().Str("listener", b.lc.Name).Stringer("backend", backend).Msg("backend is back")
	}
	return list
}

// leave connects by the sources of a pool; by that which the kernel chooses when
// pool is "".
func (b routeBuilder) leave(pool string) router.Leave {
	lc := b.lc
	lc.Pool = pool
	d := b.g.dialer(b.p, lc)
	if pool == "" {
		d.Pool = anySource()
	}
	if lc.SNI.Source != config.SourceClient {
		return d.Dial
	}
	return func(ctx context.Context, r rotate.Request) (*rotate.Upstream, error) {
		if !r.Client.IsValid() {
			return d.Dial(ctx, r) // a check, which nobody asked for
		}
		as := *d
		as.Pool = new(rotate.Pool)
		as.Pool.Set(rotate.Config{}, []rotate.Source{{Addr: r.Client}})
		as.Options = append([]sockopt.Option{sockopt.Transparent}, d.Options...)
		return as.Dial(ctx, r)
	}
}

// anySource is a pool that leaves the choice to the kernel.
func anySource() *rotate.Pool {
	p := new(rotate.Pool)
	p.Set(rotate.Config{}, []rotate.Source{{Addr: netip.IPv4Unspecified()}, {Addr: netip.IPv6Unspecified()}})
	return p
}
