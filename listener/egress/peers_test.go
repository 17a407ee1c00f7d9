package egress_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// origin is a server that hands out the connections made to it.
type origin struct {
	netip.AddrPort
	conns chan *net.TCPConn
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{AddrPort: ln.Addr().(*net.TCPAddr).AddrPort(), conns: make(chan *net.TCPConn, 1000)}
	t.Cleanup(func() {
		ln.Close()
		for c := range o.conns {
			c.Close()
		}
	})
	go func() { // ends with ln
		defer close(o.conns)
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(patience))
			o.conns <- c
		}
	}()
	return o
}

// accept returns the next connection.
func (o *origin) accept(t testing.TB) *net.TCPConn {
	t.Helper()
	select {
	case c := <-o.conns:
		t.Cleanup(func() { c.Close() })
		return c
	case <-time.After(patience):
		t.Fatal("nobody connects to the origin")
		return nil
	}
}

// untouched checks that nobody has connected.
func (o *origin) untouched(t testing.TB) {
	t.Helper()
	select {
	case c := <-o.conns:
		t.Errorf("%v was connected to", o.AddrPort)
		c.Close()
	default:
	}
}

// echo makes the origin send back what it is sent, and FIN for FIN.
func (o *origin) echo(t testing.TB) {
	o.serve(t, func(c *net.TCPConn) {
		io.Copy(c, c)
		c.CloseWrite()
	})
}

// serve makes the origin do the same with every connection, and then close it.
func (o *origin) serve(t testing.TB, f func(*net.TCPConn)) {
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { // ends with the test
		for {
			select {
			case c := <-o.conns:
				serving.Go(func() { // ends with c
					defer c.Close()
					f(c)
				})
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
}

// closedPort returns an address that refuses.
func closedPort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func send(t testing.TB, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
}

// wantText reads what must come next.
func wantText(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(r, got)
	if string(got[:n]) != want {
		t.Fatalf("got %q, %v; want %q", got[:n], err, want)
	}
}

// readHead reads to a blank line, and nothing behind it.
func readHead(t testing.TB, r io.Reader) string {
	t.Helper()
	var got []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(got), "\r\n\r\n"); got = append(got, b...) {
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
	}
	return string(got)
}

// wantEnd reads EOF.
func wantEnd(t testing.TB, r io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
		t.Fatalf("got %q, %v; want EOF", b, err)
	}
}

// wantSum reads to EOF what must be want.
func wantSum(t testing.TB, r io.Reader, want []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
		t.Fatalf("got %d bytes, %v; want %d others", len(got), err, len(want))
	}
}

// random returns n bytes that no other call returns.
func random(n int) []byte {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	b := make([]byte, n)
	rand.NewChaCha8(seed).Read(b)
	return b
}

// reset closes c so that its peer sees RST.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// connectHead is a CONNECT request without anything special.
func connectHead(target string) string {
	return "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n"
}

// established is what answers a CONNECT that has succeeded.
func established(nextHop, source string) string {
	return "HTTP/1.1 200 Connection established\r\n" +
		"Proxy-Status: swivel; next-hop=\"" + nextHop + "\"\r\nSwivel-Source: " + source + "\r\n\r\n"
}

// refusal is what answers a request that has failed: the phrase is the status line
// behind the version, fields are those beyond what every refusal has.
func refusal(status string, fields ...string) string {
	_, phrase, _ := strings.Cut(status, " ")
	b := "HTTP/1.1 " + status + "\r\n"
	if token, _, _ := strings.Cut(phrase, " "); strings.Contains(token, "_") {
		b += "Proxy-Status: swivel; error=" + token + "\r\n"
	}
	for _, f := range fields {
		b += f + "\r\n"
	}
	return b + "Content-Type: text/plain\r\nContent-Length: " + strconv.Itoa(len(phrase)+1) +
		"\r\nConnection: close\r\n\r\n" + phrase + "\n"
}

// wantReset reads to the end, which must be RST, and returns what came before.
func wantReset(t testing.TB, r io.Reader) string {
	t.Helper()
	got, err := io.ReadAll(r)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %q: %v, want ECONNRESET", got, err)
	}
	return string(got)
}

// isReset reports whether c has been reset, also when a Write was told so and a Read
// found EOF.
func isReset(t testing.TB, c *net.TCPConn) bool {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const tcpClose = 7 // TCP_CLOSE of netinet/tcp.h
	var info *unix.TCPInfo
	raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
	if err != nil {
		t.Fatal(err)
	}
	return info.State == tcpClose
}

// readAll reads to EOF.
func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("after %q: %v", got, err)
	}
	return string(got)
}

// socksName is a SOCKS5 request to connect to a name.
func socksName(name string, port uint16) string {
	b := append([]byte{5, 1, 0, 3, byte(len(name))}, name...)
	return string(binary.BigEndian.AppendUint16(b, port))
}

// socksAddr is a SOCKS5 request to connect to an address.
func socksAddr(ap netip.AddrPort) string {
	b := []byte{5, 1, 0, 1}
	if ap.Addr().Is6() {
		b[3] = 4
	}
	b = append(b, ap.Addr().AsSlice()...)
	return string(binary.BigEndian.AppendUint16(b, ap.Port()))
}

// socksRefusal is a SOCKS5 reply that refuses.
func socksRefusal(rep byte) string { return string([]byte{5, rep, 0, 1, 0, 0, 0, 0, 0, 0}) }
