package iface

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"swivel/internal/netlab"
)

// noDescriptors makes every new descriptor an EMFILE, until the function that it
// returns is called.
func noDescriptors(t *testing.T) func() {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	set := func(limit syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	set(syscall.Rlimit{Cur: 0, Max: old.Max})
	return func() { set(old) }
}

func TestWatchCannotBegin(t *testing.T) {
	netlab.Leaks(t)
	restore := noDescriptors(t)
	err := Watch(t.Context(), 0, func(*Host) { t.Error("Watch saw a host") })
	restore()
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("got %v, want EMFILE", err)
	}
}

func TestWatchOutlivesTrouble(t *testing.T) {
	netlab.Leaks(t)
	synctest.Test(t, func(t *testing.T) {
		restore := noDescriptors(t)
		ctx, cancel := context.WithCancel(t.Context())
		seen := make(chan *Host, 1)
		w := watcher{changed: func(h *Host) { seen <- h }, last: newHost(nil, [2][]string{})}
		done := make(chan error, 1)
		go func() { done <- w.run(ctx) }() // ends with ctx
		time.Sleep(10 * retry)
		restore()
		start := time.Now()
		<-seen
		if took := time.Since(start); took > retry {
			t.Errorf("the host was seen %v after the trouble, want at most %v", took, retry)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch returned %v, want nil", err)
		}
	})
}

func TestWatchCanceled(t *testing.T) {
	netlab.Leaks(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		if err := Watch(ctx, 0, func(*Host) { cancel() }); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Watch(ctx, 0, func(*Host) { t.Error("Watch saw a host") }); err != nil {
		t.Errorf("done before the beginning: got %v, want nil", err)
	}
}

// Each change that matters wakes, by itself, in a namespace where nothing else
// happens.
func TestEventsWait(t *testing.T) {
	n := netlab.New(t).Namespace("quiet")
	e := subscribeIn(t, n)
	for _, tt := range []struct {
		change string
		want   bool
	}{
		{"link set lo mtu 9000", true},
		{"addr add 10.0.0.1/32 dev lo", true},
		{"route add 10.1.0.0/16 dev lo", false},
		{"route add default dev lo", true},
		{"route del default", true},
		{"-6 route add 2001:db8:1::/48 dev lo", false},
		{"-6 route add default dev lo", true},
		{"-6 route del default", true},
		{"nexthop add id 7 dev lo", true},
		{"nexthop del id 7", true},
		{"addr add 2001:db8::1/128 dev lo nodad", true}, // last: the kernel ends this one later
	} {
		// The kernel is done with the change before.
		for event := true; event; {
			var err error
			if event, err = e.wait(20 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		n.IP(strings.Fields(tt.change)...)
		limit := 10 * time.Second
		if !tt.want {
			limit = 50 * time.Millisecond
		}
		event, err := e.wait(limit)
		if event != tt.want || err != nil {
			t.Errorf("%s: got %t, %v; want %t, nil", tt.change, event, err, tt.want)
		}
	}
}

// Without any event, the host is read when every is over.
func TestEventsWaitLimit(t *testing.T) {
	n := netlab.New(t).Namespace("quiet")
	e := subscribeIn(t, n)
	start := time.Now()
	if event, err := e.wait(20 * time.Millisecond); event || err != nil {
		t.Errorf("got %t, %v; want false, nil", event, err)
	}
	if took := time.Since(start); took < 20*time.Millisecond {
		t.Errorf("wait took %v", took)
	}
}

// Events that the kernel had no room for are an event.
func TestEventsOverrun(t *testing.T) {
	n := netlab.New(t).Namespace("storm")
	e, witness := subscribeIn(t, n), subscribeIn(t, n)
	for _, e := range []*events{e, witness} {
		if err := e.raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	var storm strings.Builder
	for i := range 200 {
		fmt.Fprintf(&storm, "addr add 10.0.0.%d/32 dev lo\n", i)
	}
	n.Batch(storm.String())
	if err := witness.raw.Control(func(fd uintptr) {
		if _, _, err := unix.Recvfrom(int(fd), witness.buf, 0); err != unix.ENOBUFS {
			t.Errorf("the socket was not overrun: %v", err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if event, err := e.wait(0); !event || err != nil {
		t.Errorf("got %t, %v; want true, nil", event, err)
	}
	if event, err := e.wait(time.Millisecond); event || err != nil {
		t.Errorf("all taken: got %t, %v; want false, nil", event, err)
	}
}

func subscribeIn(t *testing.T, n *netlab.Namespace) *events {
	t.Helper()
	var e *events
	if err := n.Do(func() (err error) {
		e, err = subscribe()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	return e
}
