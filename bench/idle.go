package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

var (
	pssPerTunnel    = metric{"PSS KiB", lower}
	rssPerTunnel    = metric{"RSS KiB", lower}
	kernelPerTunnel = metric{"kernel KiB", lower}
	descriptorsPer  = metric{"descriptors", lower}
	idleCPU         = metric{"CPU ms/s", neutral}
	pssRested       = metric{"rested PSS KiB", lower}
)

// resting are the relays whose tunnels are looked at once more, after a rest: that
// takes its time.
var resting = []string{"swivel", "haproxy"}

// idle measures what a relay holds for a tunnel that nothing moves through: what it
// holds with many, less what it held without, by their number. Each turn has a
// relay of its own, that has served nothing else.
func idle(ctx context.Context, b *bench) error {
	for _, n := range b.idle {
		name := fmt.Sprintf("%d tunnels", n)
		turns(ctx, b, b.idleRounds, b.relaysFor("idle"), func(r *relay) error {
			return b.idleTurn(ctx, name, r, n)
		})
	}
	return nil
}

func (b *bench) idleTurn(ctx context.Context, name string, r *relay, n int) error {
	p, err := b.start(ctx, r, 0)
	if err != nil {
		return err
	}
	defer stopAll([]*running{p})
	before, err := p.memory()
	if err != nil {
		return err
	}
	tunnels, err := p.tunnels(ctx, b.origin.addr, n)
	if err != nil {
		return err
	}
	defer b.origin.settle(0)
	defer closeAll(tunnels)
	pause(ctx, b.idleFor/4) // what follows the opening is not idle yet
	begin, err := p.usage()
	if err != nil {
		return err
	}
	pause(ctx, b.idleFor)
	end, err := p.usage()
	if err != nil {
		return err
	}
	after, err := p.memory()
	if err != nil {
		return err
	}
	relay, _, wall := end.since(begin)
	per := func(after, before int) float64 { return float64(after-before) / float64(n) }
	b.report.add(name, r, pssPerTunnel, per(after.pss, before.pss))
	b.report.add(name, r, rssPerTunnel, per(after.rss, before.rss))
	b.report.add(name, r, kernelPerTunnel, per(after.kernel, before.kernel))
	b.report.add(name, r, descriptorsPer, per(after.descriptors, before.descriptors))
	b.report.add(name, r, idleCPU, 1000*relay.Seconds()/wall.Seconds())
	if n != slices.Max(b.idle) || !slices.Contains(resting, r.name) {
		return nil
	}
	pause(ctx, b.rest)
	if after, err = p.memory(); err == nil {
		b.report.add(name, r, pssRested, per(after.pss, before.pss))
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
