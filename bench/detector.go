package main

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

var (
	firstMedian = metric{"first byte p50 µs", lower}
	firstWorst  = metric{"worst", lower}
	lastMedian  = metric{"last byte p50 µs", lower}
	lastWorst   = metric{"worst µs", lower}
)

// What a detector sends: a burst, all but for a message, and after a while that.
const (
	burstSize   = 1 << 20
	messageSize = 100
)

// detector finds relays that hold back the last bytes of what they splice until more
// comes, or until a timer of the kernel's, 200 ms, has passed (MSG_MORE, delayed
// acknowledgements). A burst opens the way, which then splices; a message follows it
// by itself; the origin, when it has both, answers with a burst. What is measured is
// when, after the message, the first and the last byte of the answer are there.
//
// The relays have their turns at the same time: they wait for nearly all of it.
func detector(ctx context.Context, b *bench) error {
	list := b.startAll(ctx, "detector")
	defer stopAll(list)
	var wg sync.WaitGroup
	results := make([]detection, len(list))
	for i, p := range list {
		wg.Go(func() {
			pause(ctx, b.gap*time.Duration(i)/time.Duration(len(list))) // not all in the same moment
			results[i] = p.detect(ctx, b)
		})
	}
	wg.Wait()
	for i, p := range list {
		r := results[i]
		if r.err != nil {
			b.report.note(p.String(), r.err)
			continue
		}
		add := func(middle, worst metric, took []time.Duration) {
			slices.Sort(took)
			b.report.add("1 MiB", p.relay, middle, micros(took[len(took)/2]))
			b.report.add("1 MiB", p.relay, worst, micros(took[len(took)-1]))
		}
		add(firstMedian, firstWorst, r.first)
		add(lastMedian, lastWorst, r.last)
	}
	return nil
}

// detection is when the first and the last byte of each answer came.
type detection struct {
	first, last []time.Duration
	err         error
}

func (p *running) detect(ctx context.Context, b *bench) (d detection) {
	c, err := p.tunnel(b.origin.addr)
	if err != nil {
		return detection{err: err}
	}
	defer c.close()
	burst := make([]byte, burstSize)
	d.err = c.write(binary.BigEndian.AppendUint64([]byte{askExchange}, burstSize))
	for trip := 0; trip < b.trips && d.err == nil; trip++ {
		d.err = d.trip(ctx, c, burst, b.gap)
	}
	return d
}

func (d *detection) trip(ctx context.Context, c blocking, burst []byte, gap time.Duration) error {
	if err := c.write(burst[messageSize:]); err != nil {
		return err
	}
	pause(ctx, gap)
	asked := time.Now()
	if err := c.write(burst[:messageSize]); err != nil {
		return err
	}
	n, err := c.read(burst)
	d.first = append(d.first, time.Since(asked))
	if err == nil {
		err = c.readFull(burst[n:])
	}
	d.last = append(d.last, time.Since(asked))
	return err
}
