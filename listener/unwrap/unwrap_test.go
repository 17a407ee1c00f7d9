package unwrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"swivel/internal/sockopt"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/relay"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("swivel/relay.(*parkingLot).attend"))
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// lines collects the log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// server runs a Door on loopback, whose address it returns, and a server that tells
// each client its address and then echoes. It returns what ends both.
func server(t *testing.T, d *Door) (addr string, end func() map[string]any) {
	t.Helper()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with echo
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { // ends with c
				defer c.Close()
				io.WriteString(c, c.RemoteAddr().String()+"\n")
				io.Copy(c, c)
			}()
		}
	}()
	d.Dial = 20 * time.Second
	if d.Policy == nil && d.To == nil {
		d.To = []netip.AddrPort{netip.MustParseAddrPort(echo.Addr().String())}
	}
	log := new(lines)
	s := &listener.Server{Gate: listener.NewGate(1000), Table: new(listener.Table), Log: zerolog.New(log)}
	s.Gate.Limit(100, 100)
	s.Use(&listener.Service{Door: d, Proxies: loopback, Proxied: true, Head: 20 * time.Second, Clients: []netip.Prefix{
		loopback[0], netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")}})
	ln, err := listener.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accept, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(accept, context.Background(), ln) }() // ends with stop
	end = sync.OnceValue(func() (line map[string]any) {
		echo.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		json.Unmarshal(log.buf.Bytes(), &line) // the first
		return line
	})
	t.Cleanup(func() { s.Table.End(relay.Killed); end() })
	return ln.Addr().String(), end
}

// ask sends header and a request, and returns all that comes back.
func ask(t *testing.T, addr, header string) (string, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, header+"request")
	c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), err
}

// The names of addresses on loopback stand for those of clients: no route is needed.
func TestDoor(t *testing.T) {
	for _, tt := range []struct {
		name, header string
		door         Door
		want         string // what the server saw, or its beginning
	}{
		{"keep-port", "PROXY TCP4 127.0.0.7 203.0.113.9 5001 25\r\n", Door{Source: KeepPort}, "127.0.0.7:5001"},
		{"any-port", "PROXY TCP4 127.0.0.7 203.0.113.9 5001 25\r\n", Door{Source: AnyPort}, "127.0.0.7:"},
		{"own", "PROXY TCP4 127.0.0.7 203.0.113.9 5001 25\r\n", Door{Source: Own}, "127.0.0.1:"},
		{"unknown", "PROXY UNKNOWN\r\n", Door{Source: KeepPort}, "127.0.0.1:"},
		{"any source, own address", "PROXY TCP6 2001:db8::7 2001:db8::9 5001 25\r\n", Door{Source: Own}, "127.0.0.1:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.door
			d.Allow = loopback
			if d.Source != Own {
				needTransparent(t)
			}
			addr, end := server(t, &d)
			got, err := ask(t, addr, tt.header)
			saw, answer, _ := strings.Cut(got, "\n")
			if err != nil || !strings.HasPrefix(saw, tt.want) || answer != "request" {
				t.Errorf("got %q, %v, want %s", got, err, tt.want)
			}
			l := end()
			if source, _, _ := net.SplitHostPort(saw); l["source"] != source || l["mode"] != "unwrap" || l["up"] != 7.0 || l["reason"] != "client-closed" {
				t.Errorf("got %v", l)
			}
		})
	}
}

func needTransparent(t *testing.T) {
	lc := net.ListenConfig{Control: sockopt.Control(sockopt.Transparent)}
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip(err)
	}
	ln.Close()
}

// What does not come to a connection is a reset for the client, and a reason.
func TestDoorFails(t *testing.T) {
	const header = "PROXY TCP4 198.51.100.7 203.0.113.9 5001 25\r\n"
	to := func(s string) []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(s)} }
	for _, tt := range []struct {
		name, header string
		door         Door
		reason       string
	}{
		{"refused", header, Door{Source: Own, To: to("127.88.0.1:1")}, "connection_refused"},
		{"no target of the family", "PROXY TCP6 2001:db8::7 2001:db8::9 1 1\r\n", Door{Source: KeepPort, To: to("127.0.0.1:1")}, "no-target"},
		{"a source", "PROXY TCP4 127.0.0.7 203.0.113.9 1 1\r\n", Door{Source: KeepPort}, "source-denied"},
		{"a client who may not connect", "PROXY TCP4 192.0.2.1 203.0.113.9 1 1\r\n", Door{Source: Own}, "client-denied"},
		{"a loop", header, Door{Source: KeepPort, Loop: func(netip.AddrPort) bool { return true }}, "proxy_loop_detected"},
		{"no destination", "PROXY UNKNOWN\r\n", Door{Policy: new(target.Policy)}, "no-target"},
		{"a destination that is denied", "PROXY TCP4 198.51.100.7 10.0.0.1 1 443\r\n", Door{Policy: new(target.Policy)}, "destination_ip_prohibited"},
		{"a port that is denied", "PROXY TCP4 198.51.100.7 203.0.113.9 1 25\r\n", Door{Policy: new(target.Policy)}, "destination_ip_prohibited"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, end := server(t, &tt.door)
			if got, err := ask(t, addr, tt.header); got != "" || err == nil {
				t.Errorf("got %q, %v, want a reset", got, err)
			}
			if l := end(); l["reason"] != tt.reason || l["error"] == nil {
				t.Errorf("got %v", l)
			}
		})
	}
}

// 3c/13: which claims are believed.
func TestJudge(t *testing.T) {
	own := func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.1") }
	everything := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for _, tt := range []struct {
		src     string
		ok      bool
		allowed bool // when allow has everything
	}{
		{"198.51.100.7:5001", true, true},
		{"10.0.0.1:5001", true, true},
		{"[2001:db8::7]:5001", true, true},
		{"127.0.0.1:5001", false, true},
		{"[::1]:5001", false, true},
		{"224.0.0.1:5001", false, true},
		{"[ff02::1]:5001", false, true},
		{"255.255.255.255:5001", false, true},
		{"[fe80::1]:5001", false, true},
		{"192.0.2.1:5001", false, true},
		{"203.0.113.1:5001", false, true}, // the target's address
		{"198.51.100.7:0", false, true},
		{"203.0.113.1:25", false, false}, // the target
		{"0.0.0.0:5001", false, false},
		{"[::]:5001", false, false},
	} {
		dst := netip.MustParseAddrPort("203.0.113.1:25")
		for _, allow := range [][]netip.Prefix{nil, everything} {
			d := Door{Own: own, Allow: allow}
			err := d.judge(netip.MustParseAddrPort(tt.src), dst)
			want := tt.ok && allow == nil || tt.allowed && allow != nil
			if (err == nil) != want || err != nil && !errors.Is(err, errSource) {
				t.Errorf("%s, allow %v: got %v", tt.src, allow, err)
			}
		}
	}
}

// The kernel moves the bytes, as in any other tunnel: that a header was there before
// costs them nothing.
func TestDoorSplices(t *testing.T) {
	const size = 8 << 20
	addr, _ := server(t, &Door{Source: Own})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "PROXY TCP4 198.51.100.7 203.0.113.9 5001 25\r\n")
	before := written(t)
	sent := make(chan error, 1)
	go func() { // ends with the write
		_, err := c.Write(make([]byte, size))
		c.(*net.TCPConn).CloseWrite()
		sent <- err
	}()
	n, err := io.Copy(io.Discard, c)
	if serr := <-sent; err != nil || serr != nil || n < size {
		t.Fatalf("%d bytes came back, %v, %v", n, err, serr)
	}
	// The server's echo is spliced as well, by package net.
	if relayed := written(t) - before - size; relayed > size/2 {
		t.Errorf("%d of %d bytes were written, not spliced", relayed, 2*size)
	}
}

// written is how many bytes this process has written, but for those that it spliced.
func written(t *testing.T) (n int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	_, text, _ := strings.Cut(string(b), "wchar: ")
	fmt.Sscan(text, &n)
	return n
}
