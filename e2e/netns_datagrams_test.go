//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"swivel/internal/netlab"
	"swivel/internal/proxyproto"
)

// wayBackUDP is wayBack for datagrams.
func (n *balanced) wayBackUDP() {
	n.t.Helper()
	n.host.Batch("rule add from 127.0.0.1 iif lo ipproto udp lookup 100\nroute add local 0.0.0.0/0 dev lo table 100\n")
	n.host.Run("ip", "-6", "rule", "add", "from", "::1", "iif", "lo", "ipproto", "udp", "lookup", "100")
	n.host.Run("ip", "-6", "route", "add", "local", "::/0", "dev", "lo", "table", "100")
}

// serveUDP runs a server that answers each datagram with whom it came from, a space,
// and what was in it; one that says "nothing" with an empty one.
func (n *balanced) serveUDP(address string) { n.t.Helper(); n.serveUDPIn(n.host, address) }

func (n *balanced) serveUDPIn(ns *netlab.Namespace, address string) {
	n.t.Helper()
	pc := ns.ListenPacket("udp", address)
	go func() { // until pc is closed
		b := make([]byte, 1<<16)
		for {
			size, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			answer := fmt.Appendf(nil, "%s %s", from, b[:size])
			if string(b[:size]) == "nothing" {
				answer = nil
			}
			pc.WriteTo(answer, from)
		}
	}()
}

// startUDP starts swivel on host with these listeners, each a name and its keys.
func (n *balanced) startUDP(limits string, listeners ...string) {
	n.t.Helper()
	n.s = startIn(n.t, n.host, "-config", config(n.t, datagramFile(limits, listeners...)))
}

func datagramFile(limits string, listeners ...string) string {
	text := fmt.Sprintf("limits: {%s}\nlisteners:\n", limits)
	for _, l := range listeners {
		name, keys, _ := strings.Cut(l, ": ")
		text += fmt.Sprintf("  - {name: %s, mode: unwrap, from: [10.5.0.1, 10.5.0.8, \"fd00:5::1\"], %s}\n", name, keys)
	}
	return text
}

// sender is a load balancer's socket.
type sender struct {
	net.PacketConn
	t *testing.T
}

func (n *balanced) sender(address string) sender {
	n.t.Helper()
	return sender{n.front.ListenPacket("udp", address), n.t}
}

func (s sender) send(to string, parts ...string) {
	s.t.Helper()
	if _, err := s.WriteTo([]byte(strings.Join(parts, "")), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
		s.t.Fatal(err)
	}
}

// ask sends to an address and returns what comes back, which must come from there.
func (s sender) ask(to string, parts ...string) string {
	s.t.Helper()
	s.send(to, parts...)
	return s.answer(to)
}

// insist asks until it is answered: a server that is flooded loses some.
func (s sender) insist(to string, parts ...string) string {
	s.t.Helper()
	b := make([]byte, 1<<16)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		s.send(to, parts...)
		s.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, _, err := s.ReadFrom(b); err == nil {
			return string(b[:n])
		}
	}
	s.t.Fatal("no answer")
	return ""
}

func (s sender) answer(from string) string {
	s.t.Helper()
	b := make([]byte, 1<<16)
	s.SetReadDeadline(time.Now().Add(patience))
	n, addr, err := s.ReadFrom(b)
	if err != nil {
		s.t.Fatal(err)
	}
	if addr.String() != from {
		s.t.Errorf("answered from %s, want %s", addr, from)
	}
	return string(b[:n])
}

func datagramHeader(src, dst string) string {
	return string(proxyproto.AppendV2(nil, datagramClaim(src, dst)))
}

func simpleHeader(src, dst string) string {
	return string(proxyproto.AppendSimple(nil, datagramClaim(src, dst)))
}

func datagramClaim(src, dst string) proxyproto.Header {
	h := claim(src, dst)
	h.UDP = true
	return h
}

// go-mmproxy died of the first datagram. Every form of header, IPv4 and IPv6, and what
// the log says.
func TestDatagrams(t *testing.T) {
	n := newBalanced(t)
	n.wayBackUDP()
	n.serveUDP(server4)
	n.serveUDP(server6)
	n.startUDP("drain: 1s",
		"every: listen: 'udp/:2222', "+bothTargets,
		"once: listen: 'udp/:2223', udp_header: first, "+bothTargets,
		"v1: listen: 'udp/:2224', udp_header: first-v1, "+bothTargets,
		"simple: listen: ['udp/10.5.0.2:2225', 'udp/[fd00:5::2]:2225'], udp_header: simple, "+bothTargets)
	port := 5000
	for _, family := range []struct{ sender, to, client, public string }{
		{"10.5.0.1:0", "10.5.0.2", "198.51.100.7", public4},
		{"[fd00:5::1]:0", "[fd00:5::2]", "[2001:db8:51::7]", public6},
		{"10.5.0.1:0", "10.5.0.2", "[2001:db8:51::7]", public6},
	} {
		s := n.sender(family.sender)
		for _, tt := range []struct {
			port   string
			header func(src, dst string) string
			first  bool
			answer bool // has the header, too
		}{
			{":2222", datagramHeader, false, false},
			{":2223", datagramHeader, true, false},
			{":2224", func(src, dst string) string { return string(v1(src, dst)) }, true, false},
			{":2225", simpleHeader, false, true},
		} {
			port++
			to, client := family.to+tt.port, fmt.Sprint(family.client, ":", port)
			header, again, prefix := tt.header(client, family.public), tt.header(client, family.public), ""
			if tt.first {
				again = ""
			}
			if tt.answer {
				prefix = header
			}
			if got, want := s.ask(to, header, "hello"), prefix+client+" hello"; got != want {
				t.Errorf("%s: got %q, want %q", to, got, want)
			}
			for _, payload := range []string{"", header} { // 3c/12: a second header is payload
				if got, want := s.ask(to, again, payload), prefix+client+" "+payload; got != want {
					t.Errorf("%s: got %q, want %q", to, got, want)
				}
			}
			if got := s.ask(to, again, "nothing"); got != prefix {
				t.Errorf("%s: got %q, want %q", to, got, prefix)
			}
		}
	}
	n.s.signal(syscall.SIGTERM)
	for _, l := range n.s.linesAfter(0, 12, closed) {
		if l.text("mode") != "unwrap-udp" || l.text("reason") != "drained" || l["up"].(float64) < 12 || l["down"].(float64) < 60 || l.text("peer") == "" {
			t.Errorf("got %v", l)
		}
	}
	if status := n.s.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// 3c/15, 3c/13, 3c/14: what is no header, or not one that is believed, is dropped and
// counted, each datagram by itself.
func TestDatagramsDropped(t *testing.T) {
	n := newBalanced(t)
	n.wayBackUDP()
	n.serveUDP(server4)
	n.startUDP("per_client: 2",
		"every: listen: 'udp/:2222', to: '127.0.0.1:7777', clients: [198.51.100.0/24, 127.0.0.0/8]",
		"once: listen: 'udp/:2223', to: '127.0.0.1:7777', udp_header: first",
		"v1: listen: 'udp/:2224', to: '127.0.0.1:7777', udp_header: first-v1",
		"simple: listen: 'udp/:2225', to: '127.0.0.1:7777', udp_header: simple")
	s := n.sender("10.5.0.1:0")
	good := datagramHeader(claimed4, public4)
	const every, once, version1, simple = "10.5.0.2:2222", "10.5.0.2:2223", "10.5.0.2:2224", "10.5.0.2:2225"
	listeners := map[string]string{every: "every", once: "once", version1: "v1", simple: "simple"}
	want := make(map[string]float64) // datagrams, by listener and reason
	for _, tt := range []struct{ to, datagram, reason string }{
		{every, "", "bad-header"},
		{every, "no header", "bad-header"},
		{every, good[:20], "bad-header"}, // split over datagrams
		{every, good[20:], "bad-header"},
		{every, string(v1(claimed4, public4)) + "x", "bad-header"},
		{every, string(v2(claimed4, public4)) + "x", "bad-header"}, // about a connection
		{every, simpleHeader(claimed4, public4) + "x", "bad-header"},
		{once, "no header, and no flow", "bad-header"},
		{version1, good + "x", "bad-header"},
		{simple, good + "x", "bad-header"},
		{every, datagramHeader("127.0.0.1:5001", public4), "source-denied"},
		{every, datagramHeader(server4, public4), "source-denied"},
		{every, datagramHeader("224.0.0.1:5001", public4), "source-denied"},
		{every, datagramHeader("0.0.0.0:5001", public4), "source-denied"},
		{every, datagramHeader("198.51.100.7:0", public4), "source-denied"},
		{every, datagramHeader("10.5.0.2:5001", public4), "source-denied"},
		{every, datagramHeader("198.52.0.1:5001", public4), "client-denied"},
		{every, datagramHeader(claimed6, public6), "no-target"},
	} {
		s.send(tt.to, tt.datagram)
		want[listeners[tt.to]+" "+tt.reason]++
	}
	var stranger net.PacketConn
	if err := n.host.Do(func() (err error) { stranger, err = net.ListenPacket("udp", "10.5.0.2:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	sender{stranger, t}.send(every, good, "hello")
	want["every untrusted-peer"]++
	if got := s.ask(every, good, ""); got != claimed4+" " { // a header alone is a datagram
		t.Errorf("got %q", got)
	}
	// Two flows of one client are all that there may be.
	s.ask(every, datagramHeader("198.51.100.7:5002", public4), "")
	s.send(every, datagramHeader("198.51.100.7:5003", public4), "")
	want["every client-limit"]++

	eventually(t, "every drop in the log", func() bool {
		got := make(map[string]float64)
		for _, l := range n.s.lines() {
			if message("dropped")(l) {
				got[l.text("listener")+" "+l.text("reason")] += l["datagrams"].(float64)
			}
		}
		return maps.Equal(got, want)
	})
}

// 3c/15: a sender that claims a client of another sender is answered itself, and the
// other one as before.
func TestDatagramsSameClient(t *testing.T) {
	n := newBalanced(t)
	n.front.Addr("srv", "10.5.0.8/24")
	n.wayBackUDP()
	n.serveUDP(server4)
	n.serveUDP("127.0.0.1:7778")
	n.startUDP("",
		"a: listen: 'udp/10.5.0.2:2222', to: '127.0.0.1:7777'",
		"b: listen: 'udp/10.5.0.2:2223', to: '127.0.0.1:7778'",
		"any: listen: 'udp/10.5.0.2:2224', to: '127.0.0.1:7777', source: any-port",
		"own: listen: 'udp/10.5.0.2:2225', to: '127.0.0.1:7777', source: own")
	a, b := n.sender("10.5.0.1:0"), n.sender("10.5.0.8:0")
	header := datagramHeader(claimed4, public4)
	const to = "10.5.0.2:2222"
	if got := a.ask(to, header, "a"); got != claimed4+" a" {
		t.Errorf("a: got %q", got)
	}
	if got := b.ask(to, header, "b"); !strings.HasPrefix(got, "198.51.100.7:") || strings.HasPrefix(got, claimed4) || !strings.HasSuffix(got, " b") {
		t.Errorf("b: got %q", got)
	}
	// Another port of the sender is the same flow, which is answered there.
	if got := n.sender("10.5.0.1:0").ask(to, header, "c"); got != claimed4+" c" {
		t.Errorf("c: got %q", got)
	}
	// Towards another server, the client has its port, too.
	if got := a.ask("10.5.0.2:2223", header, "d"); got != claimed4+" d" {
		t.Errorf("d: got %q", got)
	}
	if got := a.ask("10.5.0.2:2224", header, "e"); !strings.HasPrefix(got, "198.51.100.7:") || strings.HasPrefix(got, claimed4) {
		t.Errorf("any-port: got %q", got)
	}
	if got := a.ask("10.5.0.2:2225", header, "f"); !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("own: got %q", got)
	}
	if got := a.ask(to, string(proxyproto.AppendV2(nil, proxyproto.Header{Local: true})), "g"); !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("LOCAL: got %q", got)
	}
}

// A range of ports to the same ports, and where the header says.
func TestDatagramsDestinations(t *testing.T) {
	n := newBalanced(t)
	n.wayBackUDP()
	n.serveUDP("127.0.0.1:2301")
	n.serveUDP("127.0.0.1:2302")
	n.startUDP("",
		"range: listen: 'udp/10.5.0.2:2301-2303', to: '127.0.0.1:*'",
		"header: listen: 'udp/:2400', to: destination, destinations: {allow: [127.0.0.0/8], ports: [2302, 2400]}")
	s := n.sender("10.5.0.1:0")
	for _, tt := range []struct{ to, dst string }{
		{"10.5.0.2:2301", public4}, {"10.5.0.2:2302", public4}, {"10.5.0.2:2400", "127.0.0.1:2302"},
	} {
		client := "198.51.100.7:1" + tt.to[len("10.5.0.2:"):]
		if got := s.ask(tt.to, datagramHeader(client, tt.dst), "x"); got != client+" x" {
			t.Errorf("%s: got %q", tt.to, got)
		}
	}
	for dst, reason := range map[string]string{
		"127.0.0.1:2301": "destination port denied",
		"10.6.0.2:2302":  "destination address denied",
		"127.0.0.1:2400": "destination is this proxy",
	} {
		before := len(n.s.lines())
		s.send("10.5.0.2:2400", datagramHeader(claimed4, dst), "x")
		if l := n.s.lineAfter(before, message("dropped")); l.text("error") != reason {
			t.Errorf("%s: got %v", dst, l)
		}
	}
}

// Flows live through a reload, also one that takes their listener away; what is put
// back goes on with them.
func TestDatagramsReload(t *testing.T) {
	n := newBalanced(t)
	n.wayBackUDP()
	n.serveUDP(server4)
	const a = "a: listen: 'udp/:2222', to: '127.0.0.1:7777'"
	const b = "b: listen: 'udp/:2223', to: '127.0.0.1:7777'"
	path := config(t, datagramFile("drain: 1s", a))
	n.s = startIn(t, n.host, "-config", path)
	use := func(want string, listeners ...string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(datagramFile("drain: 1s", listeners...)), 0o600); err != nil {
			t.Fatal(err)
		}
		if l := n.s.reload(); !strings.HasPrefix(l.text("message"), want) {
			t.Fatalf("got %v", l)
		}
	}
	s := n.sender("10.5.0.1:0")
	old, other := datagramHeader(claimed4, public4), datagramHeader("198.51.100.8:5001", public4)
	ask := func(to, header, want string) {
		t.Helper()
		if got := s.ask(to, header, "x"); got != want+" x" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	ask("10.5.0.2:2222", old, claimed4)
	use("reloaded", a, b)
	ask("10.5.0.2:2222", old, claimed4)
	ask("10.5.0.2:2223", other, "198.51.100.8:5001")
	use("reloaded", b)
	ask("10.5.0.2:2222", old, claimed4)
	before := len(n.s.lines())
	s.send("10.5.0.2:2222", datagramHeader("198.51.100.9:5001", public4), "x")
	n.s.lineAfter(before, message("dropped"))
	use("reload failed", a, "c: listen: 'udp/10.5.0.2:2223', to: '127.0.0.1:7777'")
	use("reloaded", a)
	ask("10.5.0.2:2222", old, claimed4)
	ask("10.5.0.2:2222", datagramHeader("198.51.100.9:5001", public4), "198.51.100.9:5001")
	n.s.signal(syscall.SIGTERM)
	n.s.line(message("draining"))
	ask("10.5.0.2:2222", old, claimed4)
	if status := n.s.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if lines := n.s.linesAfter(0, 3, closed); len(lines) != 3 {
		t.Errorf("got %v", lines)
	}
}

// Datagrams that each claim another client: memory and descriptors are bounded, and
// who is here goes on.
func TestDatagramsFlood(t *testing.T) {
	n := newBalanced(t)
	n.wayBackUDP()
	n.serveUDP(server4)
	n.startUDP("connections: 500", "game: listen: 'udp/:2222', to: '127.0.0.1:7777'")
	const to = "10.5.0.2:2222"
	s := n.sender("10.5.0.1:0")
	header := datagramHeader(claimed4, public4)
	for range 3 {
		s.ask(to, header, "x")
	}
	// Through another sender's port, which is not read: answers are lost there.
	flood := n.sender("10.5.0.1:0")
	for i := range 20000 {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(i >> 16), byte(i >> 8), byte(i)}), 5000)
		flood.send(to, datagramHeader(src.String(), public4), "x")
		if i%1000 == 0 {
			if got := s.insist(to, header, "y"); got != claimed4+" y" {
				t.Errorf("after %d datagrams: got %q", i, got)
			}
			if fds := netlab.FDs(n.s.pid()); fds > 540 {
				t.Errorf("after %d datagrams: %d descriptors", i, fds)
			}
		}
	}
}

// nginx's stream module sends version 1, naming TCP, and only once a flow. Its client
// and the server are Python.
func TestDatagramsOfNginx(t *testing.T) {
	const module = "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(module); err != nil {
		t.Skip(err)
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip(err)
	}
	n := newBalanced(t)
	n.wayBackUDP()
	n.startUDP("", "nginx: listen: 'udp/:2222', udp_header: first-v1, "+bothTargets)
	python(t, n.host, `
import socket, threading
def serve(family, address):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((address, 7777))
    while True:
        data, peer = s.recvfrom(65536)
        s.sendto(peer[0].encode() + b" " + data, peer)
threading.Thread(target=serve, args=(socket.AF_INET6, "::1")).start()
serve(socket.AF_INET, "127.0.0.1")
`)
	n.balancer(fmt.Sprintf(`
load_module %s;
user root; daemon off; master_process off; pid DIR/pid; error_log stderr;
events {}
stream {
	proxy_protocol on;
	server { listen 198.51.100.1:53 udp; proxy_pass %s; }
	server { listen [2001:db8:51::1]:53 udp; proxy_pass %s; }
}`, module, unwrapAddr4, unwrapAddr6), "nginx", "-c", "%s", "-e", "stderr")
	for _, address := range []string{"198.51.100.1", "2001:db8:51::1"} {
		client := map[string]string{"198.51.100.1": "198.51.100.7", "2001:db8:51::1": "2001:db8:51::7"}[address]
		// It asks again until nginx and the server are there.
		out := n.client.Run("python3", "-c", `
import socket, sys
host, client = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((client, 0))
s.connect((host, 53))
s.settimeout(0.2)
for attempt in range(100):
    try:
        s.send(b"")
        s.recv(100)
        break
    except OSError:
        pass
s.settimeout(20)
for payload in b"hello", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2", b"":
    s.send(payload)
    print(s.recv(65536).decode())
`, address, client)
		want := fmt.Sprintf("%s hello\n%[1]s PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n%[1]s \n", client)
		if out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	}
}

// python runs a script until the end of the test.
func python(t *testing.T, ns *netlab.Namespace, script string) {
	t.Helper()
	cmd := ns.Command(t.Context(), "python3", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() }) // t.Context has ended it
}

// What TestUnwrapWayBack shows of connections.
func TestDatagramsWayBack(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip(err)
	}
	n := newBalanced(t)
	servers := []string{"127.0.0.1:7777", "[::1]:7777", "10.6.0.2:7778", "[fd00:6::2]:7778"}
	n.serveUDP(servers[0])
	n.serveUDP(servers[1])
	n.serveUDPIn(n.box, servers[2])
	n.serveUDPIn(n.box, servers[3])
	path := config(t, datagramFile("", "local: listen: ['udp/:2222', ':2222'], "+bothTargets,
		"box: listen: 'udp/:2223', to: ['10.6.0.2:7778', '[fd00:6::2]:7778']"))
	before := n.check("-config", path)
	if want := "ip -4 rule add from 127.0.0.1 iif lo ipproto udp sport 7777 lookup"; !strings.Contains(before, want) {
		t.Errorf("no %q in\n%s", want, before)
	}
	n.rules("-config", path)
	after := n.check("-config", path)
	for _, server := range []string{"udp/127.0.0.1:7777", "udp/[::1]:7777", "10.6.0.2/32", "fd00:6::2/128"} {
		if !strings.Contains(after, " "+server+" answer") {
			t.Errorf("check says\n%s", after)
		}
	}
	if strings.Contains(after, "does not come back") || strings.Contains(after, "no rules mark") {
		t.Errorf("check says\n%s", after)
	}
	n.s = startIn(t, n.host, "-config", path)
	for _, tt := range []struct{ from, to, client, public string }{
		{"10.5.0.1:0", "10.5.0.2:2222", claimed4, public4},
		{"[fd00:5::1]:0", "[fd00:5::2]:2222", claimed6, public6},
		{"10.5.0.1:0", "10.5.0.2:2223", claimed4, public4},
		{"[fd00:5::1]:0", "[fd00:5::2]:2223", claimed6, public6},
	} {
		if got := n.sender(tt.from).ask(tt.to, datagramHeader(tt.client, tt.public), "x"); got != tt.client+" x" {
			t.Errorf("%s: got %q", tt.to, got)
		}
	}
}
