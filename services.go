//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"swivel/internal/config"
	"swivel/internal/resolver"
)

// serviceNames lists the SRV records that pools name, each once, with how often they
// are asked for at least.
func serviceNames(pools []config.Pool) map[string]time.Duration {
	names := make(map[string]time.Duration)
	for _, p := range pools {
		for _, s := range p.Sources {
			if s.Upstream == nil || s.Upstream.SRV == "" {
				continue
			}
			if d, ok := names[s.Upstream.SRV]; !ok || p.Refresh < d {
				names[s.Upstream.SRV] = p.Refresh
			}
		}
	}
	return names
}

// find asks DNS for all that pools name, once.
func (x *exits) find(ctx context.Context, names *resolver.Resolver, pools []config.Pool) {
	for name := range serviceNames(pools) {
		records, _, err := names.Services(ctx, name)
		slices.SortFunc(records, compareServices)
		x.services[name] = services{records, err}
	}
}

// firstServices is how long a start or reload waits for DNS to tell of services:
// pools are empty until then.
const firstServices = time.Second

// followServices makes the pools follow DNS, and ends what did so before.
func (p *proxy) followServices(g *generation) {
	p.unfollowServices()
	ctx, cancel := context.WithCancel(p.clients)
	p.unfollowServices = cancel
	var tried sync.WaitGroup
	for name, refresh := range serviceNames(g.config.Pools) {
		tried.Add(1)
		go p.followService(ctx, g.names, name, refresh, sync.OnceFunc(tried.Done)) // until the next followServices
	}
	all := make(chan struct{})
	go func() { // until each has been tried
		tried.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-time.After(firstServices):
	}
}

// How soon DNS is asked again: as soon as the records have expired, within these and
// the pool's refresh.
const (
	minServiceRefresh = time.Second
	serviceRetry      = 5 * time.Second
)

// followService keeps what DNS says of one service, until ctx is done. It calls
// tried when DNS has been asked for the first time. That DNS does not answer changes
// nothing.
func (p *proxy) followService(ctx context.Context, names *resolver.Resolver, name string, refresh time.Duration, tried func()) {
	for {
		records, ttl, err := names.Services(ctx, name)
		if ctx.Err() == nil && p.noteService(name, records, err) {
			p.setPools()
		}
		tried()
		wait := serviceRetry
		if err == nil {
			wait = min(max(ttl, minServiceRefresh), refresh)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// noteService reports whether what is known of a service has changed.
func (p *proxy) noteService(name string, records []resolver.Service, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exits == nil {
		return false
	}
	was, known := p.exits.services[name]
	slices.SortFunc(records, compareServices) // servers shuffle them
	now := services{records, err}
	if err != nil && !errors.Is(err, resolver.ErrNotFound) {
		now.records = was.records
	}
	p.exits.services[name] = now
	return !known || !slices.Equal(was.records, now.records) || fmt.Sprint(was.err) != fmt.Sprint(err)
}

func compareServices(a, b resolver.Service) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Weight, b.Weight))
}
