package relay

import (
	"container/heap"
	"sync"
	"time"
)

// looks is when the watches of this process look at their tunnels.
//
// One timer for all: that of an idle tunnel would be a tenth of what the tunnel
// holds in memory.
var looks agenda

type agenda struct {
	mu    sync.Mutex
	due   watchHeap   // guarded by mu
	timer *time.Timer // guarded by mu; nil before the first
}

// entry is a watch's place on the agenda. The agenda's mu guards it.
type entry struct {
	at    duration
	place int32 // in due, from 1; 0 if it is not there
}

// set makes w look at the time, and not when it was to before.
func (a *agenda) set(w *watch, at duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.entry.at = at
	if w.entry.place > 0 {
		heap.Fix(&a.due, int(w.entry.place)-1)
	} else {
		heap.Push(&a.due, w)
	}
	if a.due[0] == w {
		a.rouse()
	}
}

func (a *agenda) remove(w *watch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.entry.place > 0 {
		heap.Remove(&a.due, int(w.entry.place)-1)
	}
}

// rouse sets the timer for who is due first. The caller holds mu.
func (a *agenda) rouse() {
	wait := a.due[0].entry.at - sinceBegin()
	if a.timer == nil {
		a.timer = time.AfterFunc(wait, a.run)
		return
	}
	a.timer.Reset(wait)
}

// run is what the timer calls.
func (a *agenda) run() {
	for {
		a.mu.Lock()
		if len(a.due) == 0 {
			a.mu.Unlock()
			return
		}
		if a.due[0].entry.at > sinceBegin() {
			a.rouse()
			a.mu.Unlock()
			return
		}
		w := heap.Pop(&a.due).(*watch)
		a.mu.Unlock()
		w.check()
	}
}

// watchHeap implements [heap.Interface].
type watchHeap []*watch

func (h watchHeap) Len() int           { return len(h) }
func (h watchHeap) Less(i, j int) bool { return h[i].entry.at < h[j].entry.at }

func (h watchHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].entry.place, h[j].entry.place = int32(i+1), int32(j+1)
}

func (h *watchHeap) Push(w any) {
	*h = append(*h, w.(*watch))
	w.(*watch).entry.place = int32(len(*h))
}

func (h *watchHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	w.entry.place = 0
	return w
}
