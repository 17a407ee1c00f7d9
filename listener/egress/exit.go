package egress

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"

	"swivel/internal/exit"
	"swivel/internal/target"
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
	if a.Addr().IsUnspecified() {
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

// explainRefusal finds the answer for what another proxy has answered. What that
// says of a destination is passed on; what it says of us is our own business. err is
// what r was found in.
func explainRefusal(err error, r *exit.Refusal) failure {
	f := failure{r.Status, r.Token, "exit " + r.Proxy.Addr(), "", repFailure}
	switch r.Status {
	case 403, 502, 503, 504:
	case 429:
		f.field = retryAfter
	case 500: // which some answer when the destination refuses
		f.status, f.token = 502, tokenUnavailable
	default:
		return failure{503, tokenConfiguration, r.Error(), "", repFailure}
	}
	if derr, ok := errors.AsType[*rotate.Error](err); ok && r.Blame() == exit.Destination && known(derr.Addr).IsValid() {
		f.detail = derr.Addr.String()
	}
	f.token = cmp.Or(f.token, defaultTokens[r.Status])
	switch f.token {
	case "connection_refused":
		f.rep = repRefused
	case tokenUnroutable:
		f.rep = repNetwork
	case "connection_timeout":
		f.rep = repTimeout
	case "dns_error", "dns_timeout", "destination_not_found":
		f.rep = repHost
	case tokenDenied, "destination_ip_prohibited", "proxy_loop_detected":
		f.rep = repNotAllowed
	}
	return f
}

// What a status means of a proxy that says no more.
var defaultTokens = map[int]string{
	403: tokenDenied,
	429: tokenRequest,
	502: tokenUnavailable,
	503: tokenUnavailable,
	504: "connection_timeout",
}

// explainExit finds the answer for a proxy that could not be used.
func explainExit(e *exit.Error) failure {
	if errors.Is(e, rotate.ErrLoop) {
		return explain(target.ErrLoop)
	}
	if e.Asked && isTimeout(e) {
		return failure{504, "connection_timeout", "exit " + e.Proxy.Addr(), "", repTimeout}
	}
	return failure{503, tokenUnavailable, "exit " + e.Proxy.Addr(), retryAfter, repFailure}
}
