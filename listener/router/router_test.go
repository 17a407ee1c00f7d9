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
