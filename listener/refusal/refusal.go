// Package refusal says why a client was not connected to its destination, in the words
// of RFC 9209 section 2.3 (Proxy Error Types), which are also what the access line
// has. How a client is told, is its protocol's: see the front doors.
package refusal

import (
	"cmp"
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"swivel/internal/exit"
	"swivel/internal/resolver"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/rotate"
)

// The Proxy Error Types that are in use here.
const (
	DNSTimeout         = "dns_timeout"
	DNSError           = "dns_error"
	NotFound           = "destination_not_found"
	Unavailable        = "destination_unavailable"
	Prohibited         = "destination_ip_prohibited"
	Unroutable         = "destination_ip_unroutable"
	ConnectionRefused  = "connection_refused"
	ConnectionEnded    = "connection_terminated"
	ConnectionTimeout  = "connection_timeout"
	ReadTimeout        = "connection_read_timeout"
	LimitReached       = "connection_limit_reached"
	RequestError       = "http_request_error"
	RequestDenied      = "http_request_denied"
	ProtocolError      = "http_protocol_error"
	InternalError      = "proxy_internal_error"
	ConfigurationError = "proxy_configuration_error"
	LoopDetected       = "proxy_loop_detected"
)

// Refusal is what an error means for the client.
type Refusal struct {
	Status int           // of HTTP
	Type   string        // Proxy Error Type
	Detail string        // what Type does not say; nothing that a client sent
	After  time.Duration // when it may be worth while to try again; zero: not known
}

// soon is when what clients have taken may be free again.
const soon = time.Second

var refusals = []struct {
	of error
	Refusal
}{
	{listener.ErrClient, Refusal{403, RequestDenied, "client address", 0}},
	{listener.ErrPerClient, Refusal{429, RequestError, listener.ErrPerClient.Error(), soon}},
	{listener.ErrConnections, Refusal{503, LimitReached, "", soon}},
	{target.ErrName, Refusal{403, RequestDenied, "name", 0}},
	{target.ErrPort, Refusal{403, RequestDenied, "port", 0}},
	{target.ErrAddress, Refusal{403, Prohibited, "", 0}},
	{target.ErrLoop, Refusal{502, LoopDetected, "", 0}},
	{rotate.ErrLoop, Refusal{502, LoopDetected, "", 0}},
	{resolver.ErrTimeout, Refusal{504, DNSTimeout, "", 0}},
	{resolver.ErrNotFound, Refusal{502, DNSError, "no such name", 0}},
	{resolver.ErrServer, Refusal{502, DNSError, "no answer from the name server", 0}},
	{rotate.ErrNoMatch, Refusal{503, ConfigurationError, "no source is as it was asked for", 0}},
	{rotate.ErrSessionGone, Refusal{503, ConfigurationError, "the source of the session has gone", 0}},
	{rotate.ErrNoSource, Refusal{503, ConfigurationError, "no source address", 0}},
	{rotate.ErrExhausted, Refusal{503, LimitReached, "every source address is exhausted", soon}},
	{rotate.ErrResources, Refusal{503, LimitReached, "out of sockets", soon}},
	{context.Canceled, Refusal{503, LimitReached, "shutting down", soon}},
}

// Of finds the Refusal for an error of the listener, of judging or resolving a target,
// or of connecting to it. It reports false when err is none of these.
func Of(err error) (r Refusal, ok bool) {
	if busy, ok := errors.AsType[*rotate.Busy](err); ok {
		return Refusal{429, RequestError, "every source was used too recently for this target", max(busy.After, soon)}, true
	}
	if cooling, ok := errors.AsType[*rotate.Cooling](err); ok {
		return Refusal{503, LimitReached, "every source is cooling", max(cooling.After, soon)}, true
	}
	if refused, ok := errors.AsType[*exit.Refusal](err); ok {
		return ofExit(err, refused), true
	}
	if e, ok := errors.AsType[*exit.Error](err); ok && !errors.Is(err, context.Canceled) && !errors.Is(err, rotate.ErrLoop) {
		return ofUnusableExit(e), true // whatever it wraps
	}
	for _, r := range refusals {
		if errors.Is(err, r.of) {
			return r.Refusal, true
		}
	}
	if derr, ok := errors.AsType[*rotate.Error](err); ok {
		r := OfConnect(err)
		r.Detail = derr.Addr.String()
		return r, true
	}
	return Refusal{}, false
}

// OfConnect returns the Refusal for what connect(2) has said, or for time that ran out.
func OfConnect(err error) Refusal {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refusal{Status: 502, Type: ConnectionRefused}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		errors.Is(err, syscall.EINVAL), // a blackhole route
		errors.Is(err, syscall.EACCES): // a prohibit route
		return Refusal{Status: 502, Type: Unroutable}
	case IsTimeout(err):
		return Refusal{Status: 504, Type: ConnectionTimeout}
	}
	return Refusal{Status: 502, Type: ConnectionEnded}
}

// IsTimeout reports whether err says that time ran out: a deadline's, a context's or
// TCP's.
func IsTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// ofExit is for what another proxy has answered. What that says of a destination is
// passed on; what it says of us is our own business. err is what r was found in.
func ofExit(err error, r *exit.Refusal) Refusal {
	out := Refusal{r.Status, r.Token, "exit " + r.Proxy.Addr(), 0}
	switch r.Status {
	case 403, 502, 503, 504:
	case 429:
		out.After = soon
	case 500: // which some answer when the destination refuses
		out.Status, out.Type = 502, Unavailable
	default:
		return Refusal{503, ConfigurationError, r.Error(), 0}
	}
	if derr, ok := errors.AsType[*rotate.Error](err); ok && r.Blame() == exit.Destination && exit.IsKnown(derr.Addr) {
		out.Detail = derr.Addr.String()
	}
	out.Type = cmp.Or(out.Type, defaultTypes[r.Status])
	return out
}

// What a status means of a proxy that says no more.
var defaultTypes = map[int]string{
	403: RequestDenied,
	429: RequestError,
	502: Unavailable,
	503: Unavailable,
	504: ConnectionTimeout,
}

// ofUnusableExit is for a proxy that could not be used.
func ofUnusableExit(e *exit.Error) Refusal {
	detail := "exit " + e.Proxy.Addr()
	if e.Asked && IsTimeout(e) {
		return Refusal{504, ConnectionTimeout, detail, 0}
	}
	return Refusal{503, Unavailable, detail, soon}
}
