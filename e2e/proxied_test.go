//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A listener of mode connect takes PROXY headers of the peers that it lists, and of no
// others. What it then counts and logs is the client that the header names.
func TestAcceptProxy(t *testing.T) {
	echo := newEcho(t, nil)
	s := start(t, "-config", config(t, `
pools: {main: {sources: [{address: 127.0.0.1}]}}
limits: {per_client: 1}
listeners:
  - {name: egress, listen: "127.0.0.1:0", accept_proxy: [127.0.0.9], clients: [127.0.0.1, 198.51.100.0/24],
     destinations: {allow: [127.0.0.0/8], ports: [1-65535]}}
`))
	proxy := s.addr("egress")
	from := func(src, text string) *net.TCPConn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(src)}}
		c, err := d.DialContext(context.Background(), "tcp", proxy)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, text)
		return c.(*net.TCPConn)
	}
	answer := func(c net.Conn) string {
		t.Helper()
		head, err := connect(c, echo)
		if err != nil {
			t.Fatal(err)
		}
		return field("status: "+head[len("HTTP/1.1 "):], "status")
	}
	line := func(match func(entry) bool) entry {
		t.Helper()
		return s.lineAfter(0, func(e entry) bool { return closed(e) && match(e) })
	}

	const header = "PROXY TCP4 198.51.100.7 203.0.113.9 5001 8080\r\n"
	c := from("127.0.0.9", header)
	if got := answer(c); !strings.HasPrefix(got, "200 ") {
		t.Fatalf("with a header: %s", got)
	}
	alive(t, c)
	if got := answer(from("127.0.0.9", header)); !strings.HasPrefix(got, "429 ") {
		t.Errorf("a second connection of the same client: %s", got)
	}
	if got := answer(from("127.0.0.9", "PROXY TCP4 192.0.2.1 203.0.113.9 5001 8080\r\n")); !strings.HasPrefix(got, "403 ") {
		t.Errorf("of a client who may not connect: %s", got)
	}
	c.Close()
	line(func(e entry) bool {
		return e.text("client") == "198.51.100.7:5001" && strings.HasPrefix(e.text("peer"), "127.0.0.9:") && e.text("reason") == "client-closed"
	})

	if got := answer(from("127.0.0.1", "")); !strings.HasPrefix(got, "200 ") {
		t.Errorf("of a peer that is not listed, directly: %s", got)
	}
	// 3c/16: its header is not read, and is no protocol that is served.
	if got, _ := io.ReadAll(from("127.0.0.1", header)); strings.Contains(string(got), " 200 ") {
		t.Errorf("of a peer that is not listed, a header: %q", got)
	}
	// It is required of the others, never guessed at.
	if got, _ := io.ReadAll(from("127.0.0.9", "CONNECT "+echo+" HTTP/1.1\r\nHost: x\r\n\r\n")); len(got) > 0 {
		t.Errorf("without a header: %q", got)
	}
	line(func(e entry) bool { return e.text("reason") == "bad-header" })
	answer(from("127.0.0.9", "PROXY TCP4 127.0.0.1 203.0.113.9 5001 8080\r\n")) // which is believed of a peer on loopback
	line(func(e entry) bool { return e.text("client") == "127.0.0.1:5001" })
}

// The client that a header names stays the client through a router by server name,
// which tells the next one of it.
func TestAcceptProxyAndSendProxy(t *testing.T) {
	origin := newTLSOrigin(t, nil)
	last := start(t, "-config", config(t, `
listeners: [{name: last, listen: "127.0.0.1:0", mode: unwrap, from: [127.0.0.1], to: "`+origin.addr+`", source: own}]`))
	for _, version := range []string{"v1", "v2"} {
		router := start(t, "-config", config(t, `
listeners:
  - {name: router, listen: "127.0.0.1:0", mode: sni, accept_proxy: [127.0.0.1],
     routes: [{names: [a.example], to: ["`+last.addr("last")+`"], send_proxy: `+version+`}]}`))
		n := len(last.lines())
		c := dial(t, router.addr("router"))
		io.WriteString(c, "PROXY TCP4 198.51.100.7 203.0.113.9 5001 443\r\n")
		s := tls.Client(c, &tls.Config{ServerName: "a.example", InsecureSkipVerify: true})
		if err := s.Handshake(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		for _, s := range []*swivel{router, last} {
			after := 0
			if s == last {
				after = n
			}
			if l := s.lineAfter(after, closed); l.text("client") != "198.51.100.7:5001" {
				t.Errorf("%s: got %v", version, l)
			}
		}
	}
}
