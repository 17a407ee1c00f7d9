package listener

import (
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"swivel/internal/proxyproto"
)

// Flow is a client whose datagrams are relayed: what of Client is not about a
// connection. It counts for the limits of its Gate until Finish or Abandon.
type Flow struct {
	Addr  netip.AddrPort // the client's own
	Peer  netip.AddrPort // who sent the first datagram
	Claim *Claim

	// Line is what the access line will say.
	Line Line

	gate *Gate
}

// NewFlow admits a client that a PROXY header names. Its error is ErrConnections, also
// when descriptors run out, or ErrPerClient.
func NewFlow(g *Gate, listener string, peer netip.AddrPort, h proxyproto.Header) (*Flow, error) {
	f := &Flow{Addr: peer, Peer: peer, Claim: newClaim(h), gate: g, Line: Line{Listener: listener, Start: time.Now()}}
	if !h.Local {
		f.Addr = h.Src
	}
	if err := g.enterFlow(f.Addr.Addr()); err != nil {
		return nil, err
	}
	return f, nil
}

// Finish is the end of f: it writes the access line and gives back what f took of the
// limits.
func (f *Flow) Finish(log zerolog.Logger) {
	f.Line.write(log, f.Addr, f.Peer, f.Claim)
	f.Abandon()
}

// Abandon is Finish without a line, for a flow that did not come to be.
func (f *Flow) Abandon() { f.gate.leaveFlow(f.Addr.Addr()) }
