package router_test

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"swivel/listener"
	"swivel/listener/router"
)

// alert is what a TLS client is told.
func alert(description byte) string { return string([]byte{21, 3, 3, 0, 2, 2, description}) }

// Each outcome is closed, with the answer that the client understands, and dials
// nothing: 3e/2 to 3e/11.
func TestRefuses(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.routes = []router.Route{kind(router.Close, "closed.example.com"), kind(router.Name, "*.name.example")}
		r.names["private.name.example"] = netip.MustParseAddr("127.0.0.1")
		r.Head = 500 * time.Millisecond
	})
	for _, tt := range []struct {
		name, bytes, answer string
		outcome, reason     string
	}{
		{"a closed route", string(hello(t, "closed.example.com")), alert(112), "routed", "closed"},
		{"no route", string(hello(t, "a.example.com")), alert(112), "no-route", "no-route"},
		{"no name", string(hello(t, "192.0.2.1")), alert(109), "no-name", "no-name"},
		{"malformed", "\x16\x03\x01\x00\x00", alert(50), "malformed", "malformed"},
		{"a name with NUL", strings.Replace(string(hello(t, "a.example.com")), "a.example.com", "a.exam\x00le.com", 1), alert(50), "malformed", "malformed"},
		{"too large", "\x16\x03\x01\x40\x01", alert(50), "too-large", "too-large"},
		{"not TLS", "SSH-2.0-x\r\n", "", "not-tls", "not-tls"},
		{"a private address", string(hello(t, "private.name.example")), alert(49), "routed", "destination_ip_prohibited"},
		{"a name that is not there", string(hello(t, "none.name.example")), alert(112), "routed", "dns_error"},
		{"HTTP, a closed route", "GET / HTTP/1.1\r\nHost: closed.example.com\r\n\r\n", "HTTP/1.1 421 closed", "routed", "closed"},
		{"HTTP, no route", "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "HTTP/1.1 421 no-route", "no-route", "no-route"},
		{"HTTP, no Host", "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 no-name", "no-name", "no-name"},
		{"HTTP, two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400 malformed", "malformed", "malformed"},
		{"HTTP, too large", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 64<<10), "HTTP/1.1 431 too-large", "too-large", "too-large"},
		{"HTTP, a private address", "GET / HTTP/1.1\r\nHost: private.name.example\r\n\r\n", "HTTP/1.1 403 destination_ip_prohibited", "routed", "destination_ip_prohibited"},
		{"half a hello", string(hello(t, "a.example.com")[:100]), "", "timeout", "timeout"},
		{"half a request", "GET / HTTP/1.1\r\n", "HTTP/1.1 408 timeout", "timeout", "timeout"},
		{"nothing", "", "", "timeout", "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := r.dial(t)
			io.WriteString(c, tt.bytes)
			answer := last(c)
			if head, _, _ := strings.Cut(string(answer), "\r\n"); head != tt.answer {
				t.Errorf("got %q, want %q", head, tt.answer)
			}
			l := r.line(t, map[string]any{"outcome": tt.outcome, "reason": tt.reason, "attempts": 0.0, "address": "", "up": 0.0})
			if l["error"] == nil {
				t.Error("the line has no error")
			}
		})
	}
}

// A client that leaves before it has said what it wants is no outcome.
func TestGone(t *testing.T) {
	r := newRig(t, func(r *rig) { r.routes = []router.Route{kind(router.Name, "*")} })
	for bytes, want := range map[string]map[string]any{
		"":                               {"reason": "no-hello", "outcome": ""},
		"\x16\x03\x01":                   {"reason": "malformed", "outcome": "malformed"},
		"GET / HTTP/1.1\r\nHost: a.exam": {"reason": "malformed", "outcome": "malformed"},
		"QUIT":                           {"reason": "not-tls", "outcome": "not-tls"},
	} {
		c := r.dial(t)
		io.WriteString(c, bytes)
		c.CloseWrite()
		last(c)
		r.line(t, want)
	}
	c := r.dial(t)
	io.WriteString(c, "\x16\x03\x01")
	c.SetLinger(0)
	c.Close()
	r.line(t, map[string]any{"reason": "no-hello"})
}

// Who is not served is told so.
func TestRefuse(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.service.Clients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	for bytes, want := range map[string]string{
		string(hello(t, "a.example.com")): alert(49),
		"GET / HTTP/1.1\r\n":              "HTTP/1.1 403 http_request_denied\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		"\x00":                            "",
	} {
		c := r.dial(t)
		io.WriteString(c, bytes)
		if b := last(c); string(b) != want {
			t.Errorf("got %q, want %q", b, want)
		}
		l := r.line(t, map[string]any{"reason": "http_request_denied", "error": listener.ErrClient.Error()})
		if l["outcome"] != nil {
			t.Errorf("outcome %v", l["outcome"])
		}
	}
}

// 3e/1: a byte now and then does not make the time longer.
func TestSlowHello(t *testing.T) {
	r := newRig(t, func(r *rig) { r.Head = 300 * time.Millisecond })
	c := r.dial(t)
	gone := make(chan bool)
	go func() { // until the client is closed
		io.ReadAll(c)
		close(gone)
	}()
	for i := range 100_000 {
		select {
		case <-gone:
			r.line(t, map[string]any{"outcome": "timeout"})
			return
		case <-time.After(10 * time.Millisecond):
			c.Write(hello(t, "a.example.com")[i : i+1])
		}
	}
}
