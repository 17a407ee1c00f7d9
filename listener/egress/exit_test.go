package egress_test

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"swivel/internal/exit"
	"swivel/internal/proxyproto"
	"swivel/rotate"
)

// exitRig is a Door that leaves through a proxy, which answers text to all. The
// channel has the requests that the proxy was sent.
func exitRig(t *testing.T, p exit.Proxy, text string) (*rig, <-chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	requests := make(chan string, 10)
	go func() { // until ln is closed
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // until the client has gone
				defer c.Close()
				request, in := "", bufio.NewReader(c)
				for !strings.HasSuffix(request, "\r\n\r\n") {
					b, err := in.ReadByte()
					if err != nil {
						return
					}
					request += string([]byte{b})
				}
				requests <- request
				io.WriteString(c, text)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, in)
			}()
		}
	}()
	p.Scheme, p.Host, p.Port = exit.HTTP, "127.0.0.1", ln.Addr().(*net.TCPAddr).AddrPort().Port()
	return newRig(t, func(r *rig) {
		r.Dialer.ID = "swivel-me"
		r.pool.Set(rotate.Config{}, []rotate.Source{{Exit: &p}})
	}), requests
}

const exitDone = "HTTP/1.1 200 OK\r\nSwivel-Source: 203.0.113.5\r\n\r\n"

func TestExitIsTold(t *testing.T) {
	t.Run("the way", func(t *testing.T) {
		r, requests := exitRig(t, exit.Proxy{}, exitDone)
		got := r.talk(t, "CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: a\r\nVia: 1.1 one\r\nvia: 1.0 two (x)\r\n\r\n", 1000)
		_, at, _ := strings.Cut(got, `next-hop="`)
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.HasPrefix(at, fmt.Sprintf("127.0.0.1:%d", r.pool.Sources()[0].Exit.Port)) ||
			!strings.Contains(got, "\r\nSwivel-Source: 203.0.113.5\r\n") {
			t.Errorf("got %q", got)
		}
		if got := <-requests; !strings.Contains(got, "\r\nVia: 1.1 one, 1.0 two (x), 1.1 swivel-me\r\n") {
			t.Errorf("asked %q", got)
		}
		if l := r.line(t); l.Address != "127.0.0.1:443" || !strings.HasPrefix(l.Source, "127.0.0.1:") {
			t.Errorf("line %+v", l)
		}
	})
	t.Run("of sessions", func(t *testing.T) {
		r, requests := exitRig(t, exit.Proxy{User: "gate", Password: "pw", Sessions: true}, exitDone)
		users := make(map[string]bool)
		for _, user := range []string{"alice-session-1", "alice-session-2", "bob-session-1", "alice-session-1"} {
			r.talk(t, "CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(user+":x"))+"\r\n\r\n", 1000)
			_, credentials, _ := strings.Cut(<-requests, "Basic ")
			credentials, _, _ = strings.Cut(credentials, "\r\n")
			b, _ := base64.StdEncoding.DecodeString(credentials)
			if !strings.HasPrefix(string(b), "gate-session-") || !strings.HasSuffix(string(b), ":pw") {
				t.Errorf("%s: logged in as %q", user, b)
			}
			users[string(b)] = true
		}
		if len(users) != 3 {
			t.Errorf("three sessions are told as %v", users)
		}
	})
	t.Run("who the client is", func(t *testing.T) {
		r, requests := exitRig(t, exit.Proxy{Header: 1}, exitDone)
		c := r.dial(t)
		send(t, c, connectHead("127.0.0.1:443"))
		h, n, err := proxyproto.Parse([]byte(<-requests))
		if want := c.LocalAddr().(*net.TCPAddr).AddrPort(); err != nil || n == 0 || h.Src != want || h.Dst != netip.MustParseAddrPort(r.addr) {
			t.Errorf("got %+v, %v; want %s", h, err, want)
		}
	})
}

// TestExitNames: where every source looks names up itself, nobody else does.
func TestExitNames(t *testing.T) {
	r, requests := exitRig(t, exit.Proxy{Names: true}, exitDone)
	r.talk(t, connectHead("Far.example.:443"), 1000)
	if got := <-requests; !strings.HasPrefix(got, "CONNECT far.example:443 ") {
		t.Errorf("asked %q", got)
	}
	if l := r.line(t); l.Target != "far.example:443" || l.Address != "" {
		t.Errorf("line %+v", l)
	}
	if got := r.talk(t, connectHead("localhost:443"), 1000); !strings.HasPrefix(got, "HTTP/1.1 403 destination_ip_prohibited") {
		t.Errorf("localhost: got %q", got)
	}
	if got := r.dns.Queries(); len(got) > 0 {
		t.Errorf("DNS was asked for %q", got)
	}

	// Beside a source that does not, names are looked up as ever.
	r.dns.Set("far.example", loopback)
	sources := []rotate.Source{r.pool.Sources()[0].Source, {Addr: netip.MustParseAddr("127.0.0.2")}}
	r.pool.Set(rotate.Config{}, sources)
	r.talk(t, connectHead("far.example:443"), 1000)
	if got := <-requests; !strings.HasPrefix(got, "CONNECT far.example:443 ") {
		t.Errorf("asked %q", got)
	}
	r.line(t)
	if l := r.line(t); l.Address != "127.0.0.1:443" {
		t.Errorf("line %+v", l)
	}
}

// TestVia is 3a/30: what has been here before goes no further.
func TestVia(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat("1.1 other, ", 17), ", ")
	for _, tt := range []struct {
		via  string
		loop bool
	}{
		{"1.1 swivel-me", true},
		{"1.1 one, 1.1 swivel-me (x), 1.1 two", true},
		{many, true},
		{"1.1 swivel-me2, swivel-me, ", false},
		{",,", false},
	} {
		r, _ := exitRig(t, exit.Proxy{}, exitDone)
		for _, request := range []string{"CONNECT 127.0.0.1:443", "GET http://127.0.0.1/"} {
			got := r.talk(t, request+" HTTP/1.1\r\nHost: a\r\nVia: "+tt.via+"\r\n\r\n", 1000)
			if strings.HasPrefix(got, "HTTP/1.1 502 proxy_loop_detected") != tt.loop {
				t.Errorf("%s, Via: %s: got %q", request, tt.via, got)
			}
		}
	}
}

func TestExitRefuses(t *testing.T) {
	for _, tt := range []struct {
		answer, want string
		rep          byte
	}{
		{"502 x\r\nProxy-Status: a; error=connection_refused", "502 connection_refused 127.0.0.1:443", 5},
		{"502 x\r\nProxy-Status: a; error=destination_ip_unroutable", "502 destination_ip_unroutable exit 127.0.0.1:%d", 3},
		{"504 x\r\nProxy-Status: a; error=connection_timeout", "504 connection_timeout 127.0.0.1:443", 6},
		{"504 x", "504 connection_timeout exit 127.0.0.1:%d", 6},
		{"502 x\r\nProxy-Status: a; error=dns_error", "502 dns_error 127.0.0.1:443", 4},
		{"403 x\r\nProxy-Status: a; error=destination_ip_prohibited", "403 destination_ip_prohibited exit 127.0.0.1:%d", 2},
		{"403 x", "403 http_request_denied exit 127.0.0.1:%d", 2},
		{"429 x", "429 http_request_error exit 127.0.0.1:%d", 1},
		{"500 x", "502 destination_unavailable exit 127.0.0.1:%d", 1},
		{"503 x", "503 destination_unavailable exit 127.0.0.1:%d", 1},
		{"503 x\r\nProxy-Status: a; error=proxy_configuration_error", "503 proxy_configuration_error exit 127.0.0.1:%d", 1},
		{"407 x", "503 proxy_configuration_error exit http://127.0.0.1:%d: 407", 1},
		{"302 x\r\nLocation: http://evil.example/", "503 proxy_configuration_error exit http://127.0.0.1:%d: 302", 1},
		{"nonsense", "503 destination_unavailable exit 127.0.0.1:%d", 1},
	} {
		r, _ := exitRig(t, exit.Proxy{}, "HTTP/1.1 "+tt.answer+"\r\n\r\n")
		want := tt.want
		if strings.Contains(want, "%d") {
			want = fmt.Sprintf(want, r.pool.Sources()[0].Exit.Port)
		}
		if got := r.talk(t, connectHead("127.0.0.1:443"), 1000); !strings.HasPrefix(got, "HTTP/1.1 "+want+"\r\n") {
			t.Errorf("%q: got %q, want %s", tt.answer, got, want)
		}
		got := r.talk(t, "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbb", 1000)
		if len(got) < 4 || got[3] != tt.rep {
			t.Errorf("%q: got %q of SOCKS5, want reply %d", tt.answer, got, tt.rep)
		}
	}
}

// TestExitEarly: an origin that speaks before it is asked is none of HTTP.
func TestExitEarly(t *testing.T) {
	r, _ := exitRig(t, exit.Proxy{}, exitDone+"HTTP/1.1 200 OK\r\n\r\n")
	got := r.talk(t, "GET http://127.0.0.1/ HTTP/1.1\r\nHost: a\r\n\r\n", 1000)
	if !strings.HasPrefix(got, "HTTP/1.1 502 http_protocol_error") {
		t.Errorf("got %q", got)
	}
}
