package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

var timesNone = metric{"by none idle", neutral}

// firstUser is the number of an ordinary user. Each relay is another one, since what
// pipes may hold is counted by user: fs.pipe-user-pages-soft.
const firstUser = 64000

// unprivileged measures bulk as an ordinary user, in one process, beside more and
// more idle tunnels.
func unprivileged(ctx context.Context, b *bench) error {
	if os.Geteuid() != 0 {
		b.report.note("all", errors.New("needs root, to start relays as other users"))
		return nil
	}
	uid := make(map[*relay]int)
	for i, r := range b.relays {
		uid[r] = firstUser + i
	}
	turns(ctx, b, b.unprivilegedRounds, b.relaysFor("unprivileged"), func(r *relay) error {
		return b.unprivilegedTurn(ctx, r, uid[r])
	})
	return nil
}

func (b *bench) unprivilegedTurn(ctx context.Context, r *relay, uid int) error {
	p, err := b.start(ctx, r, uid)
	if err != nil {
		return err
	}
	defer b.origin.settle(0)
	defer stopAll([]*running{p})
	var tunnels []blocking
	defer func() { closeAll(tunnels) }()
	var none float64
	for _, n := range b.beside {
		more, err := p.tunnels(ctx, b.origin.addr, n-len(tunnels))
		if err != nil {
			return err
		}
		tunnels = append(tunnels, more...)
		f, err := b.flow(ctx, p, askSource, 4, nil)
		if err != nil {
			return err
		}
		if n == 0 {
			none = f.cpuPerGB()
		}
		name := fmt.Sprintf("%d idle", n)
		b.report.addFlow(name, p, f)
		b.report.add(name, r, timesNone, f.cpuPerGB()/none)
		b.origin.settle(int64(n))
	}
	return nil
}
