package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"swivel/internal/exit"
	"swivel/internal/resolver"
	"swivel/internal/target"
	"swivel/rotate"
)

func newBackends(balance Balance, n int) *Backends {
	var targets []target.Target
	for i := range n {
		targets = append(targets, target.Target{Name: string(rune('a' + i)), Port: 1})
	}
	return NewBackends(balance, targets...)
}

// tried is the order in which backends would be tried for client.
func (b *Backends) tried(client string) (s string) {
	for _, x := range b.order(netip.MustParseAddr(client)) {
		s += x.target.Name
	}
	return s
}

func wantOrder(t *testing.T, b *Backends, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := b.tried("192.0.2.1"); got != w {
			t.Errorf("got %s, want %s", got, w)
		}
	}
}

func TestRoundRobin(t *testing.T) {
	wantOrder(t, newBackends(RoundRobin, 3), "abc", "bca", "cab", "abc")
	wantOrder(t, newBackends(RoundRobin, 1), "a", "a")
}

func TestLeast(t *testing.T) {
	b := newBackends(Least, 3)
	b.list[0].enter()
	b.list[0].enter()
	b.list[2].enter()
	wantOrder(t, b, "bca", "bca")
	b.list[1].enter()
	wantOrder(t, b, "cba", "bca") // equals in turn
	b.list[0].leave()
	b.list[0].leave()
	wantOrder(t, b, "abc", "acb", "abc")
}

// A client's backend stays while there is one, and moves to the same other one when
// there is not; all get their share.
func TestByClient(t *testing.T) {
	five, four := newBackends(ByClient, 5), newBackends(ByClient, 4)
	count := make(map[string]int)
	for i := range 5000 {
		client := fmt.Sprintf("10.0.%d.%d", i/250, i%250)
		order := five.tried(client)
		count[order[:1]]++
		if order != five.tried(client) {
			t.Fatalf("%s: %s, then another", client, order)
		}
		want := slices.DeleteFunc([]byte(order), func(b byte) bool { return b == 'e' })
		if got := four.tried(client); got != string(want) {
			t.Fatalf("%s: %s, and without e %s", client, order, got)
		}
	}
	for name, n := range count {
		if n < 850 || n > 1150 {
			t.Errorf("%s has %d of 5000 clients", name, n)
		}
	}
	if five.tried("2001:db8:0:1::1") != five.tried("2001:db8:0:1:ffff::2") {
		t.Error("addresses of one /64 go to different backends")
	}
}

// A backend that fails is left out, for twice as long each time, and tried last.
func TestLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends(RoundRobin, 3)
		var said []string
		b.Changed = func(x target.Target, err error) { said = append(said, fmt.Sprint(x.Name, err)) }
		refused := errors.New("refused")
		for _, out := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			b.failed(b.list[1], refused)
			b.failed(b.list[1], refused) // at the same time: one failure
			wantOrder(t, b, "acb", "cab")
			time.Sleep(out*time.Second - 1)
			wantOrder(t, b, "acb", "cab")
			time.Sleep(time.Nanosecond)
			wantOrder(t, b, "bca", "cab", "abc")
			b.turn.Store(0)
		}
		b.succeeded(b.list[1])
		b.failed(b.list[1], refused)
		wantOrder(t, b, "acb")
		time.Sleep(time.Second)
		wantOrder(t, b, "bca")
		if want := []string{"brefused", "b<nil>", "brefused"}; !slices.Equal(said, want) {
			t.Errorf("said %q, want %q", said, want)
		}
	})
}

func TestAllLeftOut(t *testing.T) {
	b := newBackends(RoundRobin, 2)
	for _, x := range b.list {
		b.failed(x, errors.New("refused"))
	}
	wantOrder(t, b, "ab", "ba")
}

// With checks, one that fails stays out until a check has found it.
func TestLeftOutUntilChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends(RoundRobin, 2)
		b.Every = time.Second
		b.failed(b.list[0], errors.New("refused"))
		time.Sleep(time.Hour)
		wantOrder(t, b, "ba")
		b.succeeded(b.list[0])
		b.turn.Store(0)
		wantOrder(t, b, "ab")
	})
}

// What is our own fault, or that of another proxy on the way, leaves no backend out.
func TestIsToBlame(t *testing.T) {
	x := newBackends(RoundRobin, 1).list[0]
	for err, want := range map[error]bool{
		syscall.ECONNREFUSED:   true,
		os.ErrDeadlineExceeded: true,
		resolver.ErrNotFound:   true,
		target.ErrLoop:         true,
		&exit.Refusal{Status: 502, Token: "connection_refused"}: true,
		&exit.Refusal{Status: 407}:                              false,
		&exit.Error{Err: os.ErrDeadlineExceeded}:                false,
		&rotate.Busy{}:                                          false,
		&rotate.Cooling{}:                                       false,
		rotate.ErrNoMatch:                                       false,
		rotate.ErrExhausted:                                     false,
		rotate.ErrResources:                                     false,
		resolver.ErrTimeout:                                     false,
		context.Canceled:                                        false,
	} {
		if got := x.isToBlame(t.Context(), fmt.Errorf("dial: %w", err)); got != want {
			t.Errorf("%v: got %v", err, got)
		}
	}
}
