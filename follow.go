//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"swivel/iface"
	"swivel/internal/config"
	"swivel/relay"
	"swivel/rotate"
)

// follow makes the pools follow the host, which is read once in refresh whatever
// the kernel tells. It returns when that is so, or was tried in vain and will be
// again. It belongs to the goroutine of serve.
func (p *proxy) follow(refresh time.Duration) {
	if refresh == p.refresh {
		return
	}
	// The one before has ended when the next one begins: what it has read must not
	// replace what was read later.
	p.unfollow()
	ctx, cancel := context.WithCancel(p.clients)
	tried, ended := make(chan struct{}), make(chan struct{})
	go func() { // until unfollow
		defer close(ended)
		p.watch(ctx, refresh, sync.OnceFunc(func() { close(tried) }))
	}()
	<-tried
	p.refresh = refresh
	p.unfollow = func() {
		cancel()
		<-ended
	}
}

func shortestRefresh(pools []config.Pool) time.Duration {
	if len(pools) == 0 {
		return time.Hour // which addresses are our own is asked for, too
	}
	return slices.MinFunc(pools, func(a, b config.Pool) int { return cmp.Compare(a.Refresh, b.Refresh) }).Refresh
}

// watchRetry is how soon the host is read again when that was not possible, out of
// memory or descriptors.
const watchRetry = time.Second

// watch keeps the pools as the host is, until ctx is done. It calls tried when it
// has read the host for the first time, or could not.
func (p *proxy) watch(ctx context.Context, refresh time.Duration, tried func()) {
	for ctx.Err() == nil {
		err := iface.Watch(ctx, refresh, func(h *iface.Host) {
			p.host.Store(h)
			p.setPools()
			tried()
		})
		tried()
		if err == nil {
			return
		}
		p.log.Warn().Err(err).Dur("retry", watchRetry).Msg("reading addresses")
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}

// recheckInterval is how soon a route to an address that no interface has is
// noticed.
const recheckInterval = 5 * time.Second

// setPools gives every pool the sources that the host has now.
func (p *proxy) setPools() {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.host.Load()
	again := false
	all, err := findAll(p.config.Pools, h, p.countries, p.exits)
	p.sayCountries(err)
	p.watchCountries()
	for i, pc := range p.config.Pools {
		entries := all[i]
		sources := allSources(entries)
		p.pools[pc.Name].Set(poolConfig(pc), sources)
		p.entries[pc.Name] = entries
		p.say(pc.Name, entries)
		again = again || slices.ContainsFunc(entries, routed)
		for _, s := range sources {
			if net := s.ID().Net; net.IsValid() {
				if _, known := p.used[net]; !known { // else its timer may be running
					p.used[net] = nil
				}
			}
		}
	}
	again = p.watchGone() || again
	if p.recheck != nil {
		p.recheck.Stop()
		p.recheck = nil
	}
	if again {
		p.recheck = time.AfterFunc(recheckInterval, p.setPools)
	}
}

// poolConfig is how a pool chooses.
func poolConfig(pc config.Pool) rotate.Config {
	return rotate.Config{
		Strategy: rotate.Strategy(pc.Strategy),
		HashBy:   rotate.HashBy(pc.HashBy),
		Spacing:  pc.Spacing,
		Wait:     pc.Wait,
		Age:      pc.MaxAge,
		Bytes:    int64(pc.MaxBytes),
		Cooldown: rotate.Cooldown{
			After:  pc.Cooldown.After,
			For:    pc.Cooldown.For,
			Most:   pc.Cooldown.Most,
			Keep:   pc.Cooldown.Keep,
			Refuse: pc.Cooldown.WhenAllCool == "refuse",
		},
	}
}

// routed reports whether an entry is there, or might come to be, by a local route
// alone. Of those the kernel's news does not tell.
func routed(f found) bool {
	return (f.Address.IsValid() || f.Prefix.IsValid()) && (f.missing != "" || f.sources[0].Free)
}

// sourceGrace is how long a source may be away before its tunnels are ended. One
// that is removed and added again at once loses none.
const sourceGrace = time.Second

// watchGone starts a timer for each address in use that has gone, and stops that of
// one that is back. It reports whether there is one of which the kernel could not
// say. The caller holds mu.
func (p *proxy) watchGone() (unsure bool) {
	for a, timer := range p.used {
		gone, err := p.isGone(a)
		switch {
		case err != nil:
			unsure = true
		case gone && timer == nil:
			p.used[a] = time.AfterFunc(sourceGrace, func() { p.endSource(a) })
		case !gone && timer != nil:
			timer.Stop()
			p.used[a] = nil
		}
	}
	return unsure
}

// endSource ends what leaves by a, unless the host has a again.
func (p *proxy) endSource(a netip.Prefix) {
	p.mu.Lock()
	gone, _ := p.isGone(a)
	if gone {
		delete(p.used, a)
	} else {
		p.used[a] = nil
	}
	p.mu.Unlock()
	if gone {
		p.table.EndSource(a, relay.SourceGone)
	}
}

// isGone reports whether nothing can leave by a any more. Its error means that the
// kernel could not be asked, and that it is not known.
func (p *proxy) isGone(a netip.Prefix) (bool, error) {
	if a.IsSingleIP() && p.host.Load().Has(a.Addr()) {
		return false, nil
	}
	routed, err := prefixRouted(a)
	return err == nil && !routed, err
}

// say logs what a pool holds when that has changed.
func (p *proxy) say(pool string, entries []found) {
	var addrs, missing []string
	for _, f := range entries {
		for _, s := range f.sources {
			addrs = append(addrs, s.String())
		}
		if f.missing != "" {
			missing = append(missing, f.name()+": "+f.missing)
		}
	}
	now := fmt.Sprint(addrs, missing)
	if p.said[pool] == now {
		return
	}
	p.said[pool] = now
	e := p.log.Info()
	if len(missing) > 0 {
		e = p.log.Warn()
	}
	e = e.Str("pool", pool).Int("sources", len(addrs)).Strs("addresses", addrs[:min(len(addrs), 32)])
	if len(missing) > 0 {
		e = e.Strs("missing", missing)
	}
	e.Msg("pool")
}
