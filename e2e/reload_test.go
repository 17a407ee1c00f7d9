//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// file is a configuration with one listener, egress, whose clients leave by source,
// and what else is given for its list of listeners.
func file(source string, listeners ...string) string {
	return fmt.Sprintf(`
pools: {main: {sources: [{address: %s}]}}
listeners:
  - {name: egress, listen: "127.0.0.1:0", %s}
`, source, goesAnywhere) + strings.Join(listeners, "\n")
}

const goesAnywhere = `pool: main, destinations: {allow: [127.0.0.0/8], ports: [1-65535]}`

// TestReloadRefused is C1 and C4: a configuration that cannot be used changes
// nothing, also not what comes in front of the mistake.
func TestReloadRefused(t *testing.T) {
	path := config(t, file("127.0.0.2"))
	s := start(t, "-config", path)
	proxy := s.addr("egress")
	held := tunnel(t, proxy, newEcho(t, nil))
	port := proxy[strings.LastIndexByte(proxy, ':'):]

	taken, extra := listen(t).Addr().String(), unused()
	old := newCertificate(t, time.Now().Add(-time.Hour))
	good := file("127.0.0.3", "  - {name: extra, listen: '"+extra+"', pool: main}")
	bad := func(listener string) string { return good + "\n  - {name: bad, pool: main, " + listener + "}" }

	for name, tt := range map[string]struct{ text, want string }{
		"bad YAML":                 {good + "\n  - {name: bad", `swivel.yaml:6:\d+: `},
		"half-written":             {good[:len(good)/2], `swivel.yaml:\d:\d+: `},
		"empty":                    {"", `swivel.yaml: empty`},
		"missing":                  {"-", `swivel.yaml: no such file`},
		"unknown key":              {bad("lisen: '127.0.0.1:0'"), `swivel.yaml:6:\d+: .*lisen.*listen`},
		"users file missing":       {bad("listen: '127.0.0.1:0', users: /nonexistent/users"), `bad: users: .*/nonexistent/users: no such file`},
		"TLS key missing":          {bad("listen: '127.0.0.1:0', tls: {certificate: " + old.cert + ", key: /nonexistent/key}"), `bad: tls: .*/nonexistent/key: no such file`},
		"certificate expired":      {bad("listen: '127.0.0.1:0', tls: {certificate: " + old.cert + ", key: " + old.key + "}"), `bad: tls: .*cert.pem: expired on`},
		"port in use":              {bad("listen: '" + taken + "'"), `listen ` + taken + `: address already in use`},
		"port in use by ourself":   {bad("listen: '0.0.0.0" + port + "', clients: [127.0.0.1]"), `swivel itself listens on ` + proxy},
		"port in use by two of it": {bad("listen: ['" + extra + "']"), `swivel.yaml:6:.*` + extra},
	} {
		t.Run(name, func(t *testing.T) {
			fds := netlab.FDs(s.pid())
			write(t, path, tt.text)
			if tt.text == "-" {
				os.Remove(path)
			}
			e := s.reload()
			if !regexp.MustCompile(tt.want).MatchString(e.text("error")) || e.text("level") != "error" {
				t.Errorf("got %v, want an error like %s", e, tt.want)
			}
			alive(t, held)
			checkSource(t, proxy, "127.0.0.2")
			if !refuses(extra) {
				t.Errorf("%s is listened on, which only the new configuration has", extra)
			}
			s.settle(fds)
		})
	}
	write(t, path, good)
	if e := s.reload(); e.text("message") != "reloaded" || refuses(extra) {
		t.Errorf("got %v, want the good file to be taken", e)
	}
	held.Close()
	s.stop()
}

// checkSource checks that clients of proxy leave by want.
func checkSource(t *testing.T, proxy, want string) {
	t.Helper()
	c := dial(t, proxy)
	defer c.Close()
	head, err := connect(c, newEcho(t, nil))
	if !strings.Contains(head, "\r\nSwivel-Source: "+want+"\r\n") {
		t.Errorf("CONNECT: %q, %v; want source %s", head, err, want)
	}
}

func TestReload(t *testing.T) {
	users := usersFile(t, "alice")
	gone := unused()
	second := "  - {name: second, listen: '" + gone + "', " + goesAnywhere + "}"
	path := config(t, file("127.0.0.2", second))
	s := start(t, "-config", path)
	stays, echo, plain := s.addr("egress"), newEcho(t, nil), newOrigin(t, nil)
	held := []net.Conn{tunnel(t, stays, echo), tunnel(t, s.addr("second"), echo)}

	n := len(s.lines())
	write(t, path, file("127.0.0.3", "  - {name: third, listen: '127.0.0.1:0', users: "+users+", "+goesAnywhere+"}"))
	if e := s.reload(); e.text("message") != "reloaded" {
		t.Fatal(e)
	}
	third := s.addrAfter(n, "third")
	eventually(t, "a listener that was removed is still there", func() bool { return refuses(gone) })
	checkSource(t, stays, "127.0.0.3")
	for _, c := range held {
		alive(t, c)
	}

	carol := []string{"-x", third, "-U", "carol:carol-secret", "-f", plain.url}
	if r := client(t, "", "curl", append(carol, "-s")...); r.status == 0 {
		t.Error("carol passed, who is no user yet")
	}
	writeUsers(t, users, "alice", "carol")
	s.reload()
	curl(t, carol...)

	for _, c := range held {
		alive(t, c)
		c.Close()
	}
	s.stop()
}

// TestReloadKernelPorts: sockets whose ports the kernel chose stay as well, each of
// them, although they are written alike.
func TestReloadKernelPorts(t *testing.T) {
	s := startProxy(t, "-listen", "127.0.0.1:0,127.0.0.1:0")
	fds := netlab.FDs(s.pid())
	for range 2 {
		if e := s.reload(); e.text("message") != "reloaded" {
			t.Fatal(e)
		}
	}
	s.settle(fds)
	echo := newEcho(t, nil)
	for _, e := range s.linesAfter(0, 2, message("listening")) {
		if err := visit(e.text("address"), echo); err != nil {
			t.Errorf("%s: %v", e.text("address"), err)
		}
	}
	s.stop()
}

func TestReloadLog(t *testing.T) {
	path := config(t, file("127.0.0.2"))
	s := start(t, "-config", path)
	proxy, echo := s.addr("egress"), newEcho(t, nil)

	n := len(s.lines())
	write(t, path, "log: {level: warn}"+file("192.0.2.77"))
	s.signal(syscall.SIGHUP)
	s.lineAfter(n, message("pool")) // a warning: the host does not have the address
	fds := netlab.FDs(s.pid())
	c := dial(t, proxy)
	if head, err := connect(c, echo); !strings.HasPrefix(head, "HTTP/1.1 503 proxy_configuration_error") {
		t.Errorf("CONNECT: %q, %v; want a 503", head, err)
	}
	c.Close()
	s.settle(fds) // its line would be written by now, and is not to be by the next level
	write(t, path, file("127.0.0.2"))
	s.reload()
	for _, e := range s.lines()[n:] {
		if closed(e) {
			t.Errorf("%v, although the level was warn", e)
		}
	}
	write(t, path, "log: {format: console}"+file("127.0.0.2"))
	n = len(s.lines())
	s.signal(syscall.SIGHUP)
	s.lineAfter(n, func(e entry) bool { return strings.Contains(e.text("not-json"), "INF reloaded") })
	s.stop()
}

// TestReloadUnderLoad is G4: reloads, each of which opens or closes a listener, fail
// nobody who is a client meanwhile, and leave nothing behind.
func TestReloadUnderLoad(t *testing.T) {
	extra := "  - {name: extra, listen: '127.0.0.1:0', " + goesAnywhere + "}"
	path := config(t, file("127.0.0.2", extra))
	s := start(t, "-config", path)
	proxy, echo := s.addr("egress"), newEcho(t, nil)
	held := tunnel(t, proxy, echo)
	fds, threads := netlab.FDs(s.pid()), threadCount(t, s.pid())

	var clients sync.WaitGroup
	var visits atomic.Int64
	done := make(chan struct{})
	for range 8 {
		clients.Go(func() {
			for !isClosed(done) {
				if err := visit(proxy, echo); err != nil {
					t.Errorf("visit %d: %v", visits.Load(), err)
					return
				}
				visits.Add(1)
			}
		})
	}
	for i := range 50 {
		for _, text := range []string{file(fmt.Sprintf("127.0.0.%d", 2+i%3)), file("127.0.0.2", extra)} {
			write(t, path, text)
			if e := s.reload(); e.text("message") != "reloaded" {
				t.Error(e)
			}
		}
	}
	for range 100 { // faster than they can be obeyed
		s.signal(syscall.SIGHUP)
	}
	close(done)
	clients.Wait()
	t.Logf("%d visits", visits.Load())
	alive(t, held)
	s.settle(fds)
	if n := threadCount(t, s.pid()); n > threads+16 {
		t.Errorf("%d threads, were %d", n, threads)
	}
	held.Close()
	s.stop()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func threadCount(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}
