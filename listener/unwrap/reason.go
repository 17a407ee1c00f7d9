package unwrap

import (
	"context"
	"errors"
	"syscall"

	"swivel/internal/target"
	"swivel/listener"
	"swivel/listener/refusal"
	"swivel/relay"
)

// reasons are those that are told here otherwise than to clients of a proxy, who ask for
// a target; and what bind(2) says of an address of another host.
var reasons = []struct {
	err    error
	reason string
}{
	{listener.ErrClient, "client-denied"},
	{listener.ErrPerClient, "client-limit"},
	{errSource, "source-denied"},
	{errNoTarget, "no-target"},
	{errNoDestination, "no-target"},
	{target.ErrPort, refusal.Prohibited},
	{context.Canceled, string(relay.Drained)},
	{syscall.EADDRNOTAVAIL, refusal.LimitReached}, // no port is left
	{syscall.EADDRINUSE, refusal.LimitReached},
	{syscall.EMFILE, refusal.LimitReached},
	{syscall.ENFILE, refusal.LimitReached},
	{syscall.EPERM, refusal.InternalError}, // no privilege, or the packet filter
}

// reason is what the access line has for err.
func reason(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	if r, ok := refusal.Of(err); ok {
		return r.Type
	}
	return refusal.OfConnect(err).Type
}
