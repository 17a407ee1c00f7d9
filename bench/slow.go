package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// slowSip is what a slow reader takes every tick: 200 KB/s.
const slowSip = 4 << 10

// slowBuffer is what either end of the load holds of a slow tunnel: little, so that
// it is the relay that has to hold the rest.
const slowBuffer = 64 << 10

// slowSegment is what clients on Ethernet have. With loopback's 64 KiB the kernel
// takes megabytes of each from the relay, and slow readers do not stop it.
const slowSegment = 1448

var residentMemory = metric{"PSS MiB", lower}

// slow measures 4 fast connections beside readers that are slower than the origin.
func slow(ctx context.Context, b *bench) error {
	list := b.startAll(ctx, "slow")
	defer stopAll(list)
	name := fmt.Sprintf("%d slow", b.slow)
	turns(ctx, b, max(b.rounds/2, 1), list, func(p *running) error {
		remote := *p
		remote.segment = slowSegment
		readers, err := remote.tunnels(ctx, b.origin.addr, b.slow)
		if err != nil {
			return err
		}
		defer b.origin.settle(0)
		defer closeAll(readers)
		for _, c := range readers {
			unix.SetsockoptInt(int(c), unix.SOL_SOCKET, unix.SO_RCVBUF, slowBuffer)
			if err := c.write([]byte{askBacklog}); err != nil {
				return err
			}
		}
		sip := sipper(readers)
		if err := b.origin.fill(sip); err != nil {
			return err
		}
		f, err := b.flow(ctx, p, askSource, 4, sip)
		if err != nil {
			return err
		}
		m, err := p.memory()
		if err != nil {
			return err
		}
		b.report.addFlow(name, p, f)
		b.report.add(name, p.relay, residentMemory, mebibytes(m.pss))
		b.report.add(name, p.relay, descriptorsPer, float64(m.descriptors))
		return nil
	})
	return nil
}

// fill calls sip until the sources send hardly more than it takes: the buffers
// between them and the slow readers are full.
func (o *origin) fill(sip func() int64) error {
	const steps = 10
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
		before, sipped := o.sent.Load(), int64(0)
		for range steps {
			time.Sleep(tick)
			sipped += sip()
		}
		if o.sent.Load()-before < 2*sipped {
			return nil
		}
	}
	return errors.New("the buffers of slow readers do not fill")
}

// sipper returns a function that takes a little from every reader.
func sipper(readers []blocking) func() int64 {
	last := time.Now()
	return func() (moved int64) {
		if time.Since(last) < tick {
			return 0
		}
		last = time.Now()
		for _, c := range readers {
			n, _ := discard(int(c), slowSip) // one that has ended shows in the rate
			moved += int64(n)
		}
		return moved
	}
}

func mebibytes(kib int) float64 { return float64(kib) / 1024 }
