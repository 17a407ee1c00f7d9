package unwrap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"swivel/internal/proxyproto"
	"swivel/internal/sockopt"
	"swivel/listener"
	"swivel/relay"
)

// Header is which header datagrams have, and which of them.
type Header string

const (
	Every   Header = "every"    // PROXY version 2, each datagram
	First   Header = "first"    // the same, the first datagram of a flow
	FirstV1 Header = "first-v1" // PROXY version 1, the first datagram of a flow: nginx's stream module
	Simple  Header = "simple"   // Simple Proxy Protocol, each datagram; answers have it, too
)

// Datagrams decides about the datagrams that come to one listener. It is the
// relay.Front of its sockets. Its fields are not changed once it is in use.
type Datagrams struct {
	Name    string         // of the listener
	From    []netip.Prefix // who may send datagrams with a header
	Clients []netip.Prefix // which clients are served; empty: everyone
	Form    Header

	IPv4InTCP6 bool // headers may be as proxyproto.ParseLax takes them

	Door    *Door            // judges clients and says where they go to
	Options []sockopt.Option // of every upstream socket
	Ports   *Ports           // of all Datagrams of the same relay.Flows
	Gate    *listener.Gate
	Log     zerolog.Logger

	drops map[string]drop // by reason, since the last Report
}

// Sender implements relay.Front.
func (d *Datagrams) Sender(a netip.Addr) bool { return contain(d.From, a) }

// Once implements relay.Front.
func (d *Datagrams) Once() bool { return d.Form == First || d.Form == FirstV1 }

var (
	errCut     = errors.New("PROXY header is not whole")
	errStream  = errors.New("PROXY header about a connection, on a datagram")
	errVersion = errors.New("PROXY header is not of version 1")
)

// Header implements relay.Front.
func (d *Datagrams) Header(b []byte) (relay.Claim, int, error) {
	h, n, err := d.parse(b)
	switch {
	case err == proxyproto.ErrIncomplete:
		err = errCut
	case err == nil && !h.Local && !h.UDP && d.Form != FirstV1:
		err = errStream
	}
	if err != nil {
		return relay.Claim{}, 0, err
	}
	return relay.Claim{Src: h.Src, Dst: h.Dst, More: h.TLVs}, n, nil
}

func (d *Datagrams) parse(b []byte) (proxyproto.Header, int, error) {
	switch {
	case d.Form == Simple:
		return proxyproto.ParseSimple(b)
	case d.Form != FirstV1:
		return proxyproto.ParseV2(b)
	case len(b) > 0 && b[0] != 'P':
		return proxyproto.Header{}, 0, errVersion
	}
	if d.IPv4InTCP6 {
		return proxyproto.ParseLax(b)
	}
	return proxyproto.Parse(b)
}

// Open implements relay.Front.
func (d *Datagrams) Open(o relay.Origin) (relay.Upstream, error) {
	h := proxyproto.Header{Local: !o.Src.IsValid(), UDP: true, Src: o.Src, Dst: o.Dst, TLVs: o.More}
	src := o.Src
	if d.Door.Source == Own {
		src = netip.AddrPort{}
	}
	dst, err := d.Door.target(context.Background(), o.Local.Port(), o.Dst, src)
	if err == nil {
		err = d.Door.judge(src, dst)
	}
	if err != nil {
		return relay.Upstream{}, err
	}
	f, err := listener.NewFlow(d.Gate, d.Name, o.Sender, h)
	switch {
	case errors.Is(err, listener.ErrConnections):
		return relay.Upstream{}, fmt.Errorf("%w: %w", relay.ErrFull, err)
	case err != nil:
		return relay.Upstream{}, err
	}
	if len(d.Clients) > 0 && !contain(d.Clients, f.Addr.Addr()) {
		f.Abandon()
		return relay.Upstream{}, listener.ErrClient
	}
	s, err := d.socket(src, dst)
	if err != nil {
		f.Abandon()
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			err = fmt.Errorf("%w: %w", relay.ErrFull, err)
		}
		return relay.Upstream{}, err
	}
	l := &f.Line
	l.Mode, l.Address, l.Source, l.Attempts = "unwrap-udp", dst, s.local.Addr().String(), s.attempts
	if o.Dst.IsValid() {
		l.Target = o.Dst.String()
	}
	up := relay.Upstream{FD: s.fd, Closed: func(e relay.FlowEnd) {
		if s.kept {
			d.Ports.giveBack(s.local, dst)
		}
		l.Up, l.Down, l.Reason, l.Err = e.Up, e.Down, string(e.Reason), e.Err
		f.Finish(d.Log)
	}}
	if d.Form == Simple {
		up.Prefix = proxyproto.AppendSimple(nil, h)
	}
	return up, nil
}

// drop is the datagrams that were dropped for one reason, and what there is to say of
// the last one.
type drop struct {
	n      int
	level  zerolog.Level
	sender netip.AddrPort
	err    error
}

// Dropped implements relay.Front.
func (d *Datagrams) Dropped(why relay.Drop, sender netip.AddrPort, err error) {
	level, text := zerolog.WarnLevel, why.String()
	switch why {
	case relay.DropSender, relay.DropHeader:
		level = zerolog.InfoLevel
	case relay.DropRefused:
		level, text = zerolog.InfoLevel, reason(err)
	}
	if d.drops == nil {
		d.drops = make(map[string]drop)
	}
	d.drops[text] = drop{d.drops[text].n + 1, level, sender, err}
}

// Report implements relay.Front: a line for each reason.
func (d *Datagrams) Report() {
	for why, of := range d.drops {
		d.Log.WithLevel(of.level).Str("listener", d.Name).Str("reason", why).Int("datagrams", of.n).
			Stringer("peer", of.sender).Err(of.err).Msg("dropped")
	}
	clear(d.drops)
}

func contain(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}
