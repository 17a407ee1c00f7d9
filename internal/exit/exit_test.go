package exit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"swivel/internal/netlab"
	"swivel/internal/proxyproto"
)

var destination = netip.MustParseAddrPort("192.0.2.1:443")

// open opens a tunnel through a proxy that is serve, and returns what came of it,
// with the connection.
func open(t *testing.T, p *Proxy, r *Request, serve func(net.Conn)) (*Tunnel, *net.TCPConn, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	served := make(chan struct{})
	go func() { // until the connection is closed, at the end of the test
		defer close(served)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		serve(c)
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		<-served
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if p.Scheme == "" {
		p.Scheme = HTTP
	}
	p.Host, p.Port = "node2.example", 8080
	tunnel, err := p.Open(ctx, c.(*net.TCPConn), r)
	return tunnel, c.(*net.TCPConn), err
}

// answer is a proxy that reads a CONNECT request, notes it, and writes text in
// pieces of n bytes.
func answer(request *string, text string, n int) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		for !strings.HasSuffix(*request, "\r\n\r\n") {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			*request += line
		}
		for len(text) > 0 {
			k := min(n, len(text))
			if _, err := io.WriteString(c, text[:k]); err != nil {
				return
			}
			text = text[k:]
		}
	}
}

func TestConnect(t *testing.T) {
	netlab.Leaks(t)
	for _, tt := range []struct {
		name, answer  string
		source, early string
	}{
		{"plain", "HTTP/1.1 200 OK\r\n\r\n", "", ""},
		{"of swivel", "HTTP/1.1 200 Connection established\r\nProxy-Status: swivel; next-hop=\"192.0.2.1:443\"\r\nSwivel-Source: 203.0.113.5\r\n\r\n", "203.0.113.5", ""},
		{"with bytes behind it", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nSSH-2.0-x\r\n\r\n", "", "SSH-2.0-x\r\n\r\n"},
		{"line feeds", "HTTP/1.1 204\nswivel-source:\t2001:db8::5\n\nhello", "2001:db8::5", "hello"},
		{"after others", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nSwivel-Source: 192.0.2.9\r\n\r\nHTTP/1.1 200 OK\r\nSwivel-Source: exit.example:8080\r\n\r\n.", "exit.example:8080", "."},
		{"a source that is none", "HTTP/1.1 200 OK\r\nSwivel-Source: a b\"\r\n\r\n", "", ""},
		{"two sources", "HTTP/1.1 200 OK\r\nSwivel-Source: 192.0.2.1\r\nSwivel-Source: 192.0.2.2\r\n\r\n", "", ""},
		{"a source that is long", "HTTP/1.1 200 OK\r\nSwivel-Source: " + strings.Repeat("a", 300) + "\r\n\r\n", "", ""},
	} {
		for _, n := range []int{1, 1 << 20} {
			t.Run(tt.name, func(t *testing.T) {
				var request string
				tunnel, c, err := open(t, &Proxy{}, &Request{Addr: destination, Name: "site.example"}, answer(&request, tt.answer, n))
				if err != nil {
					t.Fatal(err)
				}
				if want := "CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\r\n"; request != want {
					t.Errorf("asked %q, want %q", request, want)
				}
				rest, err := io.ReadAll(c)
				if got := string(tunnel.Early) + string(rest); err != nil || got != tt.early {
					t.Errorf("got %q, %v behind the answer, want %q", got, err, tt.early)
				}
				if tunnel.Source != tt.source {
					t.Errorf("source: got %q, want %q", tunnel.Source, tt.source)
				}
			})
		}
	}
}

func TestConnectAsks(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    Proxy
		r    Request
		want string
	}{
		{"with credentials", Proxy{User: "u", Password: "p:q", Sessions: true}, Request{Addr: destination},
			"CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\nProxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("u:p:q")) + "\r\n\r\n"},
		{"with a session", Proxy{User: "u", Password: "p", Sessions: true}, Request{Addr: destination, Session: "abc"},
			"CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\nProxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("u-session-abc:p")) + "\r\n\r\n"},
		{"for a name", Proxy{Names: true}, Request{Addr: destination, Name: "site.example", Via: "1.1 swivel-1, 1.1 swivel-2"},
			"CONNECT site.example:443 HTTP/1.1\r\nHost: site.example:443\r\nVia: 1.1 swivel-1, 1.1 swivel-2\r\n\r\n"},
		{"for an address that has no name", Proxy{Names: true}, Request{Addr: netip.MustParseAddrPort("[2001:db8::1]:443")},
			"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n"},
	} {
		var request string
		if _, _, err := open(t, &tt.p, &tt.r, answer(&request, "HTTP/1.1 200 OK\r\n\r\n", 100)); err != nil || request != tt.want {
			t.Errorf("%s: asked %q, %v, want %q", tt.name, request, err, tt.want)
		}
	}
}

type end netip.AddrPort

func (e end) Local() netip.AddrPort { return netip.AddrPort(e) }

func TestHeader(t *testing.T) {
	to := end(netip.MustParseAddrPort("203.0.113.1:8080"))
	r := &Request{Addr: destination, Client: netip.MustParseAddrPort("198.51.100.7:1234"), Conn: to}
	for version := 1; version <= 2; version++ {
		var request string
		_, _, err := open(t, &Proxy{Header: version}, r, func(c net.Conn) {
			b := make([]byte, 512)
			n, _ := c.Read(b)
			h, used, err := proxyproto.Parse(b[:n])
			if err != nil || h.Src != r.Client || h.Dst != to.Local() {
				t.Errorf("version %d: got %+v, %v", version, h, err)
			}
			request = string(b[used:n])
			answer(&request, "HTTP/1.1 200 OK\r\n\r\n", 100)(c)
		})
		if err != nil || !strings.HasPrefix(request, "CONNECT 192.0.2.1:443 ") {
			t.Errorf("version %d: asked %q, %v", version, request, err)
		}
	}
}

func TestConnectRefused(t *testing.T) {
	for _, tt := range []struct {
		answer, token string
		status        int
		blame         Blame
	}{
		{"HTTP/1.1 502 connection_refused 192.0.2.1:443\r\nProxy-Status: swivel; error=connection_refused\r\n\r\n", "connection_refused", 502, Destination},
		{"HTTP/1.1 502 x\r\nProxy-Status: far; next-hop=\"a;error=dns_error\"; error=connection_timeout, near; error=proxy_internal_error\r\n\r\n", "connection_timeout", 502, Destination},
		{"HTTP/1.1 502 x\r\nproxy-status: far\r\nProxy-Status: near; error=destination_ip_unroutable\r\n\r\n", "destination_ip_unroutable", 502, Either},
		{"HTTP/1.1 502 x\r\nProxy-Status: swivel; error=\"connection_refused\"\r\n\r\n", "", 502, Either},
		{"HTTP/1.1 502 x\r\nProxy-Status: swivel; error=made_up\r\n\r\n", "", 502, Either},
		{"HTTP/1.1 502 x\r\nProxy-Status: \"swivel; error=connection_refused\r\n\r\n", "", 502, Either},
		{"HTTP/1.1 502 x\r\nProxy-Status: swivel; error=proxy_loop_detected\r\n\r\n", "proxy_loop_detected", 502, Destination},
		{"HTTP/1.1 403 x\r\nProxy-Status: swivel; error=destination_ip_prohibited\r\n\r\n", "destination_ip_prohibited", 403, Itself},
		{"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n", "", 407, Itself},
		{"HTTP/1.1 429 x\r\n\r\n", "", 429, Itself},
		{"HTTP/1.1 500 Unable to connect\r\n\r\n", "", 500, Either},
		{"HTTP/1.1 301 x\r\n\r\n", "", 301, Itself},
	} {
		var request string
		_, _, err := open(t, &Proxy{User: "u", Password: "secret"}, &Request{Addr: destination}, answer(&request, tt.answer, 1<<20))
		r, ok := errors.AsType[*Refusal](err)
		if !ok || r.Status != tt.status || r.Token != tt.token || r.Blame() != tt.blame {
			t.Errorf("%q: got %+v (%v)", tt.answer, r, err)
			continue
		}
		if text := err.Error(); !strings.HasPrefix(text, "exit http://node2.example:8080: ") || strings.Contains(text, "secret") {
			t.Errorf("%q: %s", tt.answer, text)
		}
	}
}

func TestConnectGarbage(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":        "",
		"half an answer": "HTTP/1.1 200 OK\r\nSwivel-",
		"another":        "SSH-2.0-OpenSSH\r\n\r\n",
		"SOCKS":          "\x05\xff\n\n",
		"no status":      "HTTP/1.1 2000 OK\r\n\r\n",
		"low status":     "HTTP/1.1 099 OK\r\n\r\n",
		"HTTP/2":         "HTTP/2.0 200 OK\r\n\r\n",
		"an upgrade":     "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"a blank line":   "\r\nHTTP/1.1 200 OK\r\n\r\n",
		"too much":       "HTTP/1.1 200 OK\r\n" + strings.Repeat("x: y\r\n", maxAnswer),
		"for ever":       strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxAnswer),
	} {
		var request string
		_, _, err := open(t, &Proxy{}, &Request{Addr: destination}, answer(&request, text, 1<<20))
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%s: got %v, want an *Error", name, err)
		}
	}
}

// TestSilent: whatever the proxy does, or does not, Open ends with its context.
func TestSilent(t *testing.T) {
	netlab.Leaks(t)
	for _, scheme := range []string{HTTP, HTTPS, SOCKS5} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err = (&Proxy{Scheme: scheme, Host: "node2.example", Port: 8080}).Open(ctx, c.(*net.TCPConn), &Request{Addr: destination})
		if _, ok := errors.AsType[*Error](err); !ok || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %v, want that time ran out", scheme, err)
		}
		cancel()
		c.Close()
		ln.Close()
	}
}

// FuzzAnswer: nothing of what a proxy sends is lost behind its answer, and what is
// passed on is clean.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 OK\r\nSwivel-Source: 192.0.2.1\r\n\r\nrest", "HTTP/1.1 100 C\n\nHTTP/1.1 502 x\nProxy-Status: a; error=dns_error\n\n", "\x05\x00\x00\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &stream{Reader: bytes.NewReader(b)}
		tunnel, err := readAnswer(c)
		if err != nil {
			if r, ok := errors.AsType[*Refusal](err); ok && r.Token != "" && strings.ContainsFunc(r.Token, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
				t.Errorf("token %q", r.Token)
			}
			return
		}
		rest, _ := io.ReadAll(c)
		if got := append(tunnel.Early, rest...); !bytes.HasSuffix(b, got) || !bytes.HasSuffix(bytes.TrimSuffix(b, got), []byte("\n")) {
			t.Errorf("%q: %q is behind the answer", b, got)
		}
		if strings.ContainsAny(tunnel.Source, "\r\n \"\\") {
			t.Errorf("source %q", tunnel.Source)
		}
	})
}

// stream is a connection that is only read.
type stream struct {
	net.Conn
	*bytes.Reader
}

func (s *stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }
