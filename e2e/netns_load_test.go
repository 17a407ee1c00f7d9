//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// load is requests to origins, some 200 a second, by as many clients.
type load struct {
	n      *network
	cancel context.CancelFunc
	asking sync.WaitGroup

	mu sync.Mutex
	// guards
	asked []asked // in the order in which they were started
	done  int
}

// asked is a request of a load.
type asked struct {
	reply
	err error
}

const (
	loadInterval = 5 * time.Millisecond
	maxAsked     = 20_000 // in case that nothing ends the test
)

// startLoad asks for the targets in turn, until stop.
func (n *network) startLoad(targets ...string) *load {
	ctx, cancel := context.WithCancel(n.t.Context())
	l := &load{n: n, cancel: cancel}
	l.asking.Go(func() { l.run(ctx, targets) }) // until cancel
	n.t.Cleanup(func() {
		cancel()
		l.asking.Wait()
	})
	return l
}

func (l *load) run(ctx context.Context, targets []string) {
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	for i := range maxAsked {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		l.asked = append(l.asked, asked{})
		l.mu.Unlock()
		l.asking.Go(func() { l.ask(i, targets[i%len(targets)]) }) // until patience is over
	}
}

func (l *load) ask(i int, target string) {
	// Not the context of run: what was started is to end by itself.
	r, err := l.n.request(context.Background(), target)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[i] = asked{r, err}
	l.done++
}

// started returns how many requests were started up to now.
func (l *load) started() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked)
}

// sees waits until the origins have seen every address, in requests that were
// started after the first from.
func (l *load) sees(from int, addrs ...string) {
	l.n.t.Helper()
	eventually(l.n.t, fmt.Sprintf("the origins never saw all of %v", addrs), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, addr := range addrs {
			if !slices.ContainsFunc(l.asked[from:], func(a asked) bool { return a.from == addr }) {
				return false
			}
		}
		return true
	})
}

// passes waits until so many requests more have come to an end, and returns from
// where to where they are.
func (l *load) passes(requests int) (from, to int) {
	l.n.t.Helper()
	from = l.started()
	to = from + requests
	eventually(l.n.t, "the load stands still", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.done >= to
	})
	return from, to
}

// stop ends the load and returns all of it.
func (l *load) stop() []asked {
	l.cancel()
	l.asking.Wait()
	return l.asked
}

// Addresses come and go while clients are served. The one that goes takes along
// what is in flight on it, and nothing else.
func TestNetAddressesComeAndGo(t *testing.T) {
	const rounds = 3
	comes4, comes6 := "10.1.0.4", "2001:db8:1::4"
	n := newNetwork(t)
	n.start(settings{limits: "dial: 3s"})
	n.pool(0, slices.Concat(sources4, sources6)...)
	l := n.startLoad(origin4, origin6)

	start := time.Now()
	without := make([][2]int, rounds) // the requests that were made without them
	for i := range rounds {
		logged := len(n.s.lines())
		from := l.started()
		n.proxy.Addr("out", comes4+"/24", comes6+"/64")
		l.sees(from, comes4, comes6)

		n.proxy.Batch("addr del " + comes4 + "/24 dev out\naddr del " + comes6 + "/64 dev out\n")
		n.pool(logged, slices.Concat(sources4, sources6)...)
		without[i][0], without[i][1] = l.passes(100)
	}
	all := l.stop()
	took := time.Since(start)

	goes := func(source string) bool { return source == comes4 || source == comes6 }
	failed := 0
	for i, a := range all {
		if a.err != nil || a.status() != "200" {
			failed++
			if source := field(a.head, "Swivel-Source"); source != "" && !goes(source) {
				t.Errorf("request %d failed on %s, which stayed: %v", i, source, a.err)
			}
		}
	}
	for i, w := range without {
		for _, a := range all[w[0]:w[1]] {
			if goes(a.from) || a.err != nil || a.status() != "200" {
				t.Errorf("round %d, with the addresses gone: got %s, %q, %v", i, a.from, a.head, a.err)
			}
		}
	}
	for _, e := range n.s.linesAfter(0, len(all), closed) {
		if source := e.text("source"); e["status"] != 200.0 && !goes(source) {
			t.Errorf("a request failed on %s, which stayed: %v", source, e)
		}
	}
	t.Logf("%d requests in %.1f s, %d failed, all of them in flight on an address that was removed",
		len(all), took.Seconds(), failed)
}
