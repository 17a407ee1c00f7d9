package listener

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"swivel/internal/proxyproto"
)

var (
	fromLoopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	fromOthers   = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
)

const (
	lineV1 = "PROXY TCP4 198.51.100.7 203.0.113.9 1234 25565\r\n"
	asV1   = "198.51.100.7:1234 at 203.0.113.9:25565|"
)

func headerV2(src string, tlvs proxyproto.TLVs) string {
	return string(proxyproto.AppendV2(nil, proxyproto.Header{
		Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort("[2001:db8::9]:25565"), TLVs: tlvs,
	}))
}

// names answers with who the client is, and then echoes.
func names(_ context.Context, c *Client) {
	dst := netip.AddrPort{}
	if c.Claim != nil {
		dst = c.Claim.Dst
	}
	fmt.Fprintf(c, "%v at %v|", c.Addr, dst)
	echo(context.Background(), c)
}

func proxied(t *testing.T, svc *Service) *running {
	t.Helper()
	svc.Proxies = fromLoopback
	if svc.Head == 0 {
		svc.Head = time.Minute
	}
	return run(t, svc, 1000, 100, 100)
}

// 3c/7, 3c/12: whatever the segments, the header is taken off and every byte behind
// it is left, another header among them.
func TestProxiedTakesTheHeaderOff(t *testing.T) {
	r := proxied(t, &Service{Door: door{serve: names}})
	v2 := headerV2("[2001:db8::7]:1234", proxyproto.TLVs(nil).Append(4, make([]byte, 3000)))
	for header, as := range map[string]string{lineV1: asV1, v2: "[2001:db8::7]:1234 at [2001:db8::9]:25565|"} {
		text := header + lineV1 + strings.Repeat("payload", 100)
		want := as + text[len(header):]
		for cut := range min(len(header)+2, 70) {
			c := r.dial(t)
			io.WriteString(c, text[:cut])
			io.WriteString(c, text[cut:])
			c.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(c); string(got) != want {
				t.Fatalf("cut at %d: got %.200q, %v", cut, got, err)
			}
		}
		c := r.dial(t)
		for i := range len(header) {
			io.WriteString(c, text[i:i+1])
		}
		io.WriteString(c, text[len(header):])
		c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); string(got) != want {
			t.Errorf("in single bytes: got %.200q, %v", got, err)
		}
	}
}

// 3c/6: a header that names nobody leaves the peer.
func TestProxiedNamesNobody(t *testing.T) {
	r := proxied(t, &Service{Door: door{serve: names}})
	for _, header := range []string{"PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 x\r\n", string(proxyproto.AppendV2(nil, proxyproto.Header{Local: true}))} {
		c := r.dial(t)
		want := c.LocalAddr().String() + " at invalid AddrPort|x"
		if io.WriteString(c, header); ask(t, c, strings.Repeat("x", len(want))) == "" {
			t.Fatal("nothing")
		}
		c.Close()
	}
	r.until(t, 0)
	for _, l := range r.log.with(t, "closed") {
		if l["client"] != l["peer"] {
			t.Errorf("got %v", l)
		}
	}
}

// 3c/1 to 3c/5, 3c/8 to 3c/11, 3c/13: what is no header is closed, without an
// answer, and with a reason.
func TestProxiedRefuses(t *testing.T) {
	refused := func(_ *Client, why error) { t.Errorf("told of %v", why) }
	serve := func(_ context.Context, c *Client) { t.Errorf("served %v", c.Addr) }
	udp := string(proxyproto.AppendV2(nil, proxyproto.Header{
		UDP: true, Src: netip.MustParseAddrPort("198.51.100.7:1"), Dst: netip.MustParseAddrPort("198.51.100.8:1"),
	}))
	v2 := headerV2("[2001:db8::7]:1234", nil)
	for _, tt := range []struct {
		name, text, reason string
		head               time.Duration
		open               bool
	}{
		{name: "nothing, and closed", reason: "no-header"},
		{name: "half, and closed", text: "PROXY TCP4 198", reason: "no-header"},
		{name: "half of v2, and closed", text: v2[:15], reason: "no-header"},
		{name: "nothing", reason: "no-header", head: time.Millisecond, open: true},
		{name: "half", text: "PROXY TCP4 198", reason: "no-header", head: 10 * time.Millisecond, open: true},
		{name: "15 of 16 bytes", text: v2[:15], reason: "no-header", head: 10 * time.Millisecond, open: true},
		{name: "another protocol", text: "GET / HTTP/1.1\r\n\r\n", reason: "bad-header", open: true},
		{name: "v1 port 99999", text: "PROXY TCP4 198.51.100.7 203.0.113.9 99999 1\r\n", reason: "bad-header", open: true},
		{name: "16-byte v2 header", text: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x00", reason: "bad-header", open: true},
		{name: "28-byte TCP6 header", text: "\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x0c123456789012", reason: "bad-header", open: true},
		{name: "a length of 65535", text: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff1234", reason: "bad-header", open: true},
		{name: "datagrams", text: udp, reason: "bad-header", open: true},
		{name: "from loopback", text: "PROXY TCP4 0.0.0.0 203.0.113.9 1 1\r\n", reason: "bad-header", open: true},
		{name: "from multicast", text: "PROXY TCP6 ff02::1 2001:db8::1 1 1\r\n", reason: "bad-header", open: true},
		{name: "from broadcast", text: "PROXY TCP4 255.255.255.255 203.0.113.9 1 1\r\n", reason: "bad-header", open: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := proxied(t, &Service{Door: door{serve: serve, refuse: refused}, Head: tt.head})
			c := r.dial(t)
			io.WriteString(c, tt.text)
			if !tt.open {
				c.(*net.TCPConn).CloseWrite()
			}
			if got, _ := io.ReadAll(c); len(got) > 0 {
				t.Errorf("answered %q", got)
			}
			r.until(t, 0)
			r.end()
			if l := r.log.with(t, "closed"); len(l) != 1 || l[0]["reason"] != tt.reason || l[0]["error"] == nil || l[0]["level"] != "info" {
				t.Errorf("got %v", l)
			}
			if r.Gate.open != 0 || len(r.Gate.clients) != 0 {
				t.Errorf("left behind: %v, %d open", r.Gate.clients, r.Gate.open)
			}
		})
	}
}

func TestPlausible(t *testing.T) {
	for _, tt := range []struct {
		a, peer string
		want    bool
	}{
		{"198.51.100.7", "192.0.2.1", true},
		{"127.0.0.1", "192.0.2.1", false},
		{"127.0.0.1", "127.0.0.1", true},
		{"::1", "2001:db8::1", false},
		{"::1", "127.0.0.1", true},
	} {
		if got := plausible(netip.MustParseAddr(tt.a), netip.MustParseAddr(tt.peer)); got != tt.want {
			t.Errorf("%s, says %s: got %v", tt.a, tt.peer, got)
		}
	}
}

// 3c/16: of others no header is read. It is payload, or nothing of them is.
func TestProxiedTakesNoHeaderOfOthers(t *testing.T) {
	r := run(t, &Service{Door: door{serve: names}, Proxies: fromOthers}, 1000, 100, 100)
	c := r.dial(t)
	io.WriteString(c, lineV1)
	c.(*net.TCPConn).CloseWrite()
	want := c.LocalAddr().String() + " at invalid AddrPort|" + lineV1
	if got, _ := io.ReadAll(c); string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}

	for _, from := range [][]netip.Prefix{fromOthers, nil} { // an empty list is nobody
		r := run(t, &Service{Proxied: true, Proxies: from, Door: door{
			serve:  func(context.Context, *Client) { t.Error("served") },
			refuse: func(*Client, error) { t.Error("told") },
		}}, 1000, 100, 100)
		c := r.dial(t)
		io.WriteString(c, lineV1)
		if got, _ := io.ReadAll(c); len(got) > 0 {
			t.Errorf("answered %q", got)
		}
		r.until(t, 0)
		if l := r.log.with(t, "closed"); len(l) != 1 || l[0]["reason"] != "untrusted-peer" {
			t.Errorf("got %v", l)
		}
	}
}

// Limits and rules count the client that the header names, not the balancer.
func TestProxiedLimits(t *testing.T) {
	refused := make(chan error, 10)
	d := door{serve: names, refuse: func(_ *Client, why error) { refused <- why }}
	r := run(t, &Service{Door: d, Proxies: fromLoopback, Proxied: true, Head: time.Minute, Clients: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, 1000, 100, 1)
	claim := func(addr string) net.Conn {
		c := r.dial(t)
		fmt.Fprintf(c, "PROXY TCP4 %s 203.0.113.9 1 2\r\n", addr)
		return c
	}
	here := claim("198.51.100.7")
	ask(t, here, "x")
	ask(t, claim("198.51.100.8"), "x")
	for addr, want := range map[string]error{"198.51.100.7": ErrPerClient, "192.0.2.1": ErrClient} {
		io.ReadAll(claim(addr))
		if got := <-refused; got != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
	here.Close()
	r.until(t, 1)
	ask(t, claim("198.51.100.7"), "x")

	r.Gate.Limit(2, 100) // both are here
	io.ReadAll(claim("198.51.100.9"))
	r.until(t, 2)
	if l := r.log.with(t, "closed"); l[len(l)-1]["reason"] != "connection_limit_reached" {
		t.Errorf("got %v", l[len(l)-1])
	}
}

func TestProxiedDeadlineIsOver(t *testing.T) {
	const head = 20 * time.Millisecond
	r := proxied(t, &Service{Door: door{serve: names}, Head: head})
	for {
		c := r.dial(t)
		io.WriteString(c, lineV1)
		if _, err := io.ReadFull(c, make([]byte, len(asV1))); err != nil {
			continue // the machine is slow
		}
		time.Sleep(2 * head)
		if got := ask(t, c, "still here"); got != "still here" {
			t.Errorf("got %q", got)
		}
		return
	}
}

func TestProxiedLine(t *testing.T) {
	r := proxied(t, &Service{Door: door{serve: names}})
	c := r.dial(t)
	tlvs := proxyproto.TLVs(nil).Append(proxyproto.Authority, []byte("a.example\r\n\xff"+strings.Repeat("x", 1000))).Append(proxyproto.UniqueID, []byte("id-1"))
	io.WriteString(c, headerV2("[2001:db8::7]:1234", tlvs))
	ask(t, c, "x")
	peer := c.LocalAddr().String()
	c.Close()
	r.until(t, 0)
	l := r.log.with(t, "closed")
	if len(l) != 1 || l[0]["client"] != "[2001:db8::7]:1234" || l[0]["peer"] != peer || l[0]["unique_id"] != "id-1" {
		t.Fatalf("got %v", l)
	}
	if a := l[0]["authority"].(string); !strings.HasPrefix(a, "a.example\r\n") || len(a) > 300 {
		t.Errorf("authority %q", a)
	}
}
