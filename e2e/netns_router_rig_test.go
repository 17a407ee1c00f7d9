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
	"os"
	"os/exec"
	"path/filepath"
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
		sysctl(t, ns, "ipv4/conf/all/rp_filter", "1") // the strictest that hosts have
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

// answer is an HTTP server that says its name and who asks. Its /page shows pictures
// of the others.
func answer(c net.Conn, name string) {
	head, err := readHead(c)
	if err != nil {
		return
	}
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	body := name + " asked by " + host
	if strings.HasPrefix(head, "GET /page ") {
		body += "<img src=https://b.test/><img src=https://c.test/>"
	}
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if s, ok := c.(*tls.Conn); ok {
		s.CloseWrite()
	}
	io.Copy(io.Discard, c)
}

// readHead reads to the end of the head of a request.
func readHead(r io.Reader) (string, error) {
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, b...) {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
	}
	return string(head), nil
}

// start starts swivel in router with one listener that has these keys beside name,
// listen and mode, and loads the rules that it prints for itself.
func (n *routed) start(keys string, flags ...string) {
	n.t.Helper()
	n.startWith("first_byte: 20s", keys, flags...)
}

// startWith is start, with this limit beside others.
func (n *routed) startWith(limit, keys string, flags ...string) {
	n.t.Helper()
	file := config(n.t, fmt.Sprintf(`
limits: {head: 20s, dial: 10s, per_client: 20, %s}
listeners:
  - {name: web, listen: ":8443", mode: sni, %s}
`, limit, keys))
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

// bounded reads c until it ends, whichever way, and waits until swivel is as it was.
func (n *routed) bounded(c net.Conn, fds int) {
	n.t.Helper()
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		n.t.Error("the connection did not end")
	}
	c.Close()
	n.s.settle(fds)
}

// ended is how many connections to addr have ended so far, as the log has it. That of
// another address may come late.
func (n *routed) ended(addr string) (many int) {
	for _, e := range n.s.lines() {
		if closed(e) && e.text("original") == addr {
			many++
		}
	}
	return many
}
