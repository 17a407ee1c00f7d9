// Package unwrap is the front door of a server that is to see its clients although
// a load balancer stands before it: the PROXY header is off when a client comes
// here, and the server is connected to from the client's own address.
//
//	unwrap.go   a client, from its header to the tunnel
//	source.go   which addresses are believed
//	reason.go   what the access line has for what went wrong
//	datagrams.go, datagramsocket.go: the same for datagrams
//	dial.go     the connection to the server, from an address of another host
//
// What the server sends back to such an address must be routed to this host, which
// is the administrator's to arrange: see `swivel check` and `swivel rules`. The
// package reads nothing of what is relayed.
package unwrap

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"swivel/internal/sockopt"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/relay"
)

// Source is what the server sees of a client.
type Source string

const (
	KeepPort Source = "keep-port" // its address and port, or another port when that is taken
	AnyPort  Source = "any-port"  // its address
	Own      Source = "own"       // nothing: an address of this host, of the kernel's choice
)

// Door serves one listener's clients, each of which has a listener.Claim. Its fields
// are not changed once it is in use.
type Door struct {
	// To is where clients are connected to, one target of a family at most. Port 0 is
	// the one that the client came to. None means the header's destination, if Policy
	// allows it.
	To     []netip.AddrPort
	Policy *target.Policy

	Source Source
	Allow  []netip.Prefix            // claimed sources that are refused otherwise
	Own    func(netip.Addr) bool     // reports an address of this host
	Loop   func(netip.AddrPort) bool // reports an address that a listening socket of ours answers at

	Options   []sockopt.Option // of every socket before it connects
	KeepAlive sockopt.Option   // another one, but not towards loopback

	Dial   time.Duration
	Limits relay.Limits
}

var (
	errNoTarget      = errors.New("no target of the client's address family")
	errNoDestination = errors.New("a PROXY header without destination")
)

// Serve implements listener.Door.
func (d *Door) Serve(ctx context.Context, c *listener.Client) {
	l := &c.Line
	l.Mode = "unwrap"
	if dst := c.Claim.Dst; dst.IsValid() {
		l.Target = dst.String()
	}
	up, err := d.connect(ctx, c)
	if err != nil {
		l.Err = err
		if c.Ended() == "" {
			l.Reason = reason(err)
		}
		relay.Abort(c.Socket) // that the server was not reached is no end of a stream
		return
	}
	c.Relay(c.Socket, up, d.Limits, nil)
}

func (d *Door) connect(ctx context.Context, c *listener.Client) (*relay.Socket, error) {
	src := c.Addr
	if c.Claim.Local || d.Source == Own {
		src = netip.AddrPort{}
	}
	dst, err := d.target(ctx, cameTo(c), c.Claim.Dst, src)
	if err != nil {
		return nil, err
	}
	if err := d.judge(src, dst); err != nil {
		return nil, err
	}
	start := time.Now()
	up, err := d.dial(ctx, &c.Line, src, dst)
	c.Line.Connect = time.Since(start)
	return up, err
}

// target is where a client is connected to that came to port, and whose header names
// dst: from src or, if that is not valid, from an address of this host.
func (d *Door) target(ctx context.Context, port uint16, dst, src netip.AddrPort) (netip.AddrPort, error) {
	if len(d.To) == 0 {
		return d.destination(ctx, dst, src)
	}
	for _, to := range d.To {
		if src.IsValid() && src.Addr().Is4() != to.Addr().Is4() {
			continue
		}
		if to.Port() == 0 {
			to = netip.AddrPortFrom(to.Addr(), port)
		}
		if d.Loop != nil && d.Loop(to) {
			return to, target.ErrLoop
		}
		return to, nil
	}
	return netip.AddrPort{}, errNoTarget
}

// destination judges the one that a header names.
func (d *Door) destination(ctx context.Context, dst, src netip.AddrPort) (netip.AddrPort, error) {
	switch {
	case !dst.IsValid():
		return dst, errNoDestination
	case src.IsValid() && src.Addr().Is4() != dst.Addr().Is4():
		return dst, errNoTarget
	}
	_, err := d.Policy.Resolve(ctx, target.Target{Addr: dst.Addr(), Port: dst.Port()}, nil)
	return dst, err
}

// Refuse implements listener.Door. There is no protocol to tell c anything in.
func (d *Door) Refuse(c *listener.Client, why error) {
	c.Line.Mode, c.Line.Reason = "unwrap", reason(why)
	relay.Abort(c.Socket)
}

func cameTo(c *listener.Client) uint16 {
	return c.Local().Port()
}
