//go:build linux

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// viaLoopback lets clients go to the origins of a test, and leave by addresses of
// which each is usable on every Linux host.
var viaLoopback = []string{"-allow", "127.0.0.0/8", "-ports", "1-65535", "-pool", "127.0.0.2,127.0.0.3,127.0.0.4"}

// startProxy starts swivel with viaLoopback, on a port of its own.
func startProxy(t testing.TB, args ...string) *swivel {
	t.Helper()
	return start(t, slices.Concat([]string{"-listen", "127.0.0.1:0"}, viaLoopback, args)...)
}

// checkTurns checks that what clients were told are the addresses of viaLoopback, in
// turn.
func checkTurns(t *testing.T, output string) {
	t.Helper()
	got := strings.Fields(output)
	if len(got) < 3 {
		t.Fatalf("got %q, want addresses", output)
	}
	pool := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}
	first := slices.Index(pool, got[0])
	for i, g := range got {
		if first < 0 || g != pool[(first+i)%len(pool)] {
			t.Fatalf("sources %v, want those of %v in turn", got, pool)
		}
	}
}

// program finds a client, or skips the test.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is missing", name)
	}
	return path
}

// client runs a program that is not swivel, and returns what it left.
func client(t testing.TB, stdin, name string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, name), args...)
	cmd.Env = environ()
	cmd.Stdin = strings.NewReader(stdin)
	return finish(t, cmd)
}

// usersFile makes a users file in which every user's password is user-secret.
func usersFile(t testing.TB, users ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.htpasswd")
	writeUsers(t, path, users...)
	return path
}

func writeUsers(t testing.TB, path string, users ...string) {
	t.Helper()
	var text strings.Builder
	for _, user := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(user+"-secret"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(user + ":" + string(hash) + "\n")
	}
	write(t, path, text.String())
}

const pythonTunnel = `
import http.client, ssl, sys
proxy, port, origin, ca = sys.argv[1:]
for i in range(3):
    c = http.client.HTTPSConnection(proxy, int(port), context=ssl.create_default_context(cafile=ca), timeout=30)
    name, number = origin.split(":")
    c.set_tunnel(name, int(number))
    c.request("GET", "/")
    print(c.getresponse().read().decode())
    c.close()
`

const pythonURLs = `
import ssl, sys, urllib.request
ca, urls = sys.argv[1], sys.argv[2:]
for url in urls:
    print(urllib.request.urlopen(url, timeout=30, context=ssl.create_default_context(cafile=ca)).read().decode())
`

const pythonRefused = `
import http.client, sys
c = http.client.HTTPSConnection(sys.argv[1], int(sys.argv[2]), timeout=30)
c.set_tunnel("127.0.0.1", 1)
try:
    c.request("GET", "/")
except OSError as e:
    print(e)
`

func TestPython(t *testing.T) {
	program(t, "python3")
	s := startProxy(t)
	proxy := s.addr("egress")
	host, port, _ := strings.Cut(proxy, ":")
	secure, plain := newTLSOrigin(t, nil), newOrigin(t, nil)

	t.Run("http.client", func(t *testing.T) {
		r := client(t, "", "python3", "-c", pythonTunnel, host, port, secure.addr, secure.ca)
		if r.status != 0 {
			t.Fatal(r.stderr)
		}
		checkTurns(t, r.stdout)
	})
	t.Run("urllib with variables", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "python3", "-c", pythonURLs, secure.ca, secure.url, plain.url, secure.url)
		cmd.Env = append(environ(), "https_proxy=http://"+proxy, "http_proxy=http://"+proxy)
		r := finish(t, cmd)
		if r.status != 0 {
			t.Fatal(r.stderr)
		}
		checkTurns(t, r.stdout)
	})
	t.Run("is told why it was refused", func(t *testing.T) {
		r := client(t, "", "python3", "-c", pythonRefused, host, port)
		if want := "502 connection_refused 127.0.0.1:1"; !strings.Contains(r.stdout, want) {
			t.Errorf("got %q %q, want %q", r.stdout, r.stderr, want)
		}
	})
	s.stop()
}

func TestOpenSSL(t *testing.T) {
	program(t, "openssl")
	s := startProxy(t, "-users", usersFile(t, "alice"))
	secure := newTLSOrigin(t, nil)
	r := client(t, "GET / HTTP/1.0\r\n\r\n", "openssl", "s_client", "-quiet", "-verify_return_error", "-ign_eof",
		"-proxy", s.addr("egress"), "-proxy_user", "alice", "-proxy_pass", "pass:alice-secret",
		"-connect", secure.addr, "-CAfile", secure.ca)
	if !strings.Contains(r.stdout, "200 OK") || !strings.Contains(r.stdout, "\n127.0.0.") {
		t.Errorf("got %q %q", r.stdout, r.stderr)
	}
	s.stop()
}

func TestGoTransport(t *testing.T) {
	c := newCertificate(t, time.Now().Add(time.Hour))
	s := startProxy(t, "-cert", c.cert, "-key", c.key, "-users", usersFile(t, "alice"))
	secure, plain := newTLSOrigin(t, nil), newOrigin(t, nil)
	roots := x509.NewCertPool()
	for _, path := range []string{c.cert, secure.ca} {
		pem, err := os.ReadFile(path)
		if err != nil || !roots.AppendCertsFromPEM(pem) {
			t.Fatal(path, err)
		}
	}
	for _, scheme := range []string{"http", "https", "socks5", "socks5h"} {
		t.Run(scheme, func(t *testing.T) {
			proxy := &url.URL{Scheme: scheme, User: url.UserPassword("alice", "alice-secret"), Host: s.addr("egress")}
			tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}}
			defer tr.CloseIdleConnections()
			cl := &http.Client{Transport: tr, Timeout: patience}
			var got strings.Builder
			for range 4 {
				for _, u := range []string{secure.url, plain.url} {
					r, err := cl.Get(u)
					if err != nil {
						t.Fatal(err)
					}
					io.Copy(&got, r.Body)
					r.Body.Close()
				}
				tr.CloseIdleConnections()
			}
			checkTurns(t, got.String())
		})
	}
	s.stop()
}

func proxyURL(address string) *url.URL { return &url.URL{Scheme: "http", Host: address} }
