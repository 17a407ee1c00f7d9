package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

var (
	cpuPerGB     = metric{"relay s/GB", lower}
	rate         = metric{"GB/s", higher}
	machinePerGB = metric{"machine s/GB", lower}
)

func bulk(ctx context.Context, b *bench) error {
	list := b.startAll(ctx, "bulk")
	defer stopAll(list)
	for _, direction := range []struct {
		name string
		ask  byte
	}{{"down", askSource}, {"up", askSink}} {
		for _, n := range b.flows {
			name := fmt.Sprintf("%s, %d", direction.name, n)
			turns(ctx, b, b.rounds, list, func(p *running) error {
				f, err := b.flow(ctx, p, direction.ask, n, nil)
				if err == nil {
					b.report.addFlow(name, p, f)
				}
				b.origin.settle(0)
				return err
			})
		}
	}
	return nil
}

// flow is what moving bytes cost.
type flow struct {
	gigabytes            float64
	relay, machine, wall time.Duration
}

func (f flow) cpuPerGB() float64 { return f.relay.Seconds() / f.gigabytes }

func (r *report) addFlow(name string, p *running, f flow) {
	r.add(name, p.relay, cpuPerGB, f.cpuPerGB())
	r.add(name, p.relay, rate, f.gigabytes/f.wall.Seconds())
	r.add(name, p.relay, machinePerGB, f.machine.Seconds()/f.gigabytes)
}

// tick is how often a flow calls its beside.
const tick = 20 * time.Millisecond

// flow moves bytes through n tunnels, for a while without and for a while with
// measuring. They are counted where they are received. If beside is not nil it is
// called now and then, and returns the bytes that it has moved.
func (b *bench) flow(ctx context.Context, p *running, ask byte, n int, beside func() int64) (f flow, err error) {
	tunnels, err := p.tunnels(ctx, b.origin.addr, n)
	if err != nil {
		return f, err
	}
	load, err := newPoller()
	if err != nil {
		return f, err
	}
	defer load.close()
	taken, moved := new(atomic.Int64), &b.origin.sunk
	events, end := uint32(unix.EPOLLOUT), func(fd int) socket {
		return &source{fd: fd, file: b.origin.file, sent: new(atomic.Int64)}
	}
	if ask == askSource {
		moved = taken
		events, end = unix.EPOLLIN, func(fd int) socket { return &sink{fd, taken} }
	}
	if err := load.adopt(tunnels, []byte{ask}, events, end); err != nil {
		return f, err
	}
	if _, err := drive(load, b.warm, beside); err != nil {
		return f, err
	}
	begin, err := p.usage()
	if err != nil {
		return f, err
	}
	before := moved.Load()
	more, err := drive(load, b.window, beside)
	if err != nil {
		return f, err
	}
	f.gigabytes = float64(moved.Load()-before+more) / 1e9
	after, err := p.usage()
	f.relay, f.machine, f.wall = after.since(begin)
	return f, err
}

// drive runs load for d, and beside every tick. It returns what beside has moved.
func drive(load *poller, d time.Duration, beside func() int64) (moved int64, err error) {
	step := d
	if beside != nil {
		step = tick
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		closed, err := load.run(step)
		if err != nil {
			return moved, err
		}
		if closed > 0 {
			return moved, fmt.Errorf("%d tunnels ended early", closed)
		}
		if beside != nil {
			moved += beside()
		}
	}
	return moved, nil
}
