//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// curl returns what curl prints. It fails the test when curl fails.
func curl(t testing.TB, args ...string) string {
	t.Helper()
	r := client(t, "", "curl", append([]string{"-sS", "--max-time", "30"}, args...)...)
	if r.status != 0 {
		t.Fatalf("curl %v: status %d: %s", args, r.status, r.stderr)
	}
	return r.stdout
}

// apart makes curl open a connection for each request.
var apart = []string{"--http1.1", "-H", "Connection: close"}

func TestCurl(t *testing.T) {
	s := startProxy(t)
	proxy := s.addr("egress")
	secure, plain := newTLSOrigin(t, nil), newOrigin(t, nil)
	thrice := func(url string) []string { return []string{url, url, url, url} }

	for name, args := range map[string][]string{
		"https":               {"-x", proxy, "--cacert", secure.ca},
		"https over HTTP/1.0": {"-x", proxy, "--cacert", secure.ca, "--proxy1.0", proxy},
		"https over socks5h":  {"-x", "socks5h://" + proxy, "--cacert", secure.ca},
		"https over socks5":   {"-x", "socks5://" + proxy, "--cacert", secure.ca},
	} {
		t.Run(name, func(t *testing.T) {
			// A tunnel keeps its source, so each request gets a tunnel.
			checkTurns(t, curl(t, slices.Concat(args, apart, thrice(secure.url))...))
		})
	}
	t.Run("http, each request of a connection by the next source", func(t *testing.T) {
		checkTurns(t, curl(t, append([]string{"-x", proxy}, thrice(plain.url)...)...))
	})
	t.Run("http in a tunnel keeps its source", func(t *testing.T) {
		got := strings.Fields(curl(t, append([]string{"-p", "-x", proxy}, thrice(plain.url)...)...))
		if len(slices.Compact(got)) != 1 {
			t.Errorf("sources %v, want one", got)
		}
	})
	t.Run("upload", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "upload")
		write(t, path, strings.Repeat("swivel\n", 300_000))
		want, _ := os.ReadFile(path)
		for _, args := range [][]string{
			{"-x", proxy, "--cacert", secure.ca, secure.url},
			{"-x", proxy, plain.url},
			{"-x", proxy, "-H", "Transfer-Encoding: chunked", plain.url},
		} {
			if got := curl(t, append([]string{"--data-binary", "@" + path}, args...)...); got != string(want) {
				t.Errorf("curl %v: %d bytes came back, want the %d that were sent", args, len(got), len(want))
			}
		}
	})
	s.stop()
}

func TestCurlUsers(t *testing.T) {
	s := startProxy(t, "-users", usersFile(t, "alice"))
	proxy := s.addr("egress")
	secure, plain := newTLSOrigin(t, nil), newOrigin(t, nil)

	for _, args := range [][]string{
		{"-x", proxy, secure.url},
		{"-x", proxy, plain.url},
		{"-x", "socks5h://" + proxy, secure.url},
	} {
		args = append(args, "--cacert", secure.ca)
		curl(t, append(args, "-U", "alice:alice-secret")...)
		for _, u := range []string{"alice:wrong", "bob:alice-secret"} {
			r := client(t, "", "curl", append(args, "-sS", "-f", "-U", u)...)
			if r.status == 0 || strings.Contains(r.stdout, "127.0.0.") {
				t.Errorf("curl %v -U %s: status 0, want to be refused", args, u)
			}
		}
	}
	for _, e := range s.linesAfter(0, 9, closed) {
		if e.text("reason") != "credentials" && e.text("user") != "alice" {
			t.Errorf("user %q, want alice", e.text("user"))
		}
	}
	s.stop()
}

func TestCurlShowsWhyItWasRefused(t *testing.T) {
	s := start(t, "-listen", "127.0.0.1:0")
	r := client(t, "", "curl", "-sv", "-x", s.addr("egress"), "https://127.0.0.1/")
	if want := "HTTP/1.1 403 destination_ip_prohibited"; r.status == 0 || !strings.Contains(r.stderr, want) {
		t.Errorf("status %d, %q; want %q in it", r.status, r.stderr, want)
	}
	s.stop()
}

func TestCurlTLSProxy(t *testing.T) {
	c := newCertificate(t, time.Now().Add(time.Hour))
	s := startProxy(t, "-cert", c.cert, "-key", c.key)
	proxy := "https://" + s.addr("egress")
	secure, plain := newTLSOrigin(t, nil), newOrigin(t, nil)

	args := append(slices.Clip(apart), "-x", proxy, "--cacert", secure.ca, secure.url, plain.url, secure.url, plain.url)
	checkTurns(t, curl(t, append(args, "--proxy-cacert", c.cert)...))
	checkTurns(t, curl(t, append(args, "--proxy-insecure")...))
	s.stop()
}

// TestQuickStart is what the README begins with: no pool, the port that everyone
// knows. The port may be taken on this machine; the host's addresses are whatever
// they are.
func TestQuickStart(t *testing.T) {
	sources := finish(t, command(t, "sources"))
	if sources.status != 0 || !strings.Contains(sources.stdout, "ready") {
		t.Skipf("this host has no address to leave by: %s%s", sources.stdout, sources.stderr)
	}
	if finish(t, command(t, "check")).status != 0 {
		t.Skip("port 8080 is taken")
	}
	secure := newTLSOrigin(t, nil)
	_, port, _ := strings.Cut(secure.addr, ":")
	s := start(t, "-allow", "127.0.0.0/8", "-ports", port)
	got := strings.TrimSpace(curl(t, "-x", "localhost:8080", "--cacert", secure.ca, secure.url))
	if got == "" || !strings.Contains(sources.stdout, " "+got+" ") {
		t.Errorf("the origin saw %q, want an address of\n%s", got, sources.stdout)
	}
	s.stop()
}
