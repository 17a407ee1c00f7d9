//go:build linux

package e2e

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const sessionConfig = `
pools:
  main:
    sources:
      - {address: 127.0.2.1, labels: {country: DE, line: a}}
      - {address: 127.0.2.2, labels: {country: at, line: b}}
      - {address: 127.0.2.3, labels: {country: de, line: b}}
  other: {sources: [{address: 127.0.2.9}]}
listeners:
  - {name: egress, listen: 127.0.0.1:0, pool: main, users: %[1]s, destinations: {allow: [127.0.0.0/8], ports: [1-65535]}}
  - {name: open, listen: 127.0.0.1:0, pool: main, destinations: {allow: [127.0.0.0/8], ports: [1-65535]}}
  - name: rights
    listen: 127.0.0.1:0
    pool: main
    users: %[1]s
    users_may: [{users: [ann], ask: [source, pool], pools: [other]}, {ask: [session]}]
    destinations: {allow: [127.0.0.0/8], ports: [1-65535]}
`

// names asks for a connection to the origin with a user name, in one of the ways,
// and returns the source that was used, or how the proxy refused.
type names struct {
	t      *testing.T
	s      *swivel
	origin *origin
}

func (n *names) ask(way, listener, name string) string {
	n.t.Helper()
	c, err := net.Dial("tcp", n.s.addr(listener))
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	credentials := "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(name+":secret")) + "\r\n"
	switch way {
	case "http":
		fmt.Fprintf(c, "GET %s/ HTTP/1.1\r\nHost: a\r\n%s\r\n", n.origin.url, credentials)
		return n.answer(c)
	case "connect":
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: a\r\n%s\r\n", n.origin.addr, credentials)
		return n.answer(c)
	}
	return n.socks(c, name)
}

func (n *names) answer(c net.Conn) string {
	n.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "CONNECT"})
	if err != nil {
		n.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return resp.Status
	}
	return resp.Header.Get("Swivel-Source")
}

func (n *names) socks(c net.Conn, name string) string {
	n.t.Helper()
	to := netip.MustParseAddrPort(n.origin.addr)
	ip := to.Addr().As4()
	b := []byte("\x05\x02\x00\x02\x01")
	b = append(b, byte(len(name)))
	b = append(b, name...)
	b = append(b, "\x06secret\x05\x01\x00\x01"...)
	b = append(b, ip[:]...)
	b = append(b, byte(to.Port()>>8), byte(to.Port()))
	c.Write(b)
	var login [4]byte
	var reply [10]byte
	if _, err := io.ReadFull(c, login[:]); err != nil {
		n.t.Fatal(err)
	}
	if login[3] != 0 {
		return "login refused"
	}
	if _, err := io.ReadFull(c, reply[:]); err != nil {
		n.t.Fatal(err)
	}
	if reply[1] != 0 {
		return fmt.Sprintf("reply %d", reply[1])
	}
	return netip.AddrFrom4([4]byte(reply[4:8])).String()
}

func newNames(t *testing.T) *names {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users")
	write(t, users, fmt.Sprintf("ann:%[1]s\nann-lee:%[1]s\n", hash))
	return &names{t, start(t, "-config", config(t, fmt.Sprintf(sessionConfig, users))), newOrigin(t, nil)}
}

func TestSessionInUserName(t *testing.T) {
	n := newNames(t)
	for _, way := range []string{"connect", "http", "socks"} {
		t.Run(way, func(t *testing.T) {
			n := &names{t, n.s, n.origin}
			for _, user := range []string{"ann", "ann-lee"} {
				first := n.ask(way, "egress", user+"-session-"+way+"-sesstime-10")
				if !strings.HasPrefix(first, "127.0.2.") {
					t.Fatalf("%s: %s", user, first)
				}
				for range 4 {
					n.ask(way, "egress", user) // of no session
					if got := n.ask(way, "egress", user+"-session-"+way+"-sesstime-10"); got != first {
						t.Errorf("%s: got %s, want %s", user, got, first)
					}
				}
				e := n.s.line(func(e entry) bool { return closed(e) && e.text("user") == user && e.text("session") == way })
				if e.text("source") != first {
					t.Errorf("line: %v", e)
				}
			}
			for name, want := range map[string]string{
				"ann-country-at":                          "127.0.2.2",
				"ann-country-AT-session-" + way:           "127.0.2.2",
				"ann-label-line-a":                        "127.0.2.1",
				"ann-label-line-b-country-de":             "127.0.2.3",
				"ann-pool-other":                          "127.0.2.9",
				"ann-pool-other-session-x" + way:          "127.0.2.9",
				"ann-lee-country-at-sesstime-5-session-y": "127.0.2.2",
			} {
				if got := n.ask(way, "egress", name); got != want {
					t.Errorf("%s: got %s, want %s", name, got, want)
				}
			}
			for name, want := range map[string]struct{ http, socks string }{
				"ann-sesion-abc":            {"400 http_request_error bad user name: sesion: unknown key", "reply 1"},
				"ann-session-abc-sestime-1": {"400 http_request_error bad user name: sestime: unknown key", "reply 1"},
				"ann-lee-session-":          {"400 http_request_error bad user name: session: no value", "reply 1"},
				"ann-pool-third":            {"400 http_request_error bad user name: pool: no such pool", "reply 1"},
				"ann-country-fr":            {"503 proxy_configuration_error no source is as it was asked for", "reply 1"},
				"ann-source-127.0.2.1":      {"403 http_request_denied source may not be asked for", "reply 2"},
				"bob-session-abc":           {"407 Proxy Authentication Required", "login refused"},
				"an-session-abc":            {"407 Proxy Authentication Required", "login refused"},
			} {
				wanted := want.http
				if way == "socks" {
					wanted = want.socks
				}
				if got := n.ask(way, "egress", name); got != wanted {
					t.Errorf("%s: got %s, want %s", name, got, wanted)
				}
			}
		})
	}
}

// Where there are no users, a name asks for things all the same.
func TestSessionWithoutUsers(t *testing.T) {
	n := newNames(t)
	for _, way := range []string{"connect", "http", "socks"} {
		first := n.ask(way, "open", "me-session-"+way)
		for range 3 {
			n.ask(way, "open", "me")
			if got := n.ask(way, "open", "me-session-"+way); got != first {
				t.Errorf("%s: got %s, want %s", way, got, first)
			}
		}
		if got := n.ask(way, "open", "-country-at"); got != "127.0.2.2" {
			t.Errorf("%s, nobody: got %s", way, got)
		}
	}
	if got, want := n.ask("connect", "open", "no-such"), "400 http_request_error bad user name: such: unknown key"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestUsersMay(t *testing.T) {
	n := newNames(t)
	for name, want := range map[string]string{
		"ann-source-127.0.2.3":            "127.0.2.3",
		"ann-pool-other":                  "127.0.2.9",
		"ann-pool-other-source-127.0.2.9": "127.0.2.9",
		"ann-pool-other-source-127.0.2.3": "503 proxy_configuration_error no source is as it was asked for",
		"ann-pool-main":                   "403 http_request_denied this pool may not be asked for",
		"ann-session-x":                   "403 http_request_denied session may not be asked for",
		"ann-lee-source-127.0.2.3":        "403 http_request_denied source may not be asked for",
	} {
		if got := n.ask("connect", "rights", name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
