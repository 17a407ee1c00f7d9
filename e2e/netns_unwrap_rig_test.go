//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"swivel/internal/netlab"
	"swivel/internal/proxyproto"
)

// balanced is what the tests of mode unwrap run in.
//
//	┌ client ──────────┐    ┌ front ──────────┐    ┌ host ─────────────┐    ┌ box ─────────┐
//	│ 198.51.100.7 .8  ├────┤ 198.51.100.1    │    │ swivel and, on    │    │              │
//	│ 2001:db8:51::7 ::8    │ 2001:db8:51::1  │    │ loopback, servers │    │              │
//	│                  │    │        10.5.0.1 ├────┤ 10.5.0.2 10.6.0.1 ├────┤ 10.6.0.2     │
//	│                  │    │       fd00:5::1 │    │ fd00:5::2  :6::1  │    │ fd00:6::2    │
//	└──────────────────┘    └─────────────────┘    └───────────────────┘    └──────────────┘
//
// In front is the load balancer, of which host and box know nothing more than the
// way. A server tells each client who it is, and then sends back what it gets.
type balanced struct {
	t                        *testing.T
	client, front, host, box *netlab.Namespace
	s                        *swivel // once it is started
}

const (
	unwrapAddr4 = "10.5.0.2:2222"
	unwrapAddr6 = "[fd00:5::2]:2222"
	server4     = "127.0.0.1:7777"
	server6     = "[::1]:7777"
)

func newBalanced(t *testing.T) *balanced {
	t.Helper()
	lab := netlab.New(t)
	n := &balanced{t: t, client: lab.Namespace("client"), front: lab.Namespace("front"), host: lab.Namespace("host"), box: lab.Namespace("box")}
	for _, ns := range []*netlab.Namespace{n.client, n.front, n.host, n.box} {
		sysctl(t, ns, "ipv6/conf/default/accept_dad", "0")
	}
	lab.Join(n.client, n.front, "net", "pub")
	lab.Join(n.front, n.host, "srv", "net")
	lab.Join(n.host, n.box, "box", "net")
	n.client.Addr("net", "198.51.100.7/24", "198.51.100.8/24", "2001:db8:51::7/64", "2001:db8:51::8/64")
	n.front.Addr("pub", "198.51.100.1/24", "2001:db8:51::1/64")
	n.front.Addr("srv", "10.5.0.1/24", "fd00:5::1/64")
	n.host.Addr("net", "10.5.0.2/24", "fd00:5::2/64")
	n.host.Addr("box", "10.6.0.1/24", "fd00:6::1/64")
	n.box.Addr("net", "10.6.0.2/24", "fd00:6::2/64")
	n.host.Batch("route add default via 10.5.0.1\nroute add ::/0 via fd00:5::1\n")
	n.box.Batch("route add default via 10.6.0.1\nroute add ::/0 via fd00:6::1\n")
	sysctl(t, n.host, "ipv4/ip_forward", "1")
	sysctl(t, n.host, "ipv6/conf/all/forwarding", "1")
	return n
}

// wayBack makes what servers on loopback send to others stay on the host.
func (n *balanced) wayBack() {
	n.t.Helper()
	n.host.Batch("rule add from 127.0.0.1 iif lo ipproto tcp sport 7777 lookup 100\nroute add local 0.0.0.0/0 dev lo table 100\n")
	n.host.Run("ip", "-6", "rule", "add", "from", "::1", "iif", "lo", "ipproto", "tcp", "sport", "7777", "lookup", "100")
	n.host.Run("ip", "-6", "route", "add", "local", "::/0", "dev", "lo", "table", "100")
}

// rules does on host what swivel rules says for these arguments: it loads what is
// printed, and runs the commands in its comments.
func (n *balanced) rules(args ...string) {
	n.t.Helper()
	format := "nft"
	if slices.Contains(args, "iptables") {
		format = "iptables"
	}
	text := n.host.Run(*binary, append([]string{"rules"}, args...)...)
	file := filepath.Join(n.t.TempDir(), "rules")
	write(n.t, file, text)
	n.host.Run("sh", "-c", map[string]string{"nft": "nft -f " + file, "iptables": "sh " + file}[format])
	for line := range strings.Lines(text) {
		if command := strings.TrimPrefix(line, "#   "); strings.HasPrefix(command, "ip -") {
			n.host.Run("sh", "-c", command)
		}
	}
}

// check runs swivel check on host and returns what it prints.
func (n *balanced) check(args ...string) string {
	n.t.Helper()
	return n.host.Run("sh", "-c", strings.Join(append([]string{*binary, "check"}, args...), " ")+"; true")
}

// serve runs a server in ns.
func (n *balanced) serve(ns *netlab.Namespace, address string) {
	n.t.Helper()
	ln := ns.Listen("tcp", address)
	go func() { // until ln is closed
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // until the client is done
				defer c.Close()
				fmt.Fprintln(c, c.RemoteAddr())
				io.Copy(c, c)
			}()
		}
	}()
}

// start starts swivel on host, with one listener that has these keys beside name,
// listen and mode.
func (n *balanced) start(keys string, others ...string) {
	n.t.Helper()
	n.s = startIn(n.t, n.host, "-config", config(n.t, fmt.Sprintf(`
limits: {head: 20s, dial: 10s}
listeners:
  - {name: unwrap, listen: ":2222", mode: unwrap, from: [10.5.0.1, "fd00:5::1"], %s}
%s`, keys, strings.Join(others, "\n"))))
}

const bothTargets = `to: ["127.0.0.1:7777", "[::1]:7777"]`

// dial connects from front to address.
func (n *balanced) dial(address string) *net.TCPConn {
	n.t.Helper()
	c, err := n.front.Dial(n.t.Context(), "tcp", address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// visit sends a header to address and returns whom the server saw.
func (n *balanced) visit(address string, header []byte) (net.Conn, string) {
	n.t.Helper()
	c := n.dial(address)
	c.Write(header)
	line, err := bufio.NewReader(io.LimitReader(c, 64)).ReadString('\n') // no more is sent unasked
	if err != nil {
		n.t.Fatalf("%q: got %q, %v", header, line, err)
	}
	return c, strings.TrimSpace(line)
}

// line waits for the n-th access line and returns it.
func (n *balanced) line(nth int) entry {
	n.t.Helper()
	return n.s.linesAfter(0, nth, closed)[nth-1]
}

func v1(src, dst string) []byte { return proxyproto.AppendV1(nil, claim(src, dst)) }
func v2(src, dst string) []byte { return proxyproto.AppendV2(nil, claim(src, dst)) }

func claim(src, dst string) proxyproto.Header {
	return proxyproto.Header{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

const (
	claimed4 = "198.51.100.7:5001"
	claimed6 = "[2001:db8:51::7]:5001"
	public4  = "198.51.100.1:25"
	public6  = "[2001:db8:51::1]:25"
)

// in returns n for a subtest.
func (n *balanced) in(t *testing.T) *balanced {
	sub := *n
	sub.t = t
	return &sub
}
