package router_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"swivel/internal/proxyproto"
	"swivel/listener"
	"swivel/listener/router"
)

// Clients of every version reach the server whose name they ask for, through nothing
// but their hello.
func TestRoutes(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.routes = []router.Route{
			to(one(secure(t, "all")), "*"),
			to(one(secure(t, "wild")), "*.example.com"),
			to(one(secure(t, "a")), "a.example.com"),
		}
	})
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		for name, want := range map[string]string{
			"A.example.com": "a for A.example.com",
			"b.example.com": "wild for b.example.com",
			"b.a.example":   "all for b.a.example",
			"example.com":   "all for example.com",
		} {
			got, err := asks(r.dial(t), &tls.Config{ServerName: name, MinVersion: version, MaxVersion: version})
			if got != want || err != nil {
				t.Errorf("TLS %x: got %q, %v, want %q", version, got, err, want)
			}
			_, port, _ := net.SplitHostPort(r.addr)
			r.line(t, map[string]any{"mode": "tls", "outcome": "routed", "target": strings.ToLower(name) + ":" + port, "records": 1.0, "source": "127.0.0.2"})
		}
	}
}

// The server sees a hello that was cut as its client sent it, and goes on from there.
func TestRoutesCut(t *testing.T) {
	r := newRig(t, func(r *rig) { r.routes = []router.Route{to(one(secure(t, "a")), "a.example.com")} })
	at := bytes.Index(hello(t, "a.example.com"), []byte("a.example.com"))
	for _, size := range []int{1, 5, at, at + 5, at + 8} {
		c := &cutting{TCPConn: r.dial(t), size: size}
		got, err := asks(c, &tls.Config{ServerName: "a.example.com"})
		if got != "a for a.example.com" || err != nil {
			t.Errorf("records of %d: got %q, %v", size, got, err)
		}
		if l := r.line(t, map[string]any{"outcome": "routed"}); l["records"].(float64) < 2 {
			t.Errorf("records of %d: %v", size, l)
		}
	}
}

// cutting puts the first that is written, in one record, into records of these many
// bytes, and those into several segments.
type cutting struct {
	*net.TCPConn
	size int
}

func (c *cutting) Write(p []byte) (int, error) {
	if c.size == 0 {
		return c.TCPConn.Write(p)
	}
	b := recut(p, c.size)
	c.size = 0
	for len(b) > 0 {
		n, err := c.TCPConn.Write(b[:min(1+len(b)/2, len(b))])
		if err != nil {
			return 0, err
		}
		b = b[n:]
	}
	return len(p), nil
}

func TestRouteByALPN(t *testing.T) {
	r := newRig(t, func(r *rig) {
		h2 := to(one(secure(t, "h2")), "a.example.com")
		h2.ALPN = []string{"h2"}
		r.routes = []router.Route{to(one(secure(t, "any")), "a.example.com"), h2}
	})
	for want, protocols := range map[string][]string{"h2": {"http/1.1", "h2"}, "any": {"http/1.1"}} {
		got, err := asks(r.dial(t), &tls.Config{ServerName: "a.example.com", NextProtos: protocols})
		if !strings.HasPrefix(got, want+" ") || err != nil {
			t.Errorf("got %q, %v, want %s", got, err, want)
		}
		r.line(t, map[string]any{"alpn": strings.Join(protocols, ",")})
	}
}

// 3e/13, and FIN right behind the hello: upstream gets every byte once, in order,
// however it came, and its answer gets back.
func TestReplay(t *testing.T) {
	got := make(chan []byte, 1)
	r := newRig(t, func(r *rig) {
		r.routes = []router.Route{to(one(listen(t, func(c net.Conn) {
			b, _ := io.ReadAll(c)
			got <- b
			fmt.Fprintf(c, "%d bytes", len(b))
		})), "a.example.com")}
	})
	plain := hello(t, "a.example.com")
	early := append([]byte("\x17\x03\x03\x40\x00"), make([]byte, 1<<14)...)
	for _, tt := range []struct {
		name  string
		bytes []byte
		step  int
	}{
		{"at once", plain, len(plain)},
		{"with 0-RTT data", append(bytes.Clone(plain), early...), 1 << 20},
		{"with 1 MB", append(bytes.Clone(plain), bytes.Repeat([]byte("data"), 1<<18)...), 1 << 20},
		{"in two segments", plain, len(plain)/2 + 1},
		{"byte by byte", plain, 1},
		{"in records of one byte", recut(plain, 1), 1 << 20},
		{"in records of one byte, in segments of 7", recut(plain, 1), 7},
		{"in records of 100", append(recut(plain, 100), early...), 1 << 20},
		{"HTTP", []byte("POST / HTTP/1.1\r\nHost: a.example.com\r\n\r\n" + strings.Repeat("body", 10000)), 1 << 20},
		{"HTTP byte by byte", []byte("GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n"), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := r.dial(t)
			for rest := tt.bytes; len(rest) > 0; {
				n, err := c.Write(rest[:min(tt.step, len(rest))])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			c.CloseWrite()
			answer, err := io.ReadAll(c)
			if want := fmt.Sprintf("%d bytes", len(tt.bytes)); string(answer) != want || err != nil {
				t.Errorf("got %q, %v, want %q", answer, err, want)
			}
			if b := <-got; !bytes.Equal(b, tt.bytes) {
				t.Errorf("upstream got %d bytes, not the same", len(b))
			}
			r.line(t, map[string]any{"up": float64(len(tt.bytes)), "reason": "client-closed"})
		})
	}
}

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

// Each outcome can lead somewhere, with every byte of what led to it.
func TestOtherwise(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.FirstByte = 100 * time.Millisecond
		r.Head = 500 * time.Millisecond
		r.Otherwise = router.Otherwise{}
		for _, o := range []router.Outcome{router.NoRoute, router.NoName, router.NotTLS, router.Malformed, router.Timeout, router.TooLarge} {
			route := to(one(greeter(t, string(o)+":")))
			r.Otherwise[o] = &route.Target
		}
	})
	for _, tt := range []struct{ want, bytes string }{
		{"no-route", string(hello(t, "a.example.com"))},
		{"no-route", "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n"},
		{"no-name", string(hello(t, "192.0.2.1"))},
		{"no-name", "GET / HTTP/1.0\r\n\r\n"},
		{"not-tls", "EHLO a.example.com\r\n"},
		{"not-tls", "\x00\x01"},
		{"malformed", "\x16\x03\x01\x00\x00"},
		{"malformed", "GET / HTTP/1.1\r\nHost: a\n"},
		{"too-large", "\x16\x03\x01\x40\x01"},
		{"timeout", "\x16\x03\x01"},
		{"timeout", ""},
	} {
		c := r.dial(t)
		io.WriteString(c, tt.bytes)
		b := make([]byte, len(tt.want)+1+len(tt.bytes))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != tt.want+":"+tt.bytes {
			t.Errorf("got %q, %v, want %s and %q", b, err, tt.want, tt.bytes)
		}
		c.CloseWrite()
		io.ReadAll(c)
		r.line(t, map[string]any{"outcome": tt.want, "up": float64(len(tt.bytes))})
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

// The name is resolved, and the port is the one that the client wanted.
func TestToName(t *testing.T) {
	r := newRig(t, func(r *rig) { r.routes = []router.Route{kind(router.Name, "*")} })
	r.names["a.example.com"] = netip.MustParseAddr("192.0.2.1")
	c := r.dial(t)
	c.Write(hello(t, "a.example.com"))
	if b := last(c); string(b) != alert(49) {
		t.Errorf("got %q, want it to be denied", b)
	}
	r.line(t, map[string]any{"reason": "destination_ip_prohibited"})
	if r.lookups != 1 {
		t.Errorf("%d lookups, want 1", r.lookups)
	}
}

// What leads back to a listener of ours is not dialed, whoever says so: X2.
func TestLoop(t *testing.T) {
	var self string
	r := newRig(t, func(r *rig) {
		r.Policy.Loop = func(ap netip.AddrPort) bool { return ap.String() == self }
		r.Policy.Allow = nil
		r.routes = []router.Route{kind(router.Name, "name.example.com")}
	})
	self = r.addr
	r.names["name.example.com"] = netip.MustParseAddr("127.0.0.1")
	c := r.dial(t)
	c.Write(hello(t, "name.example.com"))
	if b := last(c); string(b) != alert(80) {
		t.Errorf("got %q", b)
	}
	r.line(t, map[string]any{"reason": "proxy_loop_detected", "attempts": 0.0})
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

// The header says who the client is, in front of all that the client says.
func TestSendProxy(t *testing.T) {
	for version, format := range map[router.SendProxy]string{router.V1: "v1", router.V2: "v2"} {
		t.Run(format, func(t *testing.T) {
			got := make(chan []byte, 1)
			r := newRig(t, func(r *rig) {
				route := to(one(listen(t, func(c net.Conn) {
					b, _ := io.ReadAll(c)
					got <- b
				})), "*")
				route.SendProxy = version
				r.routes = []router.Route{route}
			})
			c, b := r.dial(t), hello(t, "a.example.com")
			c.Write(b)
			c.CloseWrite()
			io.ReadAll(c)
			all := <-got
			h, n, err := proxyproto.Parse(all)
			if err != nil || h.Src.String() != c.LocalAddr().String() || h.Dst.String() != r.addr || !bytes.Equal(all[n:], b) {
				t.Errorf("got %+v, %v and %d bytes", h, err, len(all)-n)
			}
			r.line(t, map[string]any{"up": float64(len(b))})
		})
	}
}

// Random bytes end in an outcome or with the client, and never in a panic.
func TestGarbage(t *testing.T) {
	r := newRig(t, func(r *rig) { r.Head = 200 * time.Millisecond })
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		b := hello(t, "a.example.com")
		for range 1 + random.IntN(3) {
			b[random.IntN(len(b))] = byte(random.IntN(256))
		}
		c := r.dial(t)
		c.Write(b)
		c.CloseWrite()
		last(c)
		if l := r.line(t, nil); l["reason"] == "panic" || l["reason"] == "" {
			t.Errorf("%q: %v", b, l)
		}
	}
}
