package rotate

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"swivel/internal/exit"
	"swivel/relay"
)

// leg is the connection that an attempt has made. Its fields are those of Upstream.
type leg struct {
	*relay.Socket
	stream relay.Duplex
	early  int
	said   string
}

// open makes one attempt to reach dst by src.
func (r *race) open(ctx context.Context, src Source, dst netip.AddrPort) (leg, error) {
	if src.Exit != nil {
		return r.leave(ctx, src.Exit, dst)
	}
	c, err := r.dialer.connect(ctx, src, dst, r.until)
	return leg{Socket: c, stream: c}, err
}

// The parts of the time that a Dial has in which a proxy must be reached, and then
// answer: there must be time left for another one.
const (
	ReachPart  = 4
	answerPart = 2
	noTimeout  = 10 * time.Second
)

// leave makes one attempt to reach dst through another proxy.
func (r *race) leave(ctx context.Context, p *exit.Proxy, dst netip.AddrPort) (leg, error) {
	reach, cancel := context.WithTimeout(ctx, r.time/ReachPart)
	defer cancel()
	c, err := r.dialer.reach(reach, p)
	if err != nil {
		return leg{}, &exit.Error{Proxy: p, Err: err}
	}
	answer, cancel := context.WithTimeout(ctx, r.time/answerPart)
	defer cancel()
	ask := r.request.Exit
	ask.Addr, ask.Name = dst, r.request.name()
	if id := r.dialer.ID; id != "" {
		ask.Via = strings.TrimPrefix(ask.Via+", 1.1 "+id, ", ")
	}
	t, err := p.Open(answer, c, &ask)
	if err != nil {
		relay.Abort(c)
		return leg{}, err
	}
	l := leg{c, relay.NewConn(c, t.Early), len(t.Early), t.Source}
	if t.TLS != nil {
		l.stream = t.TLS
	}
	return l, nil
}

// name is the target when it is a name, else "".
func (r *Request) name() string {
	if _, err := netip.ParseAddr(r.Target); err == nil {
		return ""
	}
	return r.Target
}

// maxExitAddrs bounds how many addresses of a proxy are tried.
const maxExitAddrs = 4

// ErrLoop means that a proxy turned out to be this very one.
var ErrLoop = errors.New("rotate: it is this very proxy")

var errNoLookup = errors.New("a name, and nobody to look it up")

// reach connects to a proxy. The source is the kernel's choice. That the address may
// be dialed is the word of who configured it.
func (d *Dialer) reach(ctx context.Context, p *exit.Proxy) (*relay.Socket, error) {
	addrs, err := d.addrs(ctx, p.Host)
	for i, a := range addrs {
		dst := netip.AddrPortFrom(a, p.Port)
		if d.Loop != nil && d.Loop(dst) {
			return nil, ErrLoop
		}
		deadline, _ := ctx.Deadline()
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		var c *relay.Socket
		c, err = d.connect(share, Source{}, dst, time.Time{})
		cancel()
		if err == nil {
			return c, nil
		}
	}
	return nil, err
}

func (d *Dialer) addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if d.Lookup == nil {
		return nil, errNoLookup
	}
	addrs, err := d.Lookup(ctx, host)
	return addrs[:min(len(addrs), maxExitAddrs)], err
}

// mayLack reports whether a proxy may have refused because it has no way out in the
// family of the address, while there are addresses of the other one: they are tried
// before other proxies, of which the same may be true, and it is held against none.
func (r *race) mayLack(res result, why fault) bool {
	if res.src.Exit == nil || why != faultRefused && why != faultUnreachable {
		return false
	}
	family := familyOf(res.dst.Addr())
	return r.pending > 0 || slices.ContainsFunc(r.todo, func(a netip.AddrPort) bool { return familyOf(a.Addr()) != family })
}

// classifyExit is classify, for what a proxy did or said. It reports whether that is
// what err is.
func classifyExit(err error) (why fault, ok bool) {
	if refusal, ok := errors.AsType[*exit.Refusal](err); ok {
		switch refusal.Blame() {
		case exit.Itself:
			return faultRefused, true
		case exit.Either:
			return faultUnreachable, true
		}
		return faultNone, true
	}
	e, ok := errors.AsType[*exit.Error](err)
	switch {
	case !ok:
		return faultNone, false
	case e.Asked && isTimeout(err):
		return faultSilent, true
	}
	return faultDown, true
}

// Probe finds out whether a proxy can be reached, with a good certificate where it is to
// have one, within limit. It asks for nothing.
func (d *Dialer) Probe(ctx context.Context, p *exit.Proxy, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := d.reach(ctx, p)
	if err != nil {
		return err
	}
	defer c.Close()
	return p.Greet(ctx, c)
}
