package rotate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"swivel/internal/exit"
	"swivel/internal/sockopt"
	"swivel/relay"
)

// ErrExhausted means that every source of the pool has all its ports in use
// towards the destination.
var ErrExhausted = errors.New("rotate: every source address is exhausted for this destination")

// ErrResources means that this process or host could not make another socket.
var ErrResources = errors.New("rotate: out of sockets")

// Dialer connects through a Pool.
type Dialer struct {
	Pool *Pool

	// Options are set on every socket before it connects.
	Options []sockopt.Option

	// KeepAlive, when set, is another one, but not towards loopback, where a peer
	// cannot vanish without a word.
	KeepAlive sockopt.Option

	// Lookup finds the addresses of other proxies. Nil means that they have no names.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)

	// ID is what this process is called in the Via field (RFC 9110 section 7.6.3) that
	// other proxies are sent. Destinations are sent nothing of it.
	ID string

	// Loop reports whether an address of a proxy is our own. Nil means that none is.
	Loop func(netip.AddrPort) bool
}

// Request is who asks for a connection, and where to.
type Request struct {
	Addrs  []netip.AddrPort // of the target, in the order in which they are to be tried
	Target string           // the host that was asked for, in canonical form, without port
	Client netip.Addr
	User   string // "" when nobody logged in
	Wants  []Want // only sources that are as all of these say

	Session Session      // keeps to one source; the zero Session is none
	Source  netip.Addr   // no other source than this one; the zero Addr is any
	Exit    exit.Request // what other proxies are told, but for the destination

	// Timeout bounds connecting, beside the context of Dial. Waiting for a source
	// does not count. Zero means no bound.
	Timeout time.Duration
}

// pinned reports whether r is for one source: another one will not do as well, for
// as long as that is there.
func (r *Request) pinned() bool { return r.Session.ID != "" || r.Source.IsValid() }

// target is what r is remembered by.
func (r *Request) target() string {
	if r.Target == "" && len(r.Addrs) > 0 {
		return r.Addrs[0].Addr().String()
	}
	return r.Target
}

// Upstream is a connection made through a source. Whoever called Dial closes it,
// and then calls Done.
type Upstream struct {
	*relay.Socket
	Stream   relay.Duplex // what goes to Addr: the connection, or TLS over it
	Early    int          // bytes that came with the answer of a proxy, and that Stream begins with
	Source   Source
	Said     string         // what a proxy says that it leaves by; "" when it does not
	Addr     netip.AddrPort // of those in the Request, the one that it is connected to
	Attempts int            // connects that were tried, this one included
	Cooling  bool           // Source is cooling, as all are
	turn     *Turn
}

// Done tells the pool that the connection has ended. It may be called twice.
func (u *Upstream) Done() { u.turn.Done() }

// Release returns what has u's Done, and does not keep u.
func (u *Upstream) Release() interface{ Done() } { return u.turn }

// Bound returns l with the limits that the pool has for its connections.
func (u *Upstream) Bound(l relay.Limits) relay.Limits {
	if u.turn != nil {
		l.Age, l.Bytes = u.turn.age, u.turn.bytes
	}
	return l
}

// Error is why no connection came about, as told by the attempt that says most.
type Error struct {
	Source   Source         // what it tried to leave by; zero when there was none
	Addr     netip.AddrPort // what it tried to reach
	Attempts int
	Err      error
}

func (e *Error) Error() string {
	if _, ok := errors.AsType[*net.OpError](e.Err); ok {
		return e.Err.Error() // it names both addresses already
	}
	return fmt.Sprintf("dial %s: %v", e.Addr, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Dial connects to one of r.Addrs, which are tried in their order as RFC 8305 says:
// the next one starts when one fails, or has not connected after 250 ms. All
// attempts of a family leave by one source; a source that is gone or exhausted is
// replaced by the next of the pool. ctx bounds the whole.
//
// The error is an *Error. It wraps ErrNoSource when the pool has no source that
// this host has and that is as r wants it, a *Busy, a *Cooling, ErrSessionGone,
// ErrExhausted, ErrResources, an *exit.Refusal, an *exit.Error, or what connect(2)
// said.
func (d *Dialer) Dial(ctx context.Context, r Request) (*Upstream, error) {
	race := race{dialer: d, request: r}
	race.todo = race.few[:0]
	for _, a := range r.Addrs {
		if d.Pool.Has(a.Addr()) {
			race.todo = append(race.todo, a)
		}
	}
	if len(race.todo) == 0 {
		return nil, &Error{Addr: first(r.Addrs), Err: ErrNoSource}
	}
	if d.Pool.spaced() {
		t, err := d.Pool.await(ctx, &race.request, familiesOf(race.todo))
		if err != nil {
			return nil, &Error{Addr: race.todo[0], Err: err}
		}
		race.families[t.view.ring.family].turn = t
	}
	return race.run(ctx)
}

// familiesOf lists the families of addrs, each once.
func familiesOf(addrs []netip.AddrPort) (families []int) {
	for _, a := range addrs {
		if f := familyOf(a.Addr()); !slices.Contains(families, f) {
			families = append(families, f)
		}
	}
	return families
}

func first(addrs []netip.AddrPort) (a netip.AddrPort) {
	if len(addrs) > 0 {
		a = addrs[0]
	}
	return a
}

// fault is what a failed attempt says about the source.
type fault int

const (
	faultNone        fault = iota // the destination failed, or time ran out
	faultGone                     // this host does not have the address
	faultNoTurn                   // the pool gave none
	faultDown                     // the proxy could not be reached, or makes no sense
	faultRefused                  // the proxy does not want to
	faultSilent                   // the proxy has not answered: perhaps it waits for the destination
	faultExhausted                // no port of it is free towards this destination
	faultUnreachable              // no way from this source, perhaps from none
	faultResources                // nothing to do with the source: no socket could be made
)

// pointsAtSource reports whether a failure may be the source's: see Cooldown.
func (f fault) pointsAtSource(err error) bool {
	switch f {
	case faultDown, faultRefused, faultSilent, faultUnreachable:
		return true
	case faultNone:
		return isTimeout(err)
	}
	return false
}

func classify(err error) fault {
	if why, ok := classifyExit(err); ok {
		return why
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return faultNone
	}
	switch errno {
	case syscall.EADDRNOTAVAIL:
		// From bind: no such address. From connect: the address is there, but with
		// IP_BIND_ADDRESS_NO_PORT it is here that a port is looked for.
		if call, ok := errors.AsType[*os.SyscallError](err); ok && call.Syscall == "bind" {
			return faultGone
		}
		return faultExhausted
	case syscall.EADDRINUSE:
		return faultExhausted
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH,
		syscall.EINVAL, // a blackhole route, or an IPv4 source that was just removed
		syscall.EACCES: // a prohibit route
		return faultUnreachable
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		return faultResources
	}
	return faultNone
}

// attemptDelay is RFC 8305's Connection Attempt Delay.
const attemptDelay = 250 * time.Millisecond

// maxUnreachable is how many sources are tried for a destination that is
// unreachable from each: rules may route by source, but it is more likely that
// the destination is to blame.
const maxUnreachable = 3

// maxExhausted is how many sources without a free port are passed over: the kernel
// may try each of 28,000 ports to find that out. In a larger pool the next Dial goes
// on where this one ended.
const maxExhausted = 64

// maxExits is how many other proxies are tried that refuse or are down.
const maxExits = 16
