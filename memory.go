//go:build linux

package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	wasteInterval = 30 * time.Second
	minWaste      = 1 << 20
	goroutineSize = 4 << 10 // of stack, for one that waits
)

// giveBack returns memory that a burst has left behind, until ctx is done.
//
// What has died, stacks of goroutines included, is only freed by a collection, which
// a process that has become idle does not come to for two minutes, and of what is
// free the runtime keeps as much again as is in use. Reading the figures takes
// microseconds; collecting is done when it pays, and when no collection was needed
// lately: a busy process has use for the memory.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(wasteInterval)
	defer tick.Stop()
	var before uint64 // collections
	for {
		select {
		case <-tick.C:
			m := readMemory()
			if m.collections == before && m.waste > max(minWaste, m.live/4) {
				runtime.GC() // what a sync.Pool has survives one
				debug.FreeOSMemory()
				m = readMemory()
			}
			before = m.collections
		case <-ctx.Done():
			return
		}
	}
}

// memory is what the runtime says of it.
type memory struct {
	live        uint64 // bytes of objects that the last collection found in use
	waste       uint64 // bytes that are free or may be: newer objects, stacks beyond need
	collections uint64
}

func readMemory() memory {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(s)
	live, objects, free := s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()
	stacks, needed := s[3].Value.Uint64(), s[4].Value.Uint64()*goroutineSize
	return memory{
		live:        live,
		waste:       objects - min(objects, live) + free + stacks - min(stacks, needed),
		collections: s[5].Value.Uint64(),
	}
}
