//go:build linux

package e2e

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// network is what the tests in netns_*_test.go run in, made anew for each. A test
// that needs more of it adds that, and says so.
//
//	┌ proxy ────────────────────┐        ┌ far ───────────────────┐
//	│ lo   swivel, its clients  │        │ lo   10.2.0.1 .2       │
//	│ out  10.1.0.1 .2 .3       ├────────┤      2001:db8:2::1 ::2 │
//	│      2001:db8:1::1 ::2 ::3│        │ in   10.1.0.254        │
//	│      02:00:00:00:00:01    │        │      2001:db8:1::fe    │
//	│ default routes: by in     │        │                        │
//	└───────────────────────────┘        └────────────────────────┘
//
// On port 443 of 10.2.0.1 and 2001:db8:2::1 an origin tells each client its address,
// and then sends back what it gets. 10.2.0.2 and 2001:db8:2::2 refuse.
type network struct {
	t          *testing.T
	lab        *netlab.Lab
	proxy, far *netlab.Namespace
	s          *swivel // once it is started
}

const (
	proxyAddr = "127.0.0.1:8080"
	origin4   = "10.2.0.1:443"
	origin6   = "[2001:db8:2::1]:443"
	nobody6   = "[2001:db8:2::2]:443"
)

var (
	sources4 = []string{"10.1.0.1", "10.1.0.2", "10.1.0.3"}
	sources6 = []string{"2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3"}
)

func newNetwork(t *testing.T) *network {
	t.Helper()
	for _, program := range []string{"nft", "ss"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	lab := netlab.New(t)
	n := &network{t: t, lab: lab, proxy: lab.Namespace("proxy"), far: lab.Namespace("far")}
	for _, ns := range []*netlab.Namespace{n.proxy, n.far} {
		// Neighbors are not found before the link-local addresses have been checked.
		sysctl(t, ns, "ipv6/conf/default/accept_dad", "0")
	}
	sysctl(t, n.proxy, "ipv4/conf/all/promote_secondaries", "1") // as most systems have it
	lab.Join(n.proxy, n.far, "out", "in")
	n.proxy.IP("link", "set", "out", "address", "02:00:00:00:00:01")
	n.far.Addr("in", "10.1.0.254/24", "2001:db8:1::fe/64")
	n.far.Addr("lo", "10.2.0.1/32", "10.2.0.2/32", "2001:db8:2::1/128", "2001:db8:2::2/128")
	n.proxy.Addr("out", "10.1.0.1/24", "10.1.0.2/24", "10.1.0.3/24",
		"2001:db8:1::1/64", "2001:db8:1::2/64", "2001:db8:1::3/64")
	n.addRoutes()
	n.serve(origin4)
	n.serve(origin6)
	return n
}

// in returns n for a subtest.
func (n *network) in(t *testing.T) *network {
	sub := *n
	sub.t = t
	return &sub
}

// addRoutes adds what a link that goes down takes with it.
func (n *network) addRoutes() {
	n.t.Helper()
	n.proxy.Batch("route add default via 10.1.0.254\nroute add ::/0 via 2001:db8:1::fe\n")
}

// serve runs an origin in far.
func (n *network) serve(address string) {
	n.t.Helper()
	ln := n.far.Listen("tcp", address)
	go func() { // until ln is closed
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go tellAndEcho(c) // until the client is done
		}
	}()
}

func tellAndEcho(c net.Conn) {
	defer c.Close()
	fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
	c.(*net.TCPConn).WriteTo(c)
}

// settings are what a test says of its configuration, in YAML. start has what holds
// where one is empty.
type settings struct {
	pool     string // of the pool main; "-": there is no pool
	limits   string
	resolver string
	allow    string // destinations
	listener string // other keys of the listener
	listen   string
}

// start starts swivel in proxy.
func (n *network) start(s settings) {
	n.t.Helper()
	pools, pool := "pools: {main: {"+cmp.Or(s.pool, "sources: [{interface: out}]")+"}}", "pool: main, "
	if s.pool == "-" {
		pools, pool = "", ""
	}
	n.s = startIn(n.t, n.proxy, "-config", config(n.t, fmt.Sprintf(`
%s
limits: {%s}
resolver: {%s}
listeners:
  - {name: egress, mode: connect, listen: %s, %s%s
     destinations: {allow: [%s], ports: [1-65535]}}
`, pools, cmp.Or(s.limits, "dial: 10s"), cmp.Or(s.resolver, "cache: 0s"), cmp.Or(s.listen, proxyAddr), pool, s.listener,
		cmp.Or(s.allow, `10.2.0.0/16, "2001:db8:2::/64", "*"`))))
}

// reply is how a request to an origin went.
type reply struct {
	head string // of the proxy's answer
	from string // the address that the origin saw; empty unless connected
}

// status returns the status code and the error of the proxy's answer.
func (r reply) status() string {
	_, code, _ := strings.Cut(r.head, " ")
	_, token, _ := strings.Cut(field(r.head, "Proxy-Status"), "error=")
	return strings.TrimSpace(code[:min(3, len(code))] + " " + token)
}

// field returns a header field of a head.
func field(head, name string) string {
	for line := range strings.SplitSeq(head, "\r\n") {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return value
		}
	}
	return ""
}

// open asks the proxy, over c, for a tunnel to target.
func open(c net.Conn, target string) (reply, error) {
	c.SetDeadline(time.Now().Add(patience))
	head, err := connect(c, target)
	r := reply{head: head}
	if err != nil || r.status() != "200" {
		return r, err
	}
	// The origin sends no more than this line before it is sent something.
	from, err := bufio.NewReader(c).ReadString('\n')
	r.from = strings.TrimSpace(from)
	return r, err
}

// request opens a tunnel to target, and closes it. It may be called by any
// goroutine.
func (n *network) request(ctx context.Context, target string) (reply, error) {
	c, err := n.proxy.Dial(ctx, "tcp", proxyAddr)
	if err != nil {
		return reply{}, err
	}
	defer c.Close()
	return open(c, target)
}

// ask is request, by the test's goroutine.
func (n *network) ask(target string) reply {
	n.t.Helper()
	r, err := n.request(n.t.Context(), target)
	if err != nil {
		n.t.Fatalf("CONNECT %s: %q, %v", target, r.head, err)
	}
	return r
}

// askAll asks for each target in turn, and returns what the origins saw.
func (n *network) askAll(targets ...string) (from []string) {
	n.t.Helper()
	for _, target := range targets {
		r := n.ask(target)
		if r.status() != "200" {
			n.t.Fatalf("CONNECT %s: %q, want 200", target, r.head)
		}
		if source := field(r.head, "Swivel-Source"); source != r.from {
			n.t.Errorf("Swivel-Source is %s, the origin saw %s", source, r.from)
		}
		from = append(from, r.from)
	}
	return from
}

// answers fails the test unless the proxy's answer is the status and error wanted.
func (n *network) answers(target, want string) reply {
	n.t.Helper()
	r := n.ask(target)
	if got := r.status(); got != want {
		n.t.Errorf("CONNECT %s: got %q, want %s", target, r.head, want)
	}
	return r
}

// tunnel opens a tunnel that lives until the end of the test.
func (n *network) tunnel(target string) (net.Conn, reply) {
	n.t.Helper()
	c, err := n.proxy.Dial(n.t.Context(), "tcp", proxyAddr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	r, err := open(c, target)
	if err != nil || r.status() != "200" {
		n.t.Fatalf("CONNECT %s: %q, %v", target, r.head, err)
	}
	return c, r
}

// tunnelFrom is tunnel, by the source given, which is to come within some turns.
func (n *network) tunnelFrom(source, target string) net.Conn {
	n.t.Helper()
	for range 10 {
		c, r := n.tunnel(target)
		if r.from == source {
			return c
		}
		c.Close()
	}
	n.t.Fatalf("%s is never used", source)
	return nil
}

// pool waits for a log line, behind the first after, that says that the pool main
// holds exactly these addresses, in any order.
func (n *network) pool(after int, addrs ...string) {
	n.t.Helper()
	want := slices.Sorted(slices.Values(addrs))
	n.s.lineAfter(after, func(e entry) bool {
		list, _ := e["addresses"].([]any)
		var got []string
		for _, a := range list {
			got = append(got, fmt.Sprint(a))
		}
		slices.Sort(got)
		return e.text("message") == "pool" && slices.Equal(got, want)
	})
}

// legs returns how many upstream connections of swivel are open.
func (n *network) legs() int {
	n.t.Helper()
	return strings.Count(n.proxy.Run("ss", "-Htn", "state", "established", "dport = :443"), "\n")
}

// filter adds rules in the language of nft(8) to a hook of a namespace.
func filter(ns *netlab.Namespace, hook string, rules ...string) {
	ns.Nft(fmt.Sprintf("table inet e2e {\nchain %s {\ntype filter hook %[1]s priority 0\n%s\n}\n}\n", hook, strings.Join(rules, "\n")))
}

// count counts the packets at a hook that match, for Namespace.Counter.
func count(ns *netlab.Namespace, hook, counter, match string) {
	ns.Nft("table inet e2e {\ncounter " + counter + " { }\n}\n")
	filter(ns, hook, match+" counter name "+counter)
}

// sysctl sets a value under /proc/sys/net of a namespace.
func sysctl(t testing.TB, ns *netlab.Namespace, name, value string) {
	t.Helper()
	if err := ns.Do(func() error {
		return os.WriteFile(path.Join("/proc/sys/net", name), []byte(value), 0)
	}); err != nil {
		t.Fatal(err)
	}
}
