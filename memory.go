//go:build linux

package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	wasteInterval = 30 * time.Second
	minWaste      = 4 << 20
	goroutineSize = 4 << 10 // of stack, for one that waits
)

// giveBack returns memory that a burst has left behind, until ctx is done.
//
// The stacks of goroutines that have ended are only freed by a collection, which
// an idle process does not come to, and the runtime then keeps as much again as
// there is in use. Reading the figures takes microseconds; collecting is done only
// when it pays.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(wasteInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if used, waste := memory(); waste > max(minWaste, used/2) {
				debug.FreeOSMemory()
			}
		case <-ctx.Done():
			return
		}
	}
}

// memory returns how many bytes are in objects, and how many are free and not
// returned, or stacks beyond what the goroutines that there are need.
func memory() (used, waste uint64) {
	s := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/sched/goroutines:goroutines"},
	}
	metrics.Read(s)
	used, waste = s[0].Value.Uint64(), s[1].Value.Uint64()
	stacks, needed := s[2].Value.Uint64(), s[3].Value.Uint64()*goroutineSize
	return used, waste + stacks - min(stacks, needed)
}
