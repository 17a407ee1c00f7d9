package listener

import (
	"context"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"swivel/internal/sockopt"
	"swivel/relay"
)

// Client is an accepted connection. It belongs to the goroutine that serves it,
// then to its tunnel, but for End.
type Client struct {
	*relay.Socket
	Addr  netip.AddrPort // the client's own, which limits, rules and the log speak of: the one in its PROXY header, or Remote
	Claim *Claim         // nil without a PROXY header

	// Accepting is done when no more clients are accepted where c came from, or
	// another Service is there for them: c may finish what it is at, but is not to
	// be kept for more.
	Accepting context.Context

	// Line is what the access line will say.
	Line Line

	server   *Server
	admitted bool // counts for the limits of Gate
	named    bool // by its address, too
	relayed  bool // is a tunnel, which will call finish
	logged   bool // a request of it has been

	mu sync.Mutex
	// guards
	ended relay.Reason // by End
	leg   leg
}

// leg is the connection to an upstream that serves a client at the moment.
type leg struct {
	net.Conn
	by interface{ End(relay.Reason) } // nil when there is none
}

// ends returns both of its ends.
func (l *leg) ends() pair { return pair{l.local(), addrPort(l.RemoteAddr())} }

func (l *leg) local() netip.AddrPort {
	if s, ok := l.Conn.(interface{ Local() netip.AddrPort }); ok {
		return s.Local()
	}
	return addrPort(l.LocalAddr())
}

// ender makes a function what ends a leg.
type ender func(relay.Reason)

func (f ender) End(why relay.Reason) { f(why) }

func newClient(s *Server, svc *inUse, conn *relay.Socket) *Client {
	c := &Client{
		Socket:    conn,
		Addr:      conn.Remote(),
		Accepting: svc.using,
		server:    s,
	}
	c.Line = c.NewLine(svc.Name)
	return c
}

// NewLine returns an access line about c with what is known of every client. A
// Door that serves several requests of one client writes one of its own for each.
func (c *Client) NewLine(listener string) Line {
	return Line{Listener: listener, Start: time.Now()}
}

// End ends c for the given reason, whatever it is doing; its peers see a reset.
// It may be called by any goroutine.
func (c *Client) End(why relay.Reason) {
	c.mu.Lock()
	if c.ended == "" {
		c.ended = why
	}
	by := c.leg.by
	c.mu.Unlock()
	if by != nil {
		by.End(why)
		return
	}
	relay.Abort(c.Socket)
}

// Ended returns the reason given to End, or "".
func (c *Client) Ended() relay.Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// Attach says that c is now served through the connection upstream, and that cut
// ends it. It calls cut at once when c has been ended already. Detach must follow.
func (c *Client) Attach(upstream net.Conn, cut func(relay.Reason)) { c.attach(upstream, ender(cut)) }

func (c *Client) attach(upstream net.Conn, by interface{ End(relay.Reason) }) {
	l := leg{upstream, by}
	c.mu.Lock()
	c.leg = l
	ended := c.ended
	c.mu.Unlock()
	c.server.Table.addLocal(l.local())
	if ended != "" {
		by.End(ended)
	}
}

// Detach undoes Attach.
func (c *Client) Detach() {
	c.mu.Lock()
	l := c.leg
	c.leg = leg{}
	c.mu.Unlock()
	c.server.Table.removeLocal(l.local())
}

// leaves reports whether c is served through an upstream connection from one of net.
func (c *Client) leaves(net netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leg.by != nil && net.Contains(c.leg.local().Addr())
}

// Relay makes a tunnel between client, which is c or a layer above it, and upstream.
// It is the last thing that a Door does for c, and may return before that. When both
// directions have ended, both connections have been closed; held, unless it is nil, is
// done with, and c is finished. Line says how it went.
func (c *Client) Relay(client, upstream relay.Duplex, l relay.Limits, held interface{ Done() }) {
	p := relay.NewPipe(client, upstream, l)
	c.relayed = true
	c.attach(upstream, p)
	p.Start(func(reason relay.Reason, err error) {
		defer c.finish()
		defer c.rescue()
		c.Detach()
		c.Line.Up, c.Line.Down = p.Up(), p.Down()
		c.Line.Reason, c.Line.Err = string(reason), err
		if held != nil {
			held.Done()
		}
	})
}

// finish is the end of c: it writes the access line, closes the connection, and
// gives back what c took of the limits.
func (c *Client) finish() {
	c.log()
	c.server.Table.remove(c)
	if c.named {
		c.server.Gate.unname(c.Addr.Addr())
	}
	if c.admitted {
		c.server.Gate.leave()
	}
	if !c.relayed { // its tunnel has closed it
		c.Close()
	}
	c.server.Gate.release()
	c.server.serving.Done()
}

// rescue, which is deferred, makes a panic cost one connection: the client sees a
// reset, the log has the stack, everyone else goes on.
func (c *Client) rescue() {
	r := recover()
	if r == nil {
		return
	}
	c.server.Log.Error().Interface("panic", r).Bytes("stack", debug.Stack()).
		Stringer("client", c.Addr).Msg("bug")
	c.Line.Reason = "panic"
	c.End(relay.Killed)
}

// OurOwn reports whether c is an upstream connection of this very process that
// the packet filter sent back to it. What such a connection was meant for is known
// to conntrack: SO_ORIGINAL_DST. With TPROXY it is the socket's own address.
func (c *Client) OurOwn() bool {
	if !c.server.Table.hasLocal(c.Remote()) {
		return false
	}
	if c.server.Table.has(pair{c.Remote(), c.Local()}) {
		return true
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	dst, err := sockopt.OriginalDst(rc, c.Remote().Addr().Is4())
	return err == nil && c.server.Table.has(pair{c.Remote(), dst})
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
