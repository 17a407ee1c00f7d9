package unwrap

import (
	"context"
	"errors"
	"net"
	"syscall"

	"swivel/internal/target"
	"swivel/listener"
	"swivel/relay"
)

var reasons = []struct {
	err    error
	reason string
}{
	{listener.ErrClient, "client-denied"},
	{listener.ErrPerClient, "client-limit"},
	{listener.ErrConnections, "connection_limit_reached"},
	{errSource, "source-denied"},
	{errNoTarget, "no-target"},
	{errNoDestination, "no-target"},
	{target.ErrLoop, "proxy_loop_detected"},
	{target.ErrAddress, "destination_ip_prohibited"},
	{target.ErrPort, "destination_ip_prohibited"},
	{context.Canceled, string(relay.Drained)},
	{syscall.ECONNREFUSED, "connection_refused"},
	{syscall.EHOSTUNREACH, "destination_ip_unroutable"},
	{syscall.ENETUNREACH, "destination_ip_unroutable"},
	{syscall.EINVAL, "destination_ip_unroutable"},       // a blackhole route
	{syscall.EACCES, "destination_ip_unroutable"},       // a prohibit route
	{syscall.EADDRNOTAVAIL, "connection_limit_reached"}, // no port is left
	{syscall.EADDRINUSE, "connection_limit_reached"},
	{syscall.EMFILE, "connection_limit_reached"},
	{syscall.ENFILE, "connection_limit_reached"},
	{syscall.EPERM, "proxy_internal_error"}, // no privilege, or the packet filter
}

// reason is what the access line has for err; for what connect(2) said, the words of
// RFC 9209 section 2.3.
func reason(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	if isTimeout(err) {
		return "connection_timeout"
	}
	return "connection_terminated"
}

func isTimeout(err error) bool {
	var nerr net.Error
	return errors.As(err, &nerr) && nerr.Timeout()
}
