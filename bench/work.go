package main

import (
	"context"
	"fmt"
	"time"
)

// work is one thing that relays are measured at.
type work struct {
	name  string
	about string // the heading of its table
	run   func(context.Context, *bench) error
}

// works are done in this order.
var works = []work{
	{"bulk", "bytes in one direction, as many as go", bulk},
	{"roundtrip", "a message there and one of the same size back, on open tunnels", roundtrip},
	{"connect", "a new tunnel, a byte there and back, close", connections},
	{"detector", "1 MiB less a message, a pause, the message, and 1 MiB back", detector},
	{"idle", "tunnels that nothing moves through", idle},
	{"unprivileged", "bulk of 4 connections down, as an ordinary user, with idle tunnels beside it", unprivileged},
	{"slow", "4 connections down beside slow readers", slow},
	{"datagrams", "datagrams to a server that echoes them, which sees swivel's from the clients' own addresses", datagrams},
	{"spike", "memory once many busy tunnels have gone, and idle ones have stayed", spike},
}

func workNames() (names []string) {
	for _, w := range works {
		names = append(names, w.name)
	}
	return names
}

// scale is how much of each work is done.
type scale struct {
	rounds int
	warm   time.Duration // of load before what is measured
	window time.Duration // of load that is measured

	flows       []int // connections of bulk
	sizes       []int // bytes of a message
	exchangers  []int // connections of roundtrip
	connections int   // new ones per round; half as many before it

	trips int           // of a detector
	gap   time.Duration // its pause

	idle       []int         // tunnels
	idleRounds int           // of it; each turn starts a relay
	idleFor    time.Duration // how long their CPU is watched

	beside             []int // idle tunnels beside bulk; the first is 0
	unprivilegedRounds int   // of it

	slow int // readers

	datagrams []datagramCase

	held  int           // tunnels that live through a spike
	spike int           // tunnels that do not
	rest  time.Duration // after it, and of the most idle tunnels
}

var full = scale{
	rounds: 5, warm: 100 * time.Millisecond, window: 400 * time.Millisecond,
	flows: []int{1, 4, 64}, sizes: []int{100, 1 << 10, 16 << 10}, exchangers: []int{1, 16, 256},
	connections: 2000,
	trips:       20, gap: 250 * time.Millisecond,
	idle: []int{1000, 5000}, idleRounds: 2, idleFor: time.Second,
	beside: []int{0, 200, 2000}, unprivilegedRounds: 5,
	slow:      500,
	datagrams: []datagramCase{{1, 1}, {1, 64}, {100, 64}, {10000, 64}},
	held:      500, spike: 2000, rest: time.Minute,
}

var small = scale{
	rounds: 2, warm: 100 * time.Millisecond, window: 250 * time.Millisecond,
	flows: []int{4, 64}, sizes: []int{100, 16 << 10}, exchangers: []int{1, 64},
	connections: 600,
	trips:       8, gap: 250 * time.Millisecond,
	idle: []int{1000}, idleRounds: 1, idleFor: time.Second,
	beside: []int{0, 200, 2000}, unprivilegedRounds: 2,
	slow:      500,
	datagrams: []datagramCase{{1, 64}, {1000, 64}},
	held:      200, spike: 1000, rest: 10 * time.Second,
}

// turns calls measure for each of list in turn, rounds times. One that fails is
// noted and has no further turn.
func turns[T fmt.Stringer](ctx context.Context, b *bench, rounds int, list []T, measure func(T) error) {
	failed := make([]bool, len(list))
	for range rounds {
		for i, r := range list {
			if failed[i] || ctx.Err() != nil {
				continue
			}
			if err := measure(r); err != nil {
				b.report.note(r.String(), err)
				failed[i] = true
			}
		}
	}
}

// relaysFor returns the relays that take part in a work.
func (b *bench) relaysFor(work string) (list []*relay) {
	for _, r := range b.relays {
		if r.does(work) {
			list = append(list, r)
		}
	}
	return list
}
