package admin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// serve serves s until the end of the test, and returns where.
func serve(t *testing.T, s State, wrap func(net.Listener) net.Listener, clients ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if wrap != nil {
		ln = wrap(ln)
	}
	srv := &Server{Handler: Handler(s)}
	var prefixes []netip.Prefix
	for _, c := range clients {
		prefixes = append(prefixes, netip.MustParsePrefix(c))
	}
	srv.Admit(prefixes)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // until cancel
		defer close(ended)
		srv.Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return address
}

// request sends the head of a request and returns the status and the body.
func request(t *testing.T, address, method, path string, fields ...string) (status int, body string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	head := method + " " + path + " HTTP/1.1\r\n"
	if !strings.HasPrefix(strings.Join(fields, "\n"), "Host:") {
		head += "Host: " + address + "\r\n"
	}
	io.WriteString(c, head+strings.Join(fields, "\r\n")+strings.Repeat("\r\n", min(len(fields), 1)+1))
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Close {
		t.Errorf("%s %s: the connection is kept", method, path)
	}
	return r.StatusCode, string(b)
}

func TestHandler(t *testing.T) {
	netlab.Leaks(t)
	var trouble atomic.Pointer[error]
	address := serve(t, State{
		Ready: func() error {
			if err := trouble.Load(); err != nil {
				return *err
			}
			return nil
		},
		Pools: func() []Pool {
			return []Pool{{Name: "main", Strategy: "random", Sources: []Source{
				{Source: "192.0.2.1", State: Ready, Weight: 2, Open: 3, Labels: map[string]string{"country": "DE"}},
				{Source: "eth7", State: Missing, Why: "no such interface", Weight: 1},
			}}, {Name: "none", Strategy: "hash", Sources: []Source{}}}
		},
	}, nil)
	want := func(status int, body string, method, path string, fields ...string) {
		t.Helper()
		if s, b := request(t, address, method, path, fields...); s != status || body != "" && b != body {
			t.Errorf("%s %s %q: got %d %q, want %d %q", method, path, fields, s, b, status, body)
		}
	}
	want(200, "ok\n", "GET", "/healthz")
	want(200, "ready\n", "GET", "/readyz")
	err := errors.New("draining")
	trouble.Store(&err)
	want(200, "ok\n", "GET", "/healthz")
	want(503, "draining\n", "GET", "/readyz")
	const pools = `{"pools":[{"name":"main","strategy":"random","sources":[` +
		`{"source":"192.0.2.1","state":"ready","weight":2,"labels":{"country":"DE"},"open":3,"uses":0},` +
		`{"source":"eth7","state":"missing","why":"no such interface","weight":1,"open":0,"uses":0}]},` +
		`{"name":"none","strategy":"hash","sources":[]}]}` + "\n"
	want(200, pools, "GET", "/api/sources")
	want(404, "", "GET", "/")
	want(405, "", "DELETE", "/healthz")
	want(405, "", "POST", "/api/sources")

	// A page of another site, in the browser of somebody who may connect.
	want(403, "", "POST", "/api/sources", "Origin: https://site.example")
	want(403, "", "POST", "/api/sources", "Sec-Fetch-Site: cross-site")
	// One whose own name was made to lead here.
	for _, host := range []string{"site.example", "site.example:9080", "SITE.example.", "127.0.0.1.site.example:80", "1.2.3.4.5"} {
		want(421, "", "GET", "/api/sources", "Host: "+host)
		want(200, "", "GET", "/healthz", "Host: "+host)
	}
	for _, host := range []string{"localhost", "localhost:9080", "a.localhost", "swivel:9080", "[::1]:9080", "[::1]", "127.0.0.1", "203.0.113.5:80"} {
		want(200, pools, "GET", "/api/sources", "Host: "+host)
	}
}

func TestServeBounds(t *testing.T) {
	netlab.Leaks(t)
	s := State{Ready: func() error { return nil }}
	t.Run("heads", func(t *testing.T) {
		c, err := net.Dial("tcp", serve(t, s, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		// As much as net/http reads at most, so that nothing is left unread.
		head := "GET /healthz HTTP/1.1\r\nX: "
		io.WriteString(c, head+strings.Repeat("x", maxHeader+4<<10-len(head)))
		if line, err := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 431 ") {
			t.Errorf("got %q, %v; want 431", line, err)
		}
	})
	t.Run("clients", func(t *testing.T) {
		address := serve(t, s, nil, "192.0.2.0/24", "::1/128")
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d bytes, %v; want the connection to be closed", n, err)
		}
		address = serve(t, s, nil, "127.0.0.0/8")
		if status, _ := request(t, address, "GET", "/healthz"); status != 200 {
			t.Errorf("got %d, want 200", status)
		}
	})
	t.Run("a lack of descriptors", func(t *testing.T) { // R2
		errs := []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, fmt.Errorf("odd")}
		address := serve(t, s, func(ln net.Listener) net.Listener { return &failing{ln, errs} })
		if status, _ := request(t, address, "GET", "/healthz"); status != 200 {
			t.Errorf("got %d, want 200", status)
		}
	})
}

// failing accepts when it has failed with each of errs.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) == 0 {
		return f.Listener.Accept()
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: err}
}
