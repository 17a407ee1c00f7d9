package refusal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"swivel/internal/exit"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/rotate"
)

var (
	addr  = netip.MustParseAddrPort("192.0.2.1:443")
	named = netip.MustParseAddrPort("0.0.0.0:443") // a proxy looks the name up
	proxy = &exit.Proxy{Scheme: exit.HTTP, Host: "proxy.test", Port: 8080}
)

func dialing(err error) error { return &rotate.Error{Addr: addr, Err: err} }

func TestOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want Refusal
	}{
		{"a client", listener.ErrClient, Refusal{403, RequestDenied, "client address", 0}},
		{"a target, wrapped", fmt.Errorf("why: %w", target.ErrPort), Refusal{403, RequestDenied, "port", 0}},
		{"no source", dialing(rotate.ErrNoSource), Refusal{503, ConfigurationError, "no source address", 0}},
		{"busy", &rotate.Busy{After: 2 * time.Second}, Refusal{429, RequestError, "every source was used too recently for this target", 2 * time.Second}},
		{"busy for a moment", &rotate.Busy{After: time.Millisecond}, Refusal{429, RequestError, "every source was used too recently for this target", time.Second}},
		{"cooling", dialing(&rotate.Cooling{After: time.Minute}), Refusal{503, LimitReached, "every source is cooling", time.Minute}},
		{"refused", dialing(syscall.ECONNREFUSED), Refusal{502, ConnectionRefused, addr.String(), 0}},
		{"a blackhole", dialing(syscall.EINVAL), Refusal{502, Unroutable, addr.String(), 0}},
		{"too slow", dialing(os.ErrDeadlineExceeded), Refusal{504, ConnectionTimeout, addr.String(), 0}},
		{"reset", dialing(syscall.ECONNRESET), Refusal{502, ConnectionEnded, addr.String(), 0}},
		{"drained", dialing(context.Canceled), Refusal{503, LimitReached, "shutting down", time.Second}},

		{"an exit says where it failed", dialing(&exit.Refusal{Proxy: proxy, Status: 502, Token: ConnectionRefused}), Refusal{502, ConnectionRefused, addr.String(), 0}},
		{"and of a name", &rotate.Error{Addr: named, Err: &exit.Refusal{Proxy: proxy, Status: 502, Token: DNSError}}, Refusal{502, DNSError, "exit proxy.test:8080", 0}},
		{"an exit says little", dialing(&exit.Refusal{Proxy: proxy, Status: 503}), Refusal{503, Unavailable, "exit proxy.test:8080", 0}},
		{"an exit's own failure", dialing(&exit.Refusal{Proxy: proxy, Status: 500, Token: InternalError}), Refusal{502, Unavailable, "exit proxy.test:8080", 0}},
		{"an exit's limit", dialing(&exit.Refusal{Proxy: proxy, Status: 429}), Refusal{429, RequestError, "exit proxy.test:8080", time.Second}},
		{"an exit that wants a password", dialing(&exit.Refusal{Proxy: proxy, Status: 407}), Refusal{503, ConfigurationError, "exit http://proxy.test:8080: 407", 0}},
		{"an exit is down", dialing(&exit.Error{Proxy: proxy, Err: syscall.ECONNREFUSED}), Refusal{503, Unavailable, "exit proxy.test:8080", time.Second}},
		{"an exit is silent", dialing(&exit.Error{Proxy: proxy, Asked: true, Err: os.ErrDeadlineExceeded}), Refusal{504, ConnectionTimeout, "exit proxy.test:8080", 0}},
		{"an exit would lead back", dialing(&exit.Error{Proxy: proxy, Err: rotate.ErrLoop}), Refusal{502, LoopDetected, "", 0}},
		{"an exit while we drain", dialing(&exit.Error{Proxy: proxy, Err: context.Canceled}), Refusal{503, LimitReached, "shutting down", time.Second}},
	} {
		if got, ok := Of(tt.err); got != tt.want || !ok {
			t.Errorf("%s: got %+v, %t, want %+v", tt.name, got, ok, tt.want)
		}
	}
	// What Of does not know, and a door that was about to connect does.
	if got := OfConnect(context.DeadlineExceeded); got.Status != 504 || got.Type != ConnectionTimeout {
		t.Errorf("time ran out: got %+v", got)
	}
	for _, err := range []error{io.EOF, errors.New("a bug"), os.ErrDeadlineExceeded} {
		if got, ok := Of(err); ok {
			t.Errorf("%v: got %+v", err, got)
		}
	}
}
