//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// origin is a web server that answers with the address of its client.
type origin struct {
	addr string // IP:port
	url  string
	ca   string // file to trust, when it speaks TLS
}

// newOrigin serves plain HTTP on ln until the end of the test; on a port of
// 127.0.0.1 when ln is nil.
func newOrigin(t testing.TB, ln net.Listener) *origin {
	t.Helper()
	if ln == nil {
		ln = listen(t)
	}
	serveHTTP(t, ln, nil)
	return &origin{addr: ln.Addr().String(), url: "http://" + ln.Addr().String()}
}

// newTLSOrigin is newOrigin with TLS.
func newTLSOrigin(t testing.TB, ln net.Listener) *origin {
	t.Helper()
	if ln == nil {
		ln = listen(t)
	}
	addr := netip.MustParseAddrPort(ln.Addr().String())
	c := newCertificate(t, time.Now().Add(time.Hour), addr.Addr())
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		t.Fatal(err)
	}
	serveHTTP(t, ln, &tls.Config{Certificates: []tls.Certificate{pair}})
	return &origin{addr: addr.String(), url: "https://" + addr.String(), ca: c.cert}
}

// serveHTTP answers a request without a body with the client's IP address, and
// one that has a body with that.
func serveHTTP(t testing.TB, ln net.Listener, conf *tls.Config) {
	srv := &http.Server{
		TLSConfig: conf,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength != 0 {
				io.Copy(w, r.Body) // answers before it has read all
				return
			}
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprintln(w, host)
		}),
	}
	if conf != nil {
		go srv.ServeTLS(ln, "", "") // until Close
	} else {
		go srv.Serve(ln) // until Close
	}
	t.Cleanup(func() { srv.Close() })
}

// listen listens on a port of 127.0.0.1 until the end of the test.
func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// unused returns an address on which nobody listens. The kernel gives it to
// nobody who asks for any port.
func unused() string {
	n := lastUnused.Add(1)
	return fmt.Sprintf("127.%d.%d.%d:2999", 64+os.Getpid()>>8&63, os.Getpid()&255, n)
}

var lastUnused atomic.Int32

// refuses reports whether nobody listens on address.
func refuses(address string) bool {
	c, err := net.DialTimeout("tcp", address, patience)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// newEcho returns the address of a server that sends back what it gets, until the
// client half-closes. It serves on ln, or on a port of 127.0.0.1 when ln is nil.
func newEcho(t testing.TB, ln net.Listener) string {
	t.Helper()
	if ln == nil {
		ln = listen(t)
	}
	go func() { // until ln is closed
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // until the client is done
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

// certificate is a pair of PEM files.
type certificate struct{ cert, key string }

// newCertificate makes a certificate for localhost, 127.0.0.1 and addrs, which
// signs itself: clients may trust it by its file.
func newCertificate(t testing.TB, notAfter time.Time, addrs ...netip.Addr) certificate {
	t.Helper()
	return makeCertificate(t, notAfter, []string{"localhost"}, append(addrs, netip.MustParseAddr("127.0.0.1")))
}

// makeCertificate makes one for these names and addresses.
func makeCertificate(t testing.TB, notAfter time.Time, names []string, addrs []netip.Addr) certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: names[0]},
		NotBefore:             notAfter.Add(-24 * time.Hour),
		NotAfter:              notAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              names,
	}
	for _, a := range addrs {
		template.IPAddresses = append(template.IPAddresses, a.AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := certificate{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	write(t, c.cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, c.key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return c
}

// dial connects to address, until the end of the test. All that is done with the
// connection is to be done within patience.
func dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// tunnel opens a tunnel to target through the proxy.
func tunnel(t testing.TB, proxy, target string, fields ...string) *net.TCPConn {
	t.Helper()
	c := dial(t, proxy)
	head, err := connect(c, target, fields...)
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		t.Fatalf("CONNECT %s: %q, %v", target, head, err)
	}
	return c
}

// connect sends a CONNECT request and returns the head of the answer. It reads no
// further.
func connect(c net.Conn, target string, fields ...string) (string, error) {
	request := fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n", target)
	for _, f := range fields {
		request += f + "\r\n"
	}
	if _, err := io.WriteString(c, request+"\r\n"); err != nil {
		return "", err
	}
	var head strings.Builder
	for b := make([]byte, 1); !strings.HasSuffix(head.String(), "\r\n\r\n"); {
		if _, err := c.Read(b); err != nil {
			return head.String(), err
		}
		head.Write(b)
	}
	return head.String(), nil
}

// alive fails the test when a tunnel to an echo server does not carry bytes.
func alive(t testing.TB, c net.Conn) {
	t.Helper()
	if err := ping(c); err != nil {
		t.Fatalf("the tunnel does not live: %v", err)
	}
}

func ping(c net.Conn) error {
	if _, err := io.WriteString(c, "ping\n"); err != nil {
		return err
	}
	got := make([]byte, len("ping\n"))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != "ping\n" {
		return fmt.Errorf("got %q", got)
	}
	return nil
}

// visit opens a tunnel to an echo server, uses it and closes it.
func visit(proxy, echo string) error {
	c, err := net.DialTimeout("tcp", proxy, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	head, err := connect(c, echo)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		return fmt.Errorf("CONNECT: %q", head)
	}
	return ping(c)
}

// eventually waits until ok holds. It is for what cannot be waited on: the number
// of descriptors of another process, or a port that is no longer listened on.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", patience, what)
		}
	}
}
