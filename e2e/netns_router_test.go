//go:build linux

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"swivel/internal/netlab"
)

// Three servers are reached by name, each with its own certificate, wherever the
// client thinks it connects to: by REDIRECT and by TPROXY, over IPv4 and IPv6. Where
// no route says otherwise it is where the client was going, whatever the name: 3e/12.
func TestRouterTransparent(t *testing.T) {
	for _, how := range []string{"redirect", "redirect, iptables", "tproxy", "tproxy, iptables"} {
		t.Run(how, func(t *testing.T) {
			n := newRouted(t)
			dns := netlab.ListenDNS(t, n.router.ListenPacket("udp", "127.0.0.1:53"), nil, map[string][]netip.Addr{
				"b.test": {netip.MustParseAddr(routedAddrs["b.test"][0]), netip.MustParseAddr(routedAddrs["b.test"][1])},
			})
			how, format, _ := strings.Cut(how, ", ")
			flags := []string{"-format", cmp.Or(format, "nft")}
			n.start(fmt.Sprintf(`transparent: %s, capture: [443, 80], routes: [
				{names: a.test, to: ["10.8.0.2:443", "[fd00:8::2]:443"], balance: client},
				{names: b.test, to: name},
				{names: c.test}], destinations: {allow: [10.8.0.0/16, "fd00:8::/32"]}}
resolver: {servers: [%s]}
#`, how, dns.AddrPort()), flags...)
			for family, addr := range nowhere {
				n.reaches("a.test", addr, "")
				n.reaches("b.test", addr, "")
				n.reaches("c.test", routedAddrs["c.test"][family], routedAddrs["c.test"][family]+":443")
				if got := n.curl(n.client, "http", "c.test", routedAddrs["c.test"][family]); !strings.HasPrefix(got, "c.test asked by ") {
					t.Errorf("HTTP: %q", got)
				}
			}
		})
	}
}

// 3a/31: who connects to the port itself is closed at once, however it is written;
// what was captured and is not looked at, or silent, gets where it was going.
func TestRouterDirect(t *testing.T) {
	for _, how := range []string{"redirect", "tproxy"} {
		t.Run(how, func(t *testing.T) {
			n := newRouted(t)
			n.start("transparent: " + how + ", capture: [25, 443, 8443], opaque: [25]")
			for _, addr := range []string{"10.7.0.1:8443", "10.8.0.1:8443", "[fd00:7::1]:8443"} {
				before := len(n.s.lines())
				c := n.dial(addr)
				if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
					t.Errorf("%s: got %q, %v", addr, b, err)
				}
				if l := n.s.lineAfter(before, closed); l.text("reason") != "not-redirected" {
					t.Errorf("%s: %v", addr, l)
				}
			}
			for _, addr := range routedAddrs["b.test"] {
				c := n.dial(net.JoinHostPort(addr, "25"))
				b := make([]byte, len("220 b.test\r\n"))
				if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 b.test\r\n" {
					t.Errorf("%s: got %q, %v", addr, b, err)
				}
				c.Close()
				n.s.line(func(e entry) bool {
					return closed(e) && e.text("outcome") == "opaque" && e.text("address") == net.JoinHostPort(addr, "25")
				})
			}
		})
	}
}

// 3e/1: a server that speaks first is reached after first_byte, where its port is not
// listed as opaque.
func TestRouterServerSpeaksFirst(t *testing.T) {
	n := newRouted(t)
	n.startWith("first_byte: 100ms", "transparent: redirect, capture: [25]")
	for _, addr := range routedAddrs["b.test"] {
		c := n.dial(net.JoinHostPort(addr, "25"))
		b := make([]byte, len("220 b.test\r\n"))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 b.test\r\n" {
			t.Errorf("%s: got %q, %v", addr, b, err)
		}
		alive(t, c)
		c.Close()
		n.s.line(func(e entry) bool {
			return closed(e) && e.text("outcome") == "timeout" && e.text("address") == net.JoinHostPort(addr, "25")
		})
	}
}

// X2: what swivel sends comes back to it, since no rule excludes it. It ends at once,
// whether it sends something, and is looked at, or not.
func TestRouterOwnTraffic(t *testing.T) {
	n := newRouted(t)
	n.start("transparent: redirect, capture: [25, 443], opaque: [25], source: own")
	n.router.Nft("table inet twice {\nchain output {\ntype nat hook output priority -100\ntcp dport { 25, 443 } redirect to :8443\n}\n}\n")
	fds := netlab.FDs(n.s.pid())
	for _, addr := range []string{"10.8.0.2:443", "10.8.0.2:25", "[fd00:8::2]:443", "[fd00:8::2]:25"} {
		before := len(n.s.lines())
		c := n.dial(addr)
		if strings.HasSuffix(addr, ":443") {
			tls.Client(c, &tls.Config{ServerName: "a.test"}).Handshake()
		}
		n.bounded(c, fds)
		n.s.lineAfter(before, func(e entry) bool { return e.text("reason") == "proxy_loop_detected" && e.text("original") == addr })
		if many := n.ended(addr); many > 20 {
			t.Errorf("%s: %d connections", addr, many)
		}
	}
}

// A route that leads back to the router, under another address: no connection is
// known for our own then, and the limit of a client ends it.
func TestRouterRouteBack(t *testing.T) {
	n := newRouted(t)
	sysctl(t, n.far, "ipv4/ip_forward", "1")
	n.far.Batch("route add 10.9.0.0/16 via 10.8.0.1\n")
	n.far.Nft("table inet back {\nchain postrouting {\ntype nat hook postrouting priority 100\nip daddr 10.9.0.0/16 masquerade\n}\n}\n")
	n.start("transparent: redirect, capture: [25, 443], opaque: [25]")
	fds := netlab.FDs(n.s.pid())
	for _, addr := range []string{"10.9.0.9:443", "10.9.0.9:25"} {
		c := n.dial(addr)
		if strings.HasSuffix(addr, ":443") {
			tls.Client(c, &tls.Config{ServerName: "a.test"}).Handshake()
		}
		n.bounded(c, fds)
		if many := n.ended(addr); many > 30 {
			t.Errorf("%s: %d connections, want about the 20 that a client may have", addr, many)
		}
	}
}

// A sidecar: the host's own connections go through swivel, which is told apart by
// the user that it runs as.
func TestRouterSidecar(t *testing.T) {
	n := newRouted(t)
	dir, err := os.MkdirTemp("", "swivel-sidecar-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "swivel")
	if out, err := exec.Command("cp", *binary, bin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	os.Chmod(dir, 0o755)
	flags := []string{"-mode", "sni", "-listen", ":8443", "-transparent", "redirect", "-capture", "443,80"}
	n.load(append(flags, "-exclude", "uid:1234")...)
	cmd := n.router.Command(t.Context(), program(t, "setpriv"), append([]string{"--reuid=1234", "--regid=1234", "--clear-groups", bin}, flags...)...)
	cmd.Env = environ()
	n.s = launch(t, cmd)
	n.s.line(message("listening"))
	for _, addr := range routedAddrs["b.test"] {
		for _, scheme := range []string{"https", "http"} {
			got := n.curl(n.router, scheme, "b.test", addr)
			if !strings.HasPrefix(got, "b.test asked by ") {
				t.Errorf("%s at %s: %q", scheme, addr, got)
			}
			n.s.line(func(e entry) bool {
				port := map[string]string{"https": "443", "http": "80"}[scheme]
				return closed(e) && e.text("original") == net.JoinHostPort(addr, port) && e.text("target") == "b.test:"+port
			})
		}
	}
}

// Upstream sees the client's own address, and what it answers comes back.
func TestRouterSourceClient(t *testing.T) {
	for _, how := range []string{"redirect", "redirect, iptables", "tproxy", "tproxy, iptables"} {
		t.Run(how, func(t *testing.T) {
			n := newRouted(t)
			how, format, _ := strings.Cut(how, ", ")
			n.start("transparent: "+how+", capture: [443], source: client", "-format", cmp.Or(format, "nft"))
			for family, addr := range routedAddrs["a.test"] {
				want := "a.test asked by " + []string{"10.7.0.2", "fd00:7::2"}[family]
				if got := n.curl(n.client, "https", "a.test", addr); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			l := n.s.line(closed)
			if l.text("source") != "10.7.0.2" {
				t.Errorf("source %s", l.text("source"))
			}
		})
	}
}

// X1: tunnels outlive the rules that brought them; without those, clients pass by;
// and with them again, they come again.
func TestRouterRulesFlushed(t *testing.T) {
	n := newRouted(t)
	n.start("transparent: redirect, capture: [25, 443]")
	c := n.dial("10.8.0.2:25")
	fmt.Fprint(c, "\x00hello")
	b := make([]byte, len("220 a.test\r\n\x00hello"))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	// Conntrack, which knows of the tunnel, is there as long as some rule asks for it.
	filter(n.router, "forward", "ct state established accept")
	n.router.Run("nft", "flush", "table", "inet", "swivel")
	alive(t, c)
	if got := n.curl(n.client, "https", "a.test", "10.8.0.2"); got != "a.test asked by 10.7.0.2" {
		t.Errorf("without rules: %q", got)
	}
	n.load("-mode", "sni", "-listen", ":8443", "-transparent", "redirect", "-capture", "25,443")
	if got := n.curl(n.client, "https", "a.test", "10.8.0.2"); got != "a.test asked by 10.8.0.1" {
		t.Errorf("with rules again: %q", got)
	}
	alive(t, c)
}

// X3 and X4: a hello larger than a packet, packets that are lost.
func TestRouterBadLink(t *testing.T) {
	n := newRouted(t)
	n.start("transparent: redirect, capture: [25, 443]")
	for ns, dev := range map[*netlab.Namespace]string{n.client: "net", n.router: "in"} {
		ns.IP("link", "set", dev, "mtu", "1280")
	}
	for _, addr := range routedAddrs["a.test"] {
		if got := n.curl(n.client, "https", "a.test", addr); got == "" || !strings.HasPrefix(got, "a.test asked by ") {
			t.Errorf("small packets: %q", got)
		}
		c := tls.Client(n.dial(net.JoinHostPort(addr, "443")), &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
		if err := c.Handshake(); err != nil {
			t.Errorf("a hello in two packets: %v", err)
		}
		c.Close()
	}
	filter(n.router, "input", "numgen random mod 100 < 3 drop")
	c := n.dial("10.8.0.2:25")
	sent := bytes.Repeat([]byte("\x00 0123456789"), 30_000)
	go c.Write(sent) // until it is read back
	got := make([]byte, len("220 a.test\r\n")+len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got[len("220 a.test\r\n"):], sent) {
		t.Errorf("%v, or other bytes", err)
	}
}

// A browser's hello has a post-quantum key share, GREASE and ECH, and comes in two
// packets.
func TestRouterChromium(t *testing.T) {
	chromium := program(t, "chromium")
	n := newRouted(t)
	n.start(`transparent: redirect, capture: [443], routes: [
		{names: a.test, to: ["10.8.0.2:443"]}, {names: b.test, to: ["10.8.0.3:443"]}, {names: c.test, to: ["10.8.0.4:443"]}]`)
	profile, err := os.MkdirTemp("", "swivel-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: a process of the browser may write there still.
	t.Cleanup(func() { os.RemoveAll(profile) })
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	out, err := n.client.Command(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
		"--no-first-run", "--ignore-certificate-errors", "--user-data-dir="+profile, "--host-resolver-rules=MAP *.test 10.9.0.9",
		"--dump-dom", "https://a.test/page").Output()
	if !strings.Contains(string(out), "a.test asked by 10.8.0.1") {
		t.Errorf("%v, %.300q", err, out)
	}
	for _, name := range routedNames {
		l := n.s.line(func(e entry) bool { return e.text("target") == name+":443" && e["up"].(float64) > 1500 })
		if l["ech"] != true || l.text("alpn") != "h2,http/1.1" || l.text("address") != routedAddrs[name][0]+":443" {
			t.Errorf("%v", l)
		}
	}
}
