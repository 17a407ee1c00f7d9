//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"swivel/internal/netlab"
)

// startExit starts swivel as an exit that leaves by source, and returns where it
// listens. It denies 127.0.0.9.
func startExit(t testing.TB, source string, args ...string) string {
	t.Helper()
	s := start(t, append([]string{"-listen", "127.0.0.1:0", "-pool", source, "-allow", "127.0.0.0/8", "-deny", "127.0.0.9", "-ports", "1-65535"}, args...)...)
	return s.addr("egress")
}

// TestExits: a gateway leaves through other proxies, in each of the ways to speak to
// them, and tells the truth of what they say.
func TestExits(t *testing.T) {
	users := usersFile(t, "gate")
	cert := newCertificate(t, time.Now().Add(time.Hour))
	exit := startExit(t, "127.0.0.12", "-users", users)
	var listeners strings.Builder
	for _, pool := range []string{"http", "https", "socks5", "wrong", "untrusted", "down"} {
		fmt.Fprintf(&listeners, "  - {name: %s, listen: '127.0.0.1:0', pool: %[1]s, destinations: {allow: [127.0.0.0/8], ports: [1-65535]}}\n", pool)
	}
	path := config(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
pools:
  http: {sources: [{upstream: "http://gate:gate-secret@%[1]s"}]}
  https: {sources: [{upstream: "https://gate:gate-secret@%[2]s", ca: %[3]s}]}
  socks5: {sources: [{upstream: "socks5://gate:gate-secret@%[1]s"}]}
  wrong: {sources: [{upstream: "http://gate:wrong-secret@%[1]s"}]}
  untrusted: {sources: [{upstream: "https://gate:gate-secret@%[2]s"}]}
  down: {sources: [{upstream: "http://gate:gate-secret@%[4]s"}]}
listeners:
%[5]s`, exit, startExit(t, "127.0.0.13", "-users", users, "-cert", cert.cert, "-key", cert.key), cert.cert, unused(), listeners.String()))
	s := start(t, "-config", path)
	echo, plain := newEcho(t, nil), newOrigin(t, nil)

	for name, source := range map[string]string{"http": "127.0.0.12", "https": "127.0.0.13", "socks5": "127.0.0.12"} {
		proxy := s.addr(name)
		c := dial(t, proxy)
		head, err := connect(c, echo)
		if err != nil || field(head, "Swivel-Source") != source {
			t.Fatalf("%s: %q, %v; want source %s", name, head, err, source)
		}
		alive(t, c)
		c.Close()
		if got := curl(t, "-x", proxy, plain.url); strings.TrimSpace(got) != source {
			t.Errorf("%s: plain HTTP came from %q, want %s", name, got, source)
		}
		upgraded(t, proxy)
		if got := curl(t, "-x", "socks5h://"+proxy, plain.url); strings.TrimSpace(got) != source {
			t.Errorf("%s: SOCKS5 came from %q, want %s", name, got, source)
		}
	}
	nobody := unused()
	for name, want := range map[[2]string]string{
		{"http", nobody}:            "502 connection_refused",
		{"socks5", nobody}:          "502 connection_refused",
		{"http", "127.0.0.9:443"}:   "403 destination_ip_prohibited",
		{"socks5", "127.0.0.9:443"}: "403 http_request_denied",
		{"wrong", echo}:             "503 proxy_configuration_error",
		{"untrusted", echo}:         "503 destination_unavailable",
		{"down", echo}:              "503 destination_unavailable",
	} {
		c := dial(t, s.addr(name[0]))
		head, _ := connect(c, name[1])
		if got := (reply{head: head}).status(); got != want {
			t.Errorf("%s to %s: got %q, want %s", name[0], name[1], head, want)
		}
		c.Close()
	}

	e := s.line(func(e entry) bool { return closed(e) && e.text("listener") == "http" && e.text("mode") == "connect" })
	if e.text("source") != exit || e.text("address") != echo {
		t.Errorf("line %v, want source %s", e, exit)
	}
	log, _ := json.Marshal(s.lines())
	_, state := get(t, s.addr("admin"), "/api/sources")
	sources := finish(t, command(t, "sources", "-config", path))
	check := finish(t, command(t, "check", "-config", path))
	for name, text := range map[string]string{"log": string(log), "/api/sources": state, "swivel sources": sources.stdout + sources.stderr, "swivel check": check.stdout + check.stderr} {
		if strings.Contains(text, "secret") || !strings.Contains(text, exit) {
			t.Errorf("%s: %s\nwant %s in it, and no password", name, text, exit)
		}
	}
	if n := strings.Count(check.stdout, "missing  pool "); n != 2 || !strings.Contains(check.stdout, "pool untrusted: exit https://") || !strings.Contains(check.stdout, "pool down: exit http://") {
		t.Errorf("swivel check: %s\nwant it to miss two exits", check.stdout)
	}
	s.stop()
}

// upgraded checks that a plain HTTP request through proxy can become a tunnel.
func upgraded(t *testing.T, proxy string) {
	t.Helper()
	ln := listen(t)
	go func() { // until the client has gone
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		if _, err := http.ReadRequest(in); err == nil {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			io.Copy(c, in)
		}
	}()
	c := dial(t, proxy)
	defer c.Close()
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", ln.Addr())
	in := bufio.NewReader(c)
	r, err := http.ReadResponse(in, nil)
	if err != nil || r.StatusCode != 101 {
		t.Fatalf("upgrade through %s: %+v, %v", proxy, r, err)
	}
	io.WriteString(c, "ping")
	got := make([]byte, len("ping"))
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "ping" {
		t.Errorf("upgrade through %s: %q, %v", proxy, got, err)
	}
}

// TestExitLoop is 3a/30: proxies that lead to each other, or to themselves, answer
// that, and hold nothing.
func TestExitLoop(t *testing.T) {
	one, two := unused(), unused()
	open := []string{"-allow", "127.0.0.0/8", "-ports", "1-65535"}
	a := start(t, append(open, "-listen", one, "-pool", "http://"+two)...)
	b := start(t, append(open, "-listen", two, "-pool", "http://"+one+",http://"+one[:len(one)-1]+"8")...)
	itself := unused()
	c := start(t, append(open, "-listen", itself, "-pool", "socks5://"+itself)...)
	echo := newEcho(t, nil)
	fds := netlab.FDs(a.pid()) + netlab.FDs(b.pid()) + netlab.FDs(c.pid())
	for _, proxy := range []string{one, two, itself} {
		client := dial(t, proxy)
		head, err := connect(client, echo)
		if !strings.HasPrefix(head, "HTTP/1.1 502 proxy_loop_detected") {
			t.Errorf("%s: %q, %v; want a loop to be detected", proxy, head, err)
		}
		client.Close()
	}
	eventually(t, "descriptors are held", func() bool {
		return netlab.FDs(a.pid())+netlab.FDs(b.pid())+netlab.FDs(c.pid()) <= fds
	})
}

// TestServices: a fleet is what DNS says it is, without a restart.
func TestServices(t *testing.T) {
	dns := netlab.NewDNS(t, map[string][]netip.Addr{"exit.test": {netip.MustParseAddr("127.0.0.1")}})
	dns.Hook(func(q netlab.DNSQuery) ([][]byte, bool) {
		for i := range q.Reply.Answers {
			q.Reply.Answers[i].Header.TTL = 0
		}
		return [][]byte{q.Pack(t)}, true
	})
	record := func(exit string, priority uint16) dnsmessage.SRVResource {
		return dnsmessage.SRVResource{Priority: priority, Port: netip.MustParseAddrPort(exit).Port(), Target: dnsmessage.MustNewName("exit.test.")}
	}
	exits := []string{startExit(t, "127.0.0.12"), startExit(t, "127.0.0.13"), startExit(t, "127.0.0.14")}
	s := start(t, "-config", config(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
resolver: {servers: ["%s"], cache: 0s}
pools: {main: {sources: [{upstream_srv: _swivel._tcp.test, labels: {country: de}}]}}
listeners:
  - {name: egress, listen: "127.0.0.1:0", labels: {country: de}, %s}
`, dns.AddrPort(), goesAnywhere)))
	echo := newEcho(t, nil)
	// from waits until clients leave by these sources in turn, and no others.
	from := func(want ...string) {
		t.Helper()
		eventually(t, "clients do not leave by "+strings.Join(want, ", "), func() bool {
			seen := make(map[string]bool)
			for range 2 * len(want) {
				c := dial(t, s.addr("egress"))
				head, err := connect(c, echo)
				c.Close()
				if err != nil {
					t.Fatal(err)
				}
				seen[field(head, "Swivel-Source")] = true
			}
			for _, w := range want {
				if !seen[w] {
					return false
				}
			}
			return len(seen) == len(want)
		})
	}
	c := dial(t, s.addr("egress"))
	head, _ := connect(c, echo)
	if !strings.HasPrefix(head, "HTTP/1.1 503 proxy_configuration_error") {
		t.Errorf("no records: got %q", head)
	}
	c.Close()
	if status, _ := get(t, s.addr("admin"), "/readyz"); status != 503 {
		t.Errorf("readyz: %d, want 503", status)
	}
	dns.SetServices("_swivel._tcp.test", record(exits[0], 1), record(exits[1], 1), record(exits[2], 2))
	from("127.0.0.12", "127.0.0.13")
	held := tunnel(t, s.addr("egress"), echo)
	dns.SetServices("_swivel._tcp.test", record(unused(), 1), record(exits[2], 2)) // one of them is down
	from("127.0.0.14")
	alive(t, held)

	n := len(s.lines())
	dns.Hook(func(netlab.DNSQuery) ([][]byte, bool) { return nil, false })
	dns.SetServices("_swivel._tcp.test")
	s.lineAfter(n, func(e entry) bool { return e.text("message") == "pool" && e["sources"] == 0.0 })
	held.Close()
	s.stop()
}
