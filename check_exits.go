//go:build linux

package main

import (
	"context"

	"swivel/internal/config"
	"swivel/rotate"
)

// exits looks at the proxies that pools name, each of which is tried.
func (r *report) exits(cfg *config.Config) *exits {
	x, err := newExits(cfg.Pools)
	if err != nil {
		r.miss("swivel does not start without", "%v", err)
		return &exits{}
	}
	names := newResolver(cfg.Resolver)
	x.find(context.Background(), names, cfg.Pools)
	d := rotate.Dialer{Lookup: names.Lookup}
	for _, p := range cfg.Pools {
		for _, s := range p.Sources {
			if s.Upstream == nil {
				continue
			}
			f := found{Source: s}
			f.lookUpstream(x)
			for _, e := range f.sources {
				if err := d.Probe(context.Background(), e.Exit, cfg.Limits.Dial/rotate.ReachPart); err != nil {
					r.miss("the others are used meanwhile", "pool %s: exit %s: %v", p.Name, e.Exit, err)
				} else {
					r.ok("pool %s: exit %s can be reached", p.Name, e.Exit)
				}
			}
		}
	}
	return x
}
