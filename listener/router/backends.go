package router

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"swivel/internal/exit"
	"swivel/internal/resolver"
	"swivel/internal/target"
	"swivel/rotate"
)

// Balance says which of several backends is tried first.
type Balance int

const (
	RoundRobin Balance = iota
	Least              // the one with the fewest connections
	ByClient           // always the same for a client, as long as it is there
)

// Backends are servers of which each can serve a client. One that fails is left out
// for a second, and for twice as long each time, or until a check finds it again;
// when all are, all are tried.
type Backends struct {
	Balance Balance
	Every   time.Duration // between checks; zero: there are none

	// Changed is called when a backend is left out, with the reason, and with nil when
	// it is there again. It may be called by several goroutines; nil is allowed.
	Changed func(backend target.Target, err error)

	list []*backend
	turn atomic.Uint64
}

// backend is one server.
type backend struct {
	target target.Target
	key    string // Backends.rank

	mu sync.Mutex
	// guards
	open  int // connections, and those that are being made
	fails int // in a row
	until time.Time
}

const (
	leaveOut     = time.Second
	leaveOutMost = time.Minute
	forever      = 100 * 365 * 24 * time.Hour
)

// NewBackends returns the Backends that are at these targets.
func NewBackends(balance Balance, targets ...target.Target) *Backends {
	b := &Backends{Balance: balance}
	for _, t := range targets {
		b.list = append(b.list, &backend{target: t, key: t.String()})
	}
	return b
}

// order returns the backends in the order in which they are to be tried for client.
func (b *Backends) order(client netip.Addr) []*backend {
	if len(b.list) == 1 {
		return b.list
	}
	now := time.Now()
	var in, out []*backend
	for _, x := range b.list {
		if x.isOut(now) {
			out = append(out, x)
		} else {
			in = append(in, x)
		}
	}
	b.arrange(in, client)
	b.arrange(out, client)
	return append(in, out...)
}

func (b *Backends) arrange(list []*backend, client netip.Addr) {
	if len(list) < 2 {
		return
	}
	if b.Balance == ByClient {
		slices.SortFunc(list, func(x, y *backend) int { return cmp.Compare(rank(y.key, client), rank(x.key, client)) })
		return
	}
	n := int((b.turn.Add(1) - 1) % uint64(len(list)))
	slices.Reverse(list[:n])
	slices.Reverse(list[n:])
	slices.Reverse(list)
	if b.Balance == Least {
		slices.SortStableFunc(list, func(x, y *backend) int { return cmp.Compare(x.connections(), y.connections()) })
	}
}

// rank is rendezvous hashing: of a client's backends the one with the highest rank
// goes first, so that one which comes or goes moves only the clients that are its
// own. An IPv6 user has a whole /64.
func rank(key string, client netip.Addr) uint64 {
	if client.Is6() {
		p, _ := client.Prefix(64)
		client = p.Addr()
	}
	h := fnv.New64a()
	h.Write(client.AsSlice())
	h.Write([]byte(key))
	x := h.Sum64()
	// FNV alone hardly changes the high bits when the last byte does: MurmurHash3's
	// finalizer.
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// addrs returns the addresses of x, except for those that lead back here.
func (x *backend) addrs(ctx context.Context, lookup func(context.Context, string) ([]netip.Addr, error), loops func(netip.AddrPort) bool) ([]netip.AddrPort, error) {
	found := []netip.Addr{x.target.Addr}
	if x.target.Name != "" {
		var err error
		if found, err = lookup(ctx, x.target.Name); err != nil {
			return nil, err
		}
	}
	var addrs []netip.AddrPort
	for _, a := range found {
		if ap := netip.AddrPortFrom(a.Unmap(), x.target.Port); !loops(ap) {
			addrs = append(addrs, ap)
		}
	}
	if len(addrs) == 0 {
		return nil, target.ErrLoop
	}
	return addrs, nil
}

// isToBlame reports whether err says something of the backend: neither of our own
// sources and sockets, nor that the client's time is over.
func (x *backend) isToBlame(ctx context.Context, err error) bool {
	for _, ours := range []error{rotate.ErrNoSource, rotate.ErrExhausted, rotate.ErrResources, rotate.ErrLoop, resolver.ErrServer, resolver.ErrTimeout, context.Canceled} {
		if errors.Is(err, ours) {
			return false
		}
	}
	_, busy := errors.AsType[*rotate.Busy](err)
	_, cooling := errors.AsType[*rotate.Cooling](err)
	_, exitFailed := errors.AsType[*exit.Error](err)
	refused, ok := errors.AsType[*exit.Refusal](err)
	exitFailed = exitFailed || ok && refused.Blame() != exit.Destination
	return !busy && !cooling && !exitFailed && !errors.Is(ctx.Err(), context.Canceled)
}

func (x *backend) enter() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open++
}

func (x *backend) leave() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open--
}

func (x *backend) connections() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.open
}

func (x *backend) isOut(now time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return now.Before(x.until)
}

// failed leaves x out for a while.
func (b *Backends) failed(x *backend, err error) {
	now := time.Now()
	x.mu.Lock()
	first := x.fails == 0
	if !now.Before(x.until) { // else it has been left out while this was tried
		x.fails++
		x.until = now.Add(min(leaveOut<<min(x.fails-1, 10), leaveOutMost))
		if b.Every > 0 {
			x.until = now.Add(forever)
		}
	}
	x.mu.Unlock()
	if first && b.Changed != nil {
		b.Changed(x.target, err)
	}
}

// succeeded takes x in again.
func (b *Backends) succeeded(x *backend) {
	x.mu.Lock()
	again := x.fails > 0
	x.fails, x.until = 0, time.Time{}
	x.mu.Unlock()
	if again && b.Changed != nil {
		b.Changed(x.target, nil)
	}
}
