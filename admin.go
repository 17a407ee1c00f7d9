//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"swivel/internal/admin"
	"swivel/internal/config"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/rotate"
)

// adminSocket is the admin address in use.
type adminSocket struct {
	address string // as configured
	ln      *net.TCPListener
	server  *admin.Server
	close   context.CancelFunc
}

// listenAdmin opens the admin address that cfg asks for, unless p has it already.
func (g *generation) listenAdmin(p *proxy, cfg config.Admin) error {
	if cfg.Listen == "" || p.admin != nil && p.admin.address == cfg.Listen {
		return nil
	}
	ln, err := listener.ListenTCP(context.Background(), cfg.Listen, acceptOptions(g.config.Limits, cfg.Listen)...)
	if err != nil {
		return fmt.Errorf("admin: %w", p.explainListen(cfg.Listen, err))
	}
	g.admin = ln
	return nil
}

// useAdmin puts the admin address of g into effect.
func (p *proxy) useAdmin(g *generation) {
	cfg := g.config.Admin
	if p.admin != nil && p.admin.address != cfg.Listen {
		p.admin.close()
		p.log.Info().Str("listener", "admin").Stringer("address", p.admin.ln.Addr()).Msg("listener closed")
		p.admin = nil
	}
	if g.admin != nil {
		ctx, cancel := context.WithCancel(context.Background())
		p.admin = &adminSocket{cfg.Listen, g.admin, &admin.Server{Handler: admin.Handler(p.state())}, cancel}
		p.admin.server.Admit(cfg.Clients)
		go p.admin.server.Serve(ctx, g.admin) // until close
		p.log.Info().Str("listener", "admin").Stringer("address", g.admin.Addr()).Msg("listening")
	}
	if p.admin != nil {
		p.admin.server.Admit(cfg.Clients)
	}
}

// state is what the admin address shows of p.
func (p *proxy) state() admin.State {
	return admin.State{Ready: p.ready, Pools: p.poolStates, Cool: p.cool, Release: p.release}
}

var errDraining = errors.New("draining")

// ready says why clients cannot be served.
func (p *proxy) ready() error {
	if p.draining.Load() {
		return errDraining
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var empty []string
	for _, pc := range p.config.Pools {
		if p.pools[pc.Name].Empty() {
			empty = append(empty, pc.Name)
		}
	}
	if len(empty) > 0 {
		return fmt.Errorf("no source in pool %s", strings.Join(empty, ", "))
	}
	return nil
}

// poolStates lists the pools as they are now.
func (p *proxy) poolStates() []admin.Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pools := make([]admin.Pool, len(p.config.Pools))
	for i, pc := range p.config.Pools {
		pools[i] = admin.Pool{Name: pc.Name, Strategy: pc.Strategy, Sources: []admin.Source{}}
		for _, u := range p.pools[pc.Name].Sources() {
			pools[i].Sources = append(pools[i].Sources, sourceState(&u))
		}
		for _, f := range p.entries[pc.Name] {
			if f.missing != "" {
				pools[i].Sources = append(pools[i].Sources, admin.Source{
					Source: f.name(), State: admin.Missing, Why: f.missing, Weight: f.Weight, Labels: f.Labels})
			}
		}
	}
	return pools
}

func sourceState(u *rotate.Use) admin.Source {
	s := admin.Source{
		Source: u.String(), State: admin.Ready, Weight: u.Weight, Labels: u.Labels,
		Open: u.Open, Uses: u.Uses, Cool: admin.Duration(u.Cooling), Parts: u.Parts,
	}
	if u.Cooling > 0 {
		s.State = admin.Cooling
	}
	return s
}

// cool has a source not be used for a while, in the pool that c names or in all that
// have it.
func (p *proxy) cool(c admin.Cooldown) error {
	host := ""
	if c.Target != "" {
		t, err := target.ParseHost(c.Target, 1)
		if err != nil {
			return fmt.Errorf("%w: target is neither a name nor an address", admin.ErrInvalid)
		}
		host = t.Host()
	}
	pools, err := p.poolsNamed(c.Pool)
	if err != nil {
		return err
	}
	found := false
	for _, pool := range pools {
		found = pool.Cool(c.Source, host, time.Duration(c.For)) == nil || found
	}
	if !found {
		return fmt.Errorf("source %q: %w (see /api/sources)", c.Source, admin.ErrUnknown)
	}
	p.log.Info().Str("source", c.Source).Str("target", host).Stringer("for", time.Duration(c.For)).Msg("cooldown")
	return nil
}

// release ends a session, in the pool that r names or in all.
func (p *proxy) release(r admin.Release) error {
	pools, err := p.poolsNamed(r.Pool)
	if err != nil {
		return err
	}
	found := false
	for _, pool := range pools {
		found = pool.Release(r.User, r.Session) || found
	}
	if !found {
		return fmt.Errorf("session: %w", admin.ErrUnknown)
	}
	p.log.Info().Str("user", r.User).Str("session", r.Session).Msg("session released")
	return nil
}

// poolsNamed returns the pool of that name, or all when it is "".
func (p *proxy) poolsNamed(name string) (map[string]*rotate.Pool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case name == "":
		return p.pools, nil
	case p.pools[name] == nil:
		return nil, fmt.Errorf("pool %q: %w", name, admin.ErrUnknown)
	}
	return map[string]*rotate.Pool{name: p.pools[name]}, nil
}
