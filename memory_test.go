//go:build linux

package main

import (
	"runtime/debug"
	"sync"
	"testing"
)

// What thousands of goroutines leave behind is seen as waste, and collecting it
// helps.
func TestMemorySeesWhatABurstLeaves(t *testing.T) {
	debug.FreeOSMemory()
	before := readMemory().waste
	var burst sync.WaitGroup
	hold := make(chan struct{})
	for range 20_000 {
		burst.Go(func() {
			var stack [2 << 10]byte
			<-hold
			stack[0]++
		})
	}
	close(hold)
	burst.Wait()
	after := readMemory().waste
	const left = 4 << 20 // at least
	if after < before+left {
		t.Errorf("waste: got %d before and %d after, want %d more", before, after, left)
	}
	debug.FreeOSMemory()
	if given := readMemory().waste; given > after/2 {
		t.Errorf("waste: got %d after giving back, %d before", given, after)
	}
}
