package egress

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"

	"swivel/internal/exit"
	"swivel/listener"
	"swivel/rotate"
)

// exitRequest is what another proxy is told of the client.
func (s *session) exitRequest(l *listener.Line) exit.Request {
	r := exit.Request{Client: s.c.Addr, Conn: s.c.Socket, Via: s.via}
	if l.Session != "" {
		// Sessions are a user's own; the proxy knows all of ours as one user.
		sum := sha256.Sum256([]byte(l.User + "\x00" + l.Session))
		r.Session = hex.EncodeToString(sum[:8])
	}
	return r
}

// known is a, unless it stands for a name that a proxy has looked up.
func known(a netip.AddrPort) netip.AddrPort {
	if !exit.IsKnown(a) {
		return netip.AddrPort{}
	}
	return a
}

// left is what the connection to the destination leaves by, as far as is known.
func left(up *rotate.Upstream, l *listener.Line) string { return cmp.Or(up.Said, l.Source) }

// bound is the same for SOCKS5, which has no words for what is no address.
func bound(up *rotate.Upstream) netip.AddrPort {
	if up.Source.Exit == nil {
		return up.Local()
	}
	a, err := netip.ParseAddr(up.Said)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, 0)
}
