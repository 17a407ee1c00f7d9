//go:build linux

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const noSource = "503 proxy_configuration_error"

// S1: a tunnel ends when its source has been away for a second.
// S2: one whose source is back by then lives, and loses nothing.
func TestNetS1S2(t *testing.T) {
	for _, tt := range []struct{ family, stays, returns, goes, origin, prefix string }{
		{"IPv4", "10.1.0.1", "10.1.0.2", "10.1.0.3", origin4, "/24"},
		{"IPv6", "2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3", origin6, "/64"},
	} {
		t.Run(tt.family, func(t *testing.T) {
			n := newNetwork(t)
			n.start(settings{pool: `sources: [{address: "` + tt.stays + `"}, {address: "` + tt.returns + `"}, {address: "` + tt.goes + `"}]`})
			stays, returns, goes := n.tunnelFrom(tt.stays, tt.origin), n.tunnelFrom(tt.returns, tt.origin), n.tunnelFrom(tt.goes, tt.origin)
			for _, c := range []net.Conn{stays, returns, goes} {
				alive(t, c)
			}
			logged := len(n.s.lines())
			n.proxy.Batch("addr del " + tt.returns + tt.prefix + " dev out\naddr del " + tt.goes + tt.prefix + " dev out\n")
			n.pool(logged, tt.stays)
			io.WriteString(returns, "ping\n") // it cannot leave now
			n.proxy.Addr("out", tt.returns+tt.prefix)

			// The second of the one that returns is over before that of the one that
			// does not: it was removed first.
			e := n.s.lineAfter(logged, closed)
			if e.text("reason") != "source-gone" || e.text("source") != tt.goes {
				t.Errorf("ended: %v; want %s, source-gone", e, tt.goes)
			}
			if _, err := io.ReadAll(goes); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client of %s got %v, want a reset", tt.goes, err)
			}
			got := make([]byte, len("ping\n"))
			if _, err := io.ReadFull(returns, got); err != nil || string(got) != "ping\n" {
				t.Errorf("what was sent while %s was away came back as %q, %v", tt.returns, got, err)
			}
			alive(t, returns)
			alive(t, stays)
			if from := n.askAll(tt.origin, tt.origin, tt.origin); slices.Contains(from, tt.goes) || !slices.Contains(from, tt.returns) {
				t.Errorf("new ones leave by %v", from)
			}
			eventually(t, "the connections are not those of the two that live", func() bool { return n.legs() == 2 })
		})
	}
}

// S1, when what the source carries is the response to a plain HTTP request.
func TestNetS1HTTP(t *testing.T) {
	n := newNetwork(t)
	ln := n.far.Listen("tcp", "10.2.0.1:80")
	n.start(settings{pool: "sources: [{address: 10.1.0.2}]"})
	c, err := n.proxy.Dial(t.Context(), "tcp", proxyAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, "GET http://10.2.0.1/ HTTP/1.1\r\nHost: 10.2.0.1\r\n\r\n")
	upstream, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	fmt.Fprint(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r.Body, make([]byte, len("half of it"))); err != nil {
		t.Fatal(err)
	}
	n.proxy.IP("addr", "del", "10.1.0.2/24", "dev", "out")
	if _, err := io.ReadAll(r.Body); err == nil {
		t.Error("the response ended as if it were complete")
	}
	if e := n.s.line(closed); e.text("reason") != "source-gone" || e.text("source") != "10.1.0.2" {
		t.Errorf("ended: %v; want source-gone", e)
	}
}

// Nothing leaves by an address that is not of the pool, though there is one, when
// the pool has none; and all is well again when it has.
func TestNetAllSourcesGone(t *testing.T) {
	n := newNetwork(t)
	n.proxy.Addr("out", "10.1.0.9/24", "2001:db8:1::9/64")
	count(n.far, "prerouting", "other4", "ip saddr 10.1.0.9 ip daddr 10.2.0.0/24")
	count(n.far, "prerouting", "other6", "ip6 saddr 2001:db8:1::9 ip6 daddr 2001:db8:2::/64")
	count(n.proxy, "output", "any4", "ip daddr 10.2.0.0/24 tcp flags syn")
	count(n.proxy, "output", "any6", "ip6 daddr 2001:db8:2::/64 tcp flags syn")
	n.start(settings{pool: `sources: [{address: 10.1.0.1}, {address: 10.1.0.2}, {address: "2001:db8:1::1"}, {address: "2001:db8:1::2"}]`})
	n.askAll(origin4, origin6)
	before4, before6 := n.proxy.Counter("any4"), n.proxy.Counter("any6")
	if before4 == 0 || before6 == 0 {
		t.Fatalf("the counters saw %d and %d packets of two requests", before4, before6)
	}

	n.proxy.Batch(`addr del 10.1.0.1/24 dev out
addr del 10.1.0.2/24 dev out
addr del 2001:db8:1::1/64 dev out
addr del 2001:db8:1::2/64 dev out
`)
	var slowest time.Duration
	for range 10 { // from the first on: swivel may not know yet, but the kernel does
		for _, target := range []string{origin4, origin6} {
			start := time.Now()
			n.answers(target, noSource)
			slowest = max(slowest, time.Since(start))
		}
	}
	if got4, got6 := n.proxy.Counter("any4"), n.proxy.Counter("any6"); got4 != before4 || got6 != before6 {
		t.Errorf("connections were tried without a source: %d and %d", got4-before4, got6-before6)
	}
	n.proxy.Addr("out", "10.1.0.2/24", "2001:db8:1::1/64")
	n.heals(origin4, "10.1.0.2")
	n.heals(origin6, "2001:db8:1::1")
	if got4, got6 := n.far.Counter("other4"), n.far.Counter("other6"); got4+got6 != 0 {
		t.Errorf("%d and %d packets left by an address that is not of the pool", got4, got6)
	}
	t.Logf("the slowest of 20 answers without a source took %v", slowest)
}

// heals waits until target can be reached again, and fails the test unless that is
// by the source given, and until then the answer was that there is none.
func (n *network) heals(target, source string) {
	n.t.Helper()
	eventually(n.t, "does not heal: "+source, func() bool {
		r := n.ask(target)
		if r.status() == "200" {
			if r.from != source {
				n.t.Errorf("it leaves by %s, want %s", r.from, source)
			}
			return true
		}
		if r.status() != noSource {
			n.t.Fatalf("got %q, want %s until it heals", r.head, noSource)
		}
		return false
	})
}

// S3: without promote_secondaries the kernel removes all addresses of a prefix
// together with the first.
func TestNetS3(t *testing.T) {
	n := newNetwork(t)
	sysctl(t, n.proxy, "ipv4/conf/all/promote_secondaries", "0")
	n.start(settings{})
	n.pool(0, slices.Concat(sources4, sources6)...)
	logged := len(n.s.lines())
	n.proxy.IP("addr", "del", "10.1.0.1/24", "dev", "out")
	n.pool(logged, sources6...)
	n.answers(origin4, noSource)
	n.askAll(origin6)
	n.proxy.Addr("out", "10.1.0.3/24")
	n.proxy.IP("route", "add", "default", "via", "10.1.0.254")
	n.heals(origin4, "10.1.0.3")
}

// S4: an IPv6 address counts from the moment on that duplicate address detection
// is done with it. Also one that is listed by itself, which IP_FREEBIND would let
// swivel use before.
func TestNetS4(t *testing.T) {
	for _, source := range []string{"interface: out", `address: "2001:db8:1::7"`} {
		t.Run(source, func(t *testing.T) {
			n := newNetwork(t)
			n.proxy.IP("-6", "addr", "flush", "dev", "out", "scope", "global")
			sysctl(t, n.proxy, "ipv6/conf/out/accept_dad", "1")
			sysctl(t, n.proxy, "ipv6/conf/out/dad_transmits", "2") // a second each
			n.start(settings{pool: "sources: [{" + source + "}]"})
			n.proxy.IP("addr", "add", "2001:db8:1::7/64", "dev", "out")
			n.proxy.IP("route", "replace", "::/0", "via", "2001:db8:1::fe", "dev", "out", "onlink")
			tentative := func() bool {
				return strings.Contains(n.proxy.IP("-6", "addr", "show", "dev", "out", "tentative"), "2001:db8:1::7")
			}
			n.answers(origin6, noSource)
			if source == "interface: out" {
				n.proxy.Addr("out", "10.1.0.8/24")
				n.pool(0, append(sources4, "10.1.0.8")...) // and not the other
			}
			if !tentative() {
				t.Fatal("the address was not tentative for long enough to see anything")
			}
			n.heals(origin6, "2001:db8:1::7")
			if tentative() {
				t.Error("the address was used while it was tentative")
			}
		})
	}
}

// C2: what is not there at the start is told, and used as soon as it is.
func TestNetC2(t *testing.T) {
	n := newNetwork(t)
	n.start(settings{pool: "sources: [{interface: late}]"})
	if e := n.s.line(message("pool")); e.text("level") != "warn" {
		t.Errorf("got %v, want a warning", e)
	}
	n.answers(origin4, noSource)
	n.proxy.IP("link", "add", "name", "late", "type", "bridge")
	n.proxy.IP("link", "set", "late", "up")
	n.proxy.Addr("late", "10.1.0.7/32")
	n.far.IP("route", "add", "10.1.0.7/32", "via", "10.1.0.1")
	n.heals(origin4, "10.1.0.7")
}
