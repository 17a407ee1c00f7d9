//go:build linux

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// routed is what the tests of mode sni run in.
//
//	┌ client ──────┐    ┌ router ─────────────┐    ┌ far ──────────────────────┐
//	│ 10.7.0.2     ├────┤ 10.7.0.1   10.8.0.1 ├────┤ 10.8.0.2 a.test           │
//	│ fd00:7::2    │    │ fd00:7::1 fd00:8::1 │    │ 10.8.0.3 b.test           │
//	│              │    │ swivel on port 8443 │    │ 10.8.0.4 c.test           │
//	└──────────────┘    └─────────────────────┘    │ fd00:8::2 ::3 ::4 as well │
//	                                               └───────────────────────────┘
//
// In far are three TLS servers on port 443, each with a certificate of its own, an
// HTTP server on port 80 of each address, and one on port 25 that speaks first. They
// say who they are and who asks. The client connects to whatever it likes: 10.9.0.0/16
// and fd00:9::/32 are routed to far, where nobody answers.
type routed struct {
	t                   *testing.T
	client, router, far *netlab.Namespace
	trust               string // file of all certificates
	s                   *swivel
}

var (
	routedNames = []string{"a.test", "b.test", "c.test"}
	routedAddrs = map[string][2]string{
		"a.test": {"10.8.0.2", "fd00:8::2"}, "b.test": {"10.8.0.3", "fd00:8::3"}, "c.test": {"10.8.0.4", "fd00:8::4"},
	}
	nowhere = [2]string{"10.9.0.9", "fd00:9::9"}
)

func newRouted(t *testing.T) *routed {
	t.Helper()
	for _, program := range []string{"nft", "iptables", "ip6tables"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	lab := netlab.New(t)
	n := &routed{t: t, client: lab.Namespace("client"), router: lab.Namespace("router"), far: lab.Namespace("far")}
	for _, ns := range []*netlab.Namespace{n.client, n.router, n.far} {
		sysctl(t, ns, "ipv6/conf/default/accept_dad", "0")
	}
	lab.Join(n.client, n.router, "net", "in")
	lab.Join(n.router, n.far, "out", "net")
	n.client.Addr("net", "10.7.0.2/24", "fd00:7::2/64")
	n.router.Addr("in", "10.7.0.1/24", "fd00:7::1/64")
	n.router.Addr("out", "10.8.0.1/24", "fd00:8::1/64")
	n.far.Addr("net", "10.8.0.2/24", "10.8.0.3/24", "10.8.0.4/24", "fd00:8::2/64", "fd00:8::3/64", "fd00:8::4/64")
	n.client.Batch("route add default via 10.7.0.1\nroute add ::/0 via fd00:7::1\n")
	n.router.Batch("route add 10.9.0.0/16 via 10.8.0.2\nroute add fd00:9::/32 via fd00:8::2\n")
	n.far.Batch("route add default via 10.8.0.1\nroute add ::/0 via fd00:8::1\n")
	sysctl(t, n.router, "ipv4/ip_forward", "1")
	sysctl(t, n.router, "ipv6/conf/all/forwarding", "1")
	n.serve()
	return n
}

// serve runs the servers of far.
func (n *routed) serve() {
	n.t.Helper()
	var pem strings.Builder
	for _, name := range routedNames {
		c := makeCertificate(n.t, time.Now().Add(time.Hour), []string{name}, nil)
		text, _ := os.ReadFile(c.cert)
		pem.Write(text)
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, addr := range routedAddrs[name] {
			serveEach(n.far.Listen("tcp", net.JoinHostPort(addr, "443")), func(c net.Conn) {
				answer(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}}), name)
			})
			serveEach(n.far.Listen("tcp", net.JoinHostPort(addr, "80")), func(c net.Conn) { answer(c, name) })
			serveEach(n.far.Listen("tcp", net.JoinHostPort(addr, "25")), func(c net.Conn) {
				fmt.Fprintf(c, "220 %s\r\n", name)
				io.Copy(c, c)
			})
		}
	}
	n.trust = filepath.Join(n.t.TempDir(), "trust.pem")
	write(n.t, n.trust, pem.String())
}

// serveEach serves every client until ln is closed.
func serveEach(ln net.Listener, serve func(net.Conn)) {
	go func() { // until ln is closed
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // until the client is served
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				serve(c)
			}()
		}
	}()
}

// answer is an HTTP server that says its name and who asks.
func answer(c net.Conn, name string) {
	if err := skipHead(c); err != nil {
		return
	}
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	body := name + " asked by " + host
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if s, ok := c.(*tls.Conn); ok {
		s.CloseWrite()
	}
	io.Copy(io.Discard, c)
}

// skipHead reads to the end of the head of a request.
func skipHead(r io.Reader) error {
	var tail [4]byte
	for string(tail[:]) != "\r\n\r\n" {
		copy(tail[:], tail[1:])
		if _, err := io.ReadFull(r, tail[3:]); err != nil {
			return err
		}
	}
	return nil
}

// start starts swivel in router with one listener that has these keys beside name,
// listen and mode, and loads the rules that it prints for itself.
func (n *routed) start(keys string, flags ...string) {
	n.t.Helper()
	file := config(n.t, fmt.Sprintf(`
limits: {head: 20s, dial: 10s, per_client: 20}
listeners:
  - {name: web, listen: ":8443", mode: sni, %s}
`, keys))
	n.load(append([]string{"-config", file}, flags...)...)
	n.s = startIn(n.t, n.router, "-config", file)
}

// load loads what swivel rules prints, as it is printed, and runs what it says is
// needed as well.
func (n *routed) load(flags ...string) {
	n.t.Helper()
	text := n.router.Run(*binary, append([]string{"rules"}, flags...)...)
	if strings.HasPrefix(text, "#!/bin/sh") {
		n.router.Run("sh", "-c", text)
	} else {
		n.router.Nft(text)
	}
	for line := range strings.SplitSeq(text, "\n") {
		if _, command, ok := strings.Cut(line, "#   "); ok && strings.HasPrefix(command, "ip ") {
			n.router.Run("sh", "-c", command)
		}
	}
}

// dial connects from client to address.
func (n *routed) dial(address string) net.Conn {
	n.t.Helper()
	c, err := n.client.Dial(n.t.Context(), "tcp", address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// curl has curl ask the server that is called name, at addr, in a namespace.
func (n *routed) curl(ns *netlab.Namespace, scheme, name, addr string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	cmd := ns.Command(ctx, program(n.t, "curl"), "-sS", "--cacert", n.trust, "--resolve", name+":443:"+addr, "--resolve", name+":80:"+addr, scheme+"://"+name+"/")
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// openssl is curl, by s_client.
func (n *routed) openssl(name, addr string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	cmd := n.client.Command(ctx, program(n.t, "openssl"), "s_client", "-connect", net.JoinHostPort(addr, "443"), "-servername", name,
		"-verify_hostname", name, "-CAfile", n.trust, "-verify_return_error", "-quiet", "-ign_eof")
	cmd.Stdin = strings.NewReader("GET / HTTP/1.0\r\n\r\n")
	out, _ := cmd.CombinedOutput()
	_, body, _ := strings.Cut(string(out), "\r\n\r\n")
	return cmp.Or(body, string(out))
}

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

// reaches checks that clients which connect to addr get to the server called name.
func (n *routed) reaches(name, addr, dialed string) {
	n.t.Helper()
	for client, got := range map[string]string{"curl": n.curl(n.client, "https", name, addr), "openssl": n.openssl(name, addr)} {
		if !strings.HasPrefix(got, name+" asked by ") {
			n.t.Errorf("%s, %s at %s: %q", client, name, addr, got)
		}
	}
	l := n.s.line(func(e entry) bool {
		return closed(e) && e.text("target") == name+":443" && e.text("original") == net.JoinHostPort(addr, "443")
	})
	if l.text("outcome") != "routed" || dialed != "" && l.text("address") != net.JoinHostPort(addr, "443") {
		n.t.Errorf("%s at %s: %v", name, addr, l)
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

// bounded reads c until it ends, whichever way, and waits until swivel is as it was.
func (n *routed) bounded(c net.Conn, fds int) {
	n.t.Helper()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		n.t.Error("the connection did not end")
	}
	c.Close()
	n.s.settle(fds + runtime.NumCPU()) // what tunnels wait in, one a processor
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
		if many := len(n.s.lines()) - before; many > 20 {
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
		before := len(n.s.lines())
		c := n.dial(addr)
		if strings.HasSuffix(addr, ":443") {
			tls.Client(c, &tls.Config{ServerName: "a.test"}).Handshake()
		}
		n.bounded(c, fds)
		if many := len(n.s.lines()) - before; many > 30 {
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
	for _, name := range routedNames {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		cmd := n.client.Command(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run", "--ignore-certificate-errors",
			"--user-data-dir="+t.TempDir(), "--host-resolver-rules=MAP *.test 10.9.0.9", "--dump-dom", "https://"+name+"/")
		out, err := cmd.Output()
		cancel()
		if !strings.Contains(string(out), name+" asked by 10.8.0.1") {
			t.Errorf("%s: %v, %.300q", name, err, out)
		}
		l := n.s.line(func(e entry) bool { return e.text("target") == name+":443" && e["up"].(float64) > 1500 })
		if l["ech"] != true || l.text("alpn") != "h2,http/1.1" {
			t.Errorf("%v", l)
		}
	}
}
