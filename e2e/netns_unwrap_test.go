//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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

// swivel check proves that what servers answer comes back, on loopback, at another
// address of the host and in a container, and says how that is mended; swivel rules
// prints it.
func TestUnwrapWayBack(t *testing.T) {
	for _, program := range []string{"nft", "iptables", "ip6tables"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	for _, tt := range []struct {
		name, to, format string
		servers          []string
		mend             []string
	}{
		{"loopback", "127.0.0.1:7777,[::1]:7777", "nft", []string{server4, server6}, []string{
			"ip -4 rule add from 127.0.0.1 iif lo ipproto tcp sport 7777 lookup 5357 priority 5357; ip -4 route replace local default dev lo table 5357\n",
			"ip -6 rule add from ::1 iif lo ipproto tcp sport 7777 lookup 5357 priority 5357; ip -6 route replace local default dev lo table 5357\n",
		}},
		{"an address of this host", "10.6.0.1:7777", "nft", []string{"10.6.0.1:7777"}, []string{
			"ip -4 rule add fwmark 0x5357 lookup 5357 priority 5357; ip -4 route replace local default dev lo table 5357; swivel rules [the same flags] | nft -f -\n",
		}},
		{"a container", "10.6.0.2:7777,[fd00:6::2]:7777", "nft", []string{"10.6.0.2:7777", "[fd00:6::2]:7777"}, []string{
			"ip -4 rule add fwmark 0x5357 lookup 5357 priority 5357; ip -4 route replace local default dev lo table 5357; swivel rules [the same flags] | nft -f -\n",
			"ip -6 rule add fwmark 0x5357 lookup 5357 priority 5357; ip -6 route replace local default dev lo table 5357; swivel rules [the same flags] | nft -f -\n",
		}},
		{"a container, iptables", "10.6.0.2:7777,[fd00:6::2]:7777", "iptables", []string{"10.6.0.2:7777", "[fd00:6::2]:7777"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // each waits for what does not come
			n := newBalanced(t)
			for _, s := range tt.servers {
				ns := n.host
				if strings.Contains(s, "6.0.2") || strings.Contains(s, ":6::2") {
					ns = n.box
				}
				n.serve(ns, s)
			}
			flags := []string{"-mode", "unwrap", "-listen", ":2222", "-from", "10.5.0.1", "-to", tt.to}
			if tt.mend != nil {
				before := n.check(flags...)
				for i, s := range tt.servers {
					if !strings.Contains(before, "missing  listener unwrap: what "+s+" answers to ") || !strings.Contains(before, tt.mend[i]) {
						t.Errorf("check says\n%s", before)
					}
				}
			}
			n.rules(append(flags, "-format", tt.format)...)
			after := n.check(flags...)
			for _, s := range tt.servers {
				if !strings.Contains(after, "ok       listener unwrap: what "+s+" answers to ") {
					t.Errorf("check says\n%s", after)
				}
			}
			n.s = startIn(t, n.host, flags...)
			for _, client := range []string{claimed4, claimed6}[:len(tt.servers)] {
				public := map[string]string{claimed4: public4, claimed6: public6}[client]
				c, saw := n.visit(unwrapAddr4, v2(client, public))
				if saw != client {
					t.Errorf("%s: the server saw %s", client, saw)
				}
				alive(t, c)
			}
		})
	}
}

// The server sees the client, whichever header says who that is, and the log as well.
func TestUnwrapIsTheClient(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.serve(n.host, server6)
	n.start(bothTargets)
	for i, tt := range []struct {
		to, client string
		header     []byte
		peer       string
	}{
		{unwrapAddr4, claimed4, v1(claimed4, public4), "10.5.0.1"},
		{unwrapAddr6, "198.51.100.8:5001", v2("198.51.100.8:5001", public4), "fd00:5::1"},
		{unwrapAddr4, claimed6, v1(claimed6, public6), "10.5.0.1"},
		{unwrapAddr6, "[2001:db8:51::8]:5001", v2("[2001:db8:51::8]:5001", public6), "fd00:5::1"},
	} {
		c, saw := n.visit(tt.to, tt.header)
		if saw != tt.client {
			t.Errorf("%s: the server saw %s", tt.client, saw)
		}
		alive(t, c)
		c.Close()
		l := n.line(i + 1)
		peer := netip.MustParseAddrPort(l.text("peer")).Addr().String()
		source := netip.MustParseAddrPort(tt.client).Addr().String()
		if l.text("client") != tt.client || peer != tt.peer || l.text("source") != source || l.text("mode") != "unwrap" || l["up"] != 5.0 || l.text("reason") != "client-closed" {
			t.Errorf("%s: got %v", tt.client, l)
		}
	}
}

func TestUnwrapSources(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.serve(n.host, "127.0.0.1:5001")
	n.start(bothTargets+", source: any-port, mark: 7", `  - {name: keep, listen: ":2223", mode: unwrap, from: [10.5.0.1], to: 127.0.0.1:7777}
  - {name: own, listen: ":2224", mode: unwrap, from: [10.5.0.1], to: 127.0.0.1:7777, source: own}`)
	addr := func(saw string) string { return netip.MustParseAddrPort(saw).Addr().String() }

	t.Run("any-port", func(t *testing.T) {
		count(n.host, "output", "marked", "meta mark 7 ip saddr 198.51.100.7 tcp dport 7777")
		if _, saw := n.visit(unwrapAddr4, v1(claimed4, public4)); addr(saw) != "198.51.100.7" {
			t.Errorf("saw %s", saw)
		}
		if n.host.Counter("marked") == 0 {
			t.Error("the connection to the server has no mark")
		}
	})
	t.Run("own", func(t *testing.T) {
		if _, saw := n.visit("10.5.0.2:2224", v1(claimed4, public4)); addr(saw) != "127.0.0.1" {
			t.Errorf("saw %s", saw)
		}
	})
	t.Run("keep-port, twice at once", func(t *testing.T) {
		_, first := n.visit("10.5.0.2:2223", v1(claimed4, public4))
		_, second := n.visit("10.5.0.2:2223", v1(claimed4, public4))
		if first != claimed4 || second == claimed4 || addr(second) != "198.51.100.7" {
			t.Errorf("saw %s, then %s", first, second)
		}
	})
	// 3c/6
	for _, header := range []string{"PROXY UNKNOWN\r\n", string(proxyproto.AppendV2(nil, proxyproto.Header{Local: true}))} {
		if _, saw := n.visit("10.5.0.2:2223", []byte(header)); addr(saw) != "127.0.0.1" {
			t.Errorf("%q: saw %s", header, saw)
		}
	}
}

// 3c/13 and 3c/14: an error of that connection, with a reason; the process lives.
func TestUnwrapRefusesSources(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.start("to: 127.0.0.1:7777")
	for i, tt := range []struct{ header, reason string }{
		{string(v1("127.0.0.1:5001", public4)), "source-denied"},
		{string(v1("127.9.9.9:5001", public4)), "source-denied"},
		{string(v1(server4, public4)), "source-denied"},
		{string(v1("0.0.0.0:5001", public4)), "source-denied"},
		{string(v1("224.0.0.1:5001", public4)), "source-denied"},
		{string(v1("255.255.255.255:5001", public4)), "source-denied"},
		{string(v1("198.51.100.7:0", public4)), "source-denied"},
		{string(v1("10.5.0.2:5001", public4)), "source-denied"},
		{string(v1(claimed6, public6)), "no-target"},
	} {
		c := n.dial(unwrapAddr4)
		io.WriteString(c, tt.header)
		if got, err := io.ReadAll(c); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: got %q, %v", tt.header, got, err)
		}
		if l := n.line(i + 1); l.text("reason") != tt.reason || l.text("level") != "info" {
			t.Errorf("%q: got %v", tt.header, l)
		}
	}
	if _, saw := n.visit(unwrapAddr4, v1(claimed4, public4)); saw != claimed4 {
		t.Errorf("saw %s", saw)
	}
}

func TestUnwrapAllowsSources(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.start(`to: 127.0.0.1:7777, allow_sources: [127.0.0.0/8, 10.5.0.2]`)
	for _, src := range []string{"127.9.9.9:5001", "10.5.0.2:5001"} {
		if _, saw := n.visit(unwrapAddr4, v1(src, public4)); saw != src {
			t.Errorf("%s: saw %s", src, saw)
		}
	}
	c := n.dial(unwrapAddr4)
	c.Write(v1(server4, public4))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("from the target itself: %v", err)
	}
}

// Where to: one port on another, the same port of a range, and what the header says.
func TestUnwrapDestinations(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	for _, address := range []string{"127.0.0.1:2301", "127.0.0.1:2302", "10.6.0.1:2303"} {
		n.serve(n.host, address)
	}
	n.host.Batch("rule add from 127.0.0.1 iif lo ipproto tcp sport 2301-2303 lookup 100\n" +
		"rule add from 10.6.0.1 iif lo ipproto tcp sport 2303 lookup 100\n")
	n.start("to: 127.0.0.1:2301", `  - {name: range, listen: "10.5.0.2:2301-2303", mode: unwrap, from: [10.5.0.1], to: "127.0.0.1:*"}
  - {name: header, listen: ":2400", mode: unwrap, from: [10.5.0.1], to: destination, destinations: {allow: [10.6.0.0/16, 10.6.0.1], ports: [2303, 2400]}}`)
	for _, tt := range []struct{ to, dst, address string }{
		{"10.5.0.2:2222", public4, "127.0.0.1:2301"},
		{"10.5.0.2:2301", public4, "127.0.0.1:2301"},
		{"10.5.0.2:2302", public4, "127.0.0.1:2302"},
		{"10.5.0.2:2400", "10.6.0.1:2303", "10.6.0.1:2303"},
	} {
		if c, saw := n.visit(tt.to, v1(claimed4, tt.dst)); saw != claimed4 {
			t.Errorf("%s: saw %s", tt.to, saw)
		} else {
			c.Close()
		}
		l := n.s.lineAfter(0, func(e entry) bool { return closed(e) && e.text("address") == tt.address })
		if l.text("target") != tt.dst {
			t.Errorf("got %v", l)
		}
	}
	for _, tt := range []struct{ to, dst, reason string }{
		{"10.5.0.2:2303", public4, "connection_refused"},
		{"10.5.0.2:2400", "127.0.0.1:2303", "destination_ip_prohibited"},
		{"10.5.0.2:2400", "10.6.0.1:2304", "destination_ip_prohibited"},
		{"10.5.0.2:2400", "10.5.0.2:2303", "destination_ip_prohibited"},
		{"10.5.0.2:2400", "10.6.0.1:2400", "proxy_loop_detected"},
	} {
		c := n.dial(tt.to)
		c.Write(v1(claimed4, tt.dst))
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", tt.dst, err)
		}
		n.s.lineAfter(0, func(e entry) bool { return closed(e) && e.text("reason") == tt.reason })
	}
}

// A listener that would be its own target says so, and does not go round.
func TestUnwrapLoop(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.start(`to: "127.0.0.1:*"`)
	said := n.check("-mode", "unwrap", "-listen", ":2223", "-from", "10.5.0.1", "-to", "127.0.0.1:*")
	if !strings.Contains(said, "missing  listener unwrap: 127.0.0.1:2223 is swivel itself") {
		t.Errorf("check says\n%s", said)
	}
	c := n.dial(unwrapAddr4)
	c.Write(v1(claimed4, public4))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if l := n.line(1); l.text("reason") != "proxy_loop_detected" {
		t.Errorf("got %v", l)
	}
}

// Who is not in `from` is closed before a byte of it is read.
func TestUnwrapUntrustedPeer(t *testing.T) {
	n := newBalanced(t)
	n.start("to: 127.0.0.1:7777")
	c, err := n.box.Dial(t.Context(), "tcp", "10.6.0.1:2222")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write(v1(claimed4, public4))
	if got, _ := io.ReadAll(c); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	if l := n.line(1); l.text("reason") != "untrusted-peer" || !strings.HasPrefix(l.text("client"), "10.6.0.2:") {
		t.Errorf("got %v", l)
	}
}

// go-mmproxy lost the answer to a client that had half-closed.
func TestUnwrapHalfClosedClient(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	ln := n.host.Listen("tcp", server4)
	answer := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() { // until the client is done
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(io.Discard, c)
		c.Write(answer)
	}()
	n.start("to: 127.0.0.1:7777")
	c := n.dial(unwrapAddr4)
	c.Write(append(v2(claimed4, public4), "request"...))
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, answer) {
		t.Errorf("got %d of %d bytes, %v", len(got), len(answer), err)
	}
}

// A reset is passed on as one, behind what was sent before.
func TestUnwrapReset(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	ln := n.host.Listen("tcp", server4)
	go func() { // until the client is done
		c, err := ln.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "so far")
		io.ReadFull(c, make([]byte, 2))
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}()
	n.start("to: 127.0.0.1:7777")
	c := n.dial(unwrapAddr4)
	c.Write(v2(claimed4, public4))
	io.ReadFull(c, make([]byte, len("so far")))
	io.WriteString(c, "ok")
	if got, err := io.ReadAll(c); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v", got, err)
	}
	if l := n.line(1); l.text("reason") != "upstream-reset" {
		t.Errorf("got %v", l)
	}
}

// go-mmproxy exited with status 0 when descriptors ran out.
func TestUnwrapDescriptorsExhausted(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	cmd := n.host.Command(t.Context(), "prlimit", "--nofile=64:64", *binary, "-mode", "unwrap", "-listen", ":2222", "-from", "10.5.0.1", "-to", "127.0.0.1:7777")
	cmd.Env = environ()
	n.s = launch(t, cmd)
	n.s.line(message("listening"))
	var silent []net.Conn
	for range 100 {
		silent = append(silent, n.dial(unwrapAddr4))
	}
	n.s.line(message("out of descriptors, accepting paused"))
	for _, c := range silent {
		c.Close()
	}
	if _, saw := n.visit(unwrapAddr4, v1(claimed4, public4)); saw != claimed4 {
		t.Errorf("saw %s", saw)
	}
}

// What go-mmproxy did not survive or got wrong, by name. Each is of one connection;
// between them another client is served.
func TestUnwrapGoMmproxyFailures(t *testing.T) {
	n := newBalanced(t)
	n.wayBack()
	n.serve(n.host, server4)
	n.s = startIn(t, n.host, "-config", config(t, `
limits: {head: 1500ms}
listeners: [{name: unwrap, listen: ":2222", mode: unwrap, from: [10.5.0.1], to: 127.0.0.1:7777}]
`))
	fds := netlab.FDs(n.s.pid())
	const signature = "\r\n\r\n\x00\r\nQUIT\n"
	for i, tt := range []struct{ name, bytes, reason string }{
		{"the 16-byte v2 header", signature + "\x21\x11\x00\x00", "bad-header"},
		{"the 28-byte TCP6 header", signature + "\x21\x21\x00\x0c0123456789ab", "bad-header"},
		{"v1 port 99999", "PROXY TCP4 198.51.100.7 198.51.100.1 99999 25\r\n", "bad-header"},
		{"a silent client", "", "no-header"},
		{"a header that is never whole", "PROXY TCP4 198.51", "no-header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := n.in(t)
			c := n.dial(unwrapAddr4)
			io.WriteString(c, tt.bytes)
			if got, _ := io.ReadAll(c); len(got) > 0 {
				t.Errorf("answered %q", got)
			}
			if l := n.s.linesAfter(0, 2*i+1, closed)[2*i]; l.text("reason") != tt.reason {
				t.Errorf("got %v", l)
			}
			c2, saw := n.visit(unwrapAddr4, v1(claimed4, public4))
			if saw != claimed4 {
				t.Errorf("then the server saw %s", saw)
			}
			c2.Close()
			n.line(2*i + 2)
		})
	}
	t.Run("a header in two segments", func(t *testing.T) {
		n := n.in(t)
		c := n.dial(unwrapAddr4)
		io.WriteString(c, "PROXY TCP4 198.51.100.7 198.5")
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		c.Read(make([]byte, 1)) // by now that is on its way alone
		c.SetReadDeadline(time.Now().Add(patience))
		io.WriteString(c, "1.100.1 5001 25\r\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); strings.TrimSpace(line) != claimed4 {
			t.Errorf("saw %q, %v", line, err)
		}
	})
	t.Run("an empty list of who may connect", func(t *testing.T) {
		r := finish(t, command(t, "-config", config(t, "listeners: [{listen: ':2222', mode: unwrap, from: [], to: '127.0.0.1:7777'}]")))
		if r.status != 1 || !strings.Contains(r.stderr, "nobody could send a PROXY header") {
			t.Errorf("got %d, %q", r.status, r.stderr)
		}
	})
	n.s.settle(fds + 8) // what the runtime and a parked tunnel keep
}

// in returns n for a subtest.
func (n *balanced) in(t *testing.T) *balanced {
	sub := *n
	sub.t = t
	return &sub
}
