package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var (
	memoryStart = metric{"started MiB", neutral}
	memoryHeld  = metric{"held MiB", neutral}
	memoryPeak  = metric{"peak MiB", neutral}
	memoryRest  = metric{"rested MiB", lower}
	perHeld     = metric{"KiB/held tunnel", lower}
)

// spike measures the memory (PSS) of a relay when it has started, with idle tunnels,
// with many more that are all busy at once, and some time after those have gone. All
// relays rest at the same time.
func spike(ctx context.Context, b *bench) error {
	list := b.startAll(ctx, "spike")
	defer stopAll(list)
	name := fmt.Sprintf("%d held, %d more for a moment, rest of %v", b.held, b.spike, b.rest)
	held := make(map[*running]*spiked)
	turns(ctx, b, 1, list, func(p *running) (err error) {
		held[p], err = b.spikeTurn(ctx, p)
		return err
	})
	pause(ctx, b.rest)
	turns(ctx, b, 1, list, func(p *running) error {
		s := held[p]
		if s == nil {
			return nil
		}
		defer closeAll(s.tunnels)
		m, err := p.memory()
		if err != nil {
			return err
		}
		b.report.add(name, p.relay, memoryStart, mebibytes(s.start))
		b.report.add(name, p.relay, memoryHeld, mebibytes(s.held))
		b.report.add(name, p.relay, memoryPeak, mebibytes(s.peak))
		b.report.add(name, p.relay, memoryRest, mebibytes(m.pss))
		b.report.add(name, p.relay, perHeld, float64(m.pss-s.start)/float64(b.held))
		return nil
	})
	return nil
}

// spiked is a relay after a spike.
type spiked struct {
	start, held, peak int // PSS, in KiB
	tunnels           []blocking
}

func (b *bench) spikeTurn(ctx context.Context, p *running) (*spiked, error) {
	var s spiked
	open := b.origin.open.Load()
	for _, step := range []struct {
		pss     *int
		tunnels int
	}{{&s.start, 0}, {&s.held, b.held}} {
		more, err := p.tunnels(ctx, b.origin.addr, step.tunnels)
		if err != nil {
			return nil, err
		}
		s.tunnels = append(s.tunnels, more...)
		m, err := p.memory()
		if err != nil {
			return nil, err
		}
		*step.pss = m.pss
	}
	more, err := p.tunnels(ctx, b.origin.addr, b.spike)
	if err != nil {
		return nil, err
	}
	defer b.origin.settle(open + int64(b.held))
	load, err := newPoller()
	if err != nil {
		return nil, err
	}
	defer load.close()
	busy := func(fd int) socket { return &sink{fd, new(atomic.Int64)} }
	if err := load.adopt(more, []byte{askSource}, unix.EPOLLIN, busy); err != nil {
		return nil, err
	}
	if _, err := drive(load, 2*b.window, nil); err != nil {
		return nil, err
	}
	m, err := p.memory()
	s.peak = m.pss
	return &s, err
}
