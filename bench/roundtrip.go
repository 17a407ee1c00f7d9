package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

var (
	cpuPerTrip     = metric{"relay µs", lower}
	tripRate       = metric{"trips/s", higher}
	median         = metric{"p50 µs", lower}
	percentile99   = metric{"p99 µs", lower}
	machinePerTrip = metric{"machine µs", lower}
)

func roundtrip(ctx context.Context, b *bench) error {
	list := b.startAll(ctx, "roundtrip")
	defer stopAll(list)
	for _, size := range b.sizes {
		for _, n := range b.exchangers {
			name := fmt.Sprintf("%d B, %d", size, n)
			turns(ctx, b, b.rounds, list, func(p *running) error {
				defer b.origin.settle(0)
				return b.exchange(ctx, name, p, size, n)
			})
		}
	}
	return nil
}

// exchange measures round trips through n tunnels, each of which has one on its
// way all the time.
func (b *bench) exchange(ctx context.Context, name string, p *running, size, n int) error {
	tunnels, err := p.tunnels(ctx, b.origin.addr, n)
	if err != nil {
		return err
	}
	load, err := newPoller()
	if err != nil {
		return err
	}
	defer load.close()
	took := make([]time.Duration, 0, 1<<18)
	question := binary.BigEndian.AppendUint64([]byte{askExchange}, uint64(size))
	asker := func(fd int) socket {
		return &exchange{poller: load, fd: fd, size: size, unsent: size, blocked: true, asked: time.Now(), took: &took}
	}
	if err := load.adopt(tunnels, question, unix.EPOLLOUT, asker); err != nil {
		return err
	}
	if _, err := drive(load, b.warm, nil); err != nil {
		return err
	}
	took = took[:0]
	begin, err := p.usage()
	if err != nil {
		return err
	}
	if _, err := drive(load, b.window, nil); err != nil {
		return err
	}
	end, err := p.usage()
	if err != nil {
		return err
	}
	if len(took) == 0 {
		return fmt.Errorf("no round trip within %v", b.window)
	}
	relay, machine, wall := end.since(begin)
	slices.Sort(took)
	count := float64(len(took))
	b.report.add(name, p.relay, cpuPerTrip, micros(relay)/count)
	b.report.add(name, p.relay, tripRate, count/wall.Seconds())
	b.report.add(name, p.relay, median, micros(took[len(took)/2]))
	b.report.add(name, p.relay, percentile99, micros(took[len(took)*99/100]))
	b.report.add(name, p.relay, machinePerTrip, micros(machine)/count)
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
