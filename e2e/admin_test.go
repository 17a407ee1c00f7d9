//go:build linux

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// get asks the admin address.
func get(t testing.TB, admin, path string) (status int, body string) {
	t.Helper()
	c := http.Client{Timeout: patience}
	r, err := c.Get("http://" + admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// post asks the admin address to change something.
func post(t testing.TB, admin, path, body string) (status int, answer string) {
	t.Helper()
	c := http.Client{Timeout: patience}
	r, err := c.Post("http://"+admin+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// TestCooldownEntry: a scraper says that a source is refused by a target, or by all.
func TestCooldownEntry(t *testing.T) {
	s := start(t, "-config", config(t, adminKey+`
pools: {main: {sources: [{address: 127.0.0.2}, {address: 127.0.0.3}]}}
listeners:
  - {name: egress, listen: "127.0.0.1:0", `+goesAnywhere+`}
`))
	admin, proxy := s.addr("admin"), s.addr("egress")
	_, port, _ := strings.Cut(newEcho(t, nil), ":")
	from := func(host string, want ...string) {
		t.Helper()
		var got []string
		for range want {
			c := dial(t, proxy)
			head, err := connect(c, host+":"+port)
			c.Close()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, strings.TrimPrefix(field(head, "Swivel-Source"), "127.0.0."))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: left by %v, want %v", host, got, want)
		}
	}
	from("127.0.0.1", "2", "3")
	for _, tt := range []struct {
		body string
		want int
	}{
		{`{"source": "127.0.0.2", "target": "A.localhost.", "for": "10m"}`, 204},
		{`{"source": "192.0.2.77", "for": "10m"}`, 404},
		{`{"source": "127.0.0.2", "pool": "other", "for": "10m"}`, 404},
		{`{"source": "127.0.0.2", "target": "a:443", "for": "10m"}`, 400},
	} {
		if status, answer := post(t, admin, "/api/cooldown", tt.body); status != tt.want {
			t.Errorf("%s: %d %q, want %d", tt.body, status, answer, tt.want)
		}
	}
	from("a.localhost", "3", "3", "3")
	from("b.localhost", "2", "3", "2")
	if status, answer := post(t, admin, "/api/cooldown", `{"source": "127.0.0.2", "pool": "main", "for": "10m"}`); status != 204 {
		t.Errorf("%d %q", status, answer)
	}
	from("b.localhost", "3", "3", "3")
	if _, body := get(t, admin, "/api/sources"); !strings.Contains(body, `"source":"127.0.0.2","state":"cooling"`) || !strings.Contains(body, `"cooldown":"9m`) {
		t.Errorf("got %s", body)
	}
	post(t, admin, "/api/cooldown", `{"source": "127.0.0.2", "for": "0s"}`)
	from("b.localhost", "2", "3", "2")
	from("a.localhost", "3", "3")
	s.stop()
}

// TestRelease: a session whose source is no good any more gets another one.
func TestRelease(t *testing.T) {
	s := start(t, "-config", config(t, adminKey+`
pools: {main: {sources: [{address: 127.0.0.2}, {address: 127.0.0.3}]}}
listeners:
  - {name: egress, listen: "127.0.0.1:0", `+goesAnywhere+`}
`))
	echo := newEcho(t, nil)
	from := func(want string) {
		t.Helper()
		for range 3 {
			c := dial(t, s.addr("egress"))
			head, err := connect(c, echo, basic("alice-session-x1", "any"))
			c.Close()
			if got := field(head, "Swivel-Source"); err != nil || got != want {
				t.Errorf("left by %s, %v, want %s", got, err, want)
			}
		}
	}
	from("127.0.0.2")
	for _, tt := range []struct {
		body string
		want int
	}{
		{`{"user": "bob", "session": "x1"}`, 404},
		{`{"user": "alice", "session": "x1", "pool": "other"}`, 404},
		{`{"user": "alice"}`, 400},
	} {
		if status, answer := post(t, s.addr("admin"), "/api/release", tt.body); status != tt.want {
			t.Errorf("%s: %d %q, want %d", tt.body, status, answer, tt.want)
		}
	}
	from("127.0.0.2")
	if status, answer := post(t, s.addr("admin"), "/api/release", `{"user": "alice", "session": "x1"}`); status != 204 {
		t.Errorf("%d %q, want 204", status, answer)
	}
	from("127.0.0.3")
	s.stop()
}

const adminKey = "admin: {listen: '127.0.0.1:0'}\n"

func TestAdmin(t *testing.T) {
	path := config(t, adminKey+drains("10m"))
	s := start(t, "-config", path)
	admin, proxy, echo := s.addr("admin"), s.addr("egress"), newEcho(t, nil)
	held := tunnel(t, proxy, echo)

	var state struct {
		Pools []struct {
			Name, Strategy string
			Sources        []struct {
				Source, State string
				Weight, Open  int
			}
		}
	}
	status, body := get(t, admin, "/api/sources")
	if err := json.Unmarshal([]byte(body), &state); err != nil || status != 200 || len(state.Pools) != 1 || len(state.Pools[0].Sources) != 1 {
		t.Fatalf("%d %q, %v", status, body, err)
	}
	if p := state.Pools[0]; p.Name != "main" || p.Strategy != "round-robin" || p.Sources[0].Source != "127.0.0.2" ||
		p.Sources[0].State != "ready" || p.Sources[0].Open != 1 || p.Sources[0].Weight != 1 {
		t.Errorf("got %s", body)
	}
	if status, body := get(t, admin, "/readyz"); status != 200 {
		t.Errorf("readyz: %d %q, want 200", status, body)
	}

	// 3a/25, 3a/30: no client gets there through the proxy, whatever is allowed.
	c := dial(t, proxy)
	if head, _ := connect(c, admin); !strings.HasPrefix(head, "HTTP/1.1 502 proxy_loop_detected") {
		t.Errorf("CONNECT %s: %q, want a loop to be detected", admin, head)
	}
	c.Close()

	// The socket stays over a reload, with a pool that has no source.
	n := len(s.lines())
	write(t, path, adminKey+"limits: {drain: 10m}"+file("192.0.2.77"))
	s.reload()
	for _, e := range s.lines()[n:] {
		if e.text("message") == "listening" {
			t.Errorf("%v, although nothing has moved", e)
		}
	}
	if status, body := get(t, admin, "/readyz"); status != 503 || !strings.Contains(body, "main") {
		t.Errorf("an empty pool: readyz: %d %q, want 503 and its name", status, body)
	}
	if _, body := get(t, admin, "/api/sources"); !strings.Contains(body, `"source":"192.0.2.77","state":"missing","why":"this host`) {
		t.Errorf("got %s", body)
	}

	write(t, path, adminKey+drains("10m"))
	s.reload()
	s.signal(syscall.SIGTERM)
	s.line(message("draining"))
	if status, body := get(t, admin, "/readyz"); status != 503 || body != "draining\n" {
		t.Errorf("readyz: %d %q, want 503 draining", status, body)
	}
	if status, _ := get(t, admin, "/healthz"); status != 200 {
		t.Errorf("healthz: %d, want 200", status)
	}
	held.Close()
	if status := s.wait(); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
}

// TestAdminReload: the address moves, goes, and comes again; one that cannot be had
// changes nothing.
func TestAdminReload(t *testing.T) {
	path := config(t, adminKey+file("127.0.0.2"))
	s := start(t, "-config", path)
	first := s.addr("admin")
	taken := listen(t).Addr().String()

	write(t, path, "admin: {listen: '"+taken+"'}\n"+file("127.0.0.2"))
	if e := s.reload(); !strings.Contains(e.text("error"), "admin: listen "+taken+": address already in use") {
		t.Errorf("got %v", e)
	}
	if status, _ := get(t, first, "/healthz"); status != 200 {
		t.Errorf("healthz: %d, want 200", status)
	}
	second := unused()
	write(t, path, "admin: {listen: '"+second+"'}\n"+file("127.0.0.2"))
	s.reload()
	if status, _ := get(t, second, "/healthz"); status != 200 {
		t.Errorf("healthz: %d, want 200", status)
	}
	eventually(t, "the old address is still there", func() bool { return refuses(first) })
	write(t, path, file("127.0.0.2"))
	s.reload()
	eventually(t, "the address is still there", func() bool { return refuses(second) })
	s.stop()
}
