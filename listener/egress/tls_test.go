package egress_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// newTLSRig is a rig whose clients may speak TLS.
func newTLSRig(t testing.TB) *rig {
	return newRig(t, func(r *rig) { r.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}} })
}

func (r *rig) dialTLS(t testing.TB) (c *tls.Conn, below *net.TCPConn) {
	t.Helper()
	below = r.dial(t)
	c = tls.Client(below, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c, below
}

// wantTunnel reads the answer that says that there is one.
func wantTunnel(t *testing.T, protocol string, c net.Conn, server *net.TCPConn) {
	t.Helper()
	if protocol == "CONNECT" {
		readHead(t, c)
		return
	}
	wantText(t, c, "\x05\x00"+string(boundReply(server)))
}

func TestTLSTunnels(t *testing.T) {
	r := newTLSRig(t)
	o := newOrigin(t)
	up, down := random(300_000), random(500_000)
	for name, request := range map[string]string{
		"CONNECT": connectHead(o.String()),
		"SOCKS5":  hello + socksAddr(o.AddrPort),
	} {
		t.Run(name+", client half-closes first", func(t *testing.T) {
			c, _ := r.dialTLS(t)
			go func() { // ends when all of it is read
				c.Write(append([]byte(request), up...)) // all in one
				c.CloseWrite()
			}()
			server := o.accept(t)
			wantSum(t, server, up)
			wantTunnel(t, name, c, server)
			go func() { // ends when all of it is read
				server.Write(down)
				server.CloseWrite()
			}()
			wantSum(t, c, down)
			if l := r.line(t); l.Reason != "client-closed" || l.Up != int64(len(up)) || l.Down != int64(len(down)) {
				t.Errorf("line: %+v", l)
			}
		})
		t.Run(name+", origin half-closes first", func(t *testing.T) {
			c, _ := r.dialTLS(t)
			send(t, c, request)
			server := o.accept(t)
			wantTunnel(t, name, c, server)
			server.CloseWrite()
			wantEnd(t, c)
			send(t, c, "late")
			c.CloseWrite()
			wantText(t, server, "late")
			wantEnd(t, server)
			if l := r.line(t); l.Reason != "upstream-closed" {
				t.Errorf("line: %+v", l)
			}
		})
		t.Run(name+", origin resets", func(t *testing.T) {
			c, _ := r.dialTLS(t)
			send(t, c, request)
			server := o.accept(t)
			wantTunnel(t, name, c, server)
			reset(server)
			wantReset(t, c)
			r.line(t)
		})
	}
}

func TestTLSForward(t *testing.T) {
	r := newTLSRig(t)
	o := newOrigin(t)
	c, _ := r.dialTLS(t)
	for range 2 {
		send(t, c, get(o))
		server := o.accept(t)
		readHead(t, server)
		send(t, server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		readHead(t, c)
		wantText(t, c, "ok")
		if l := r.line(t); l.Status != 200 {
			t.Errorf("line: %+v", l)
		}
	}
	r.upgrade(t, o, c).Close()
	wantEnd(t, c)
	c.Close()
	if l := r.line(t); l.Status != 101 || l.Reason != "upstream-closed" {
		t.Errorf("line: %+v", l)
	}
}

// A cut response looks cut in TLS as well.
func TestTLSForwardCut(t *testing.T) {
	r := newTLSRig(t)
	o := newOrigin(t)
	c, _ := r.dialTLS(t)
	send(t, c, "GET http://"+o.String()+"/ HTTP/1.0\r\n\r\n")
	server := o.accept(t)
	readHead(t, server)
	send(t, server, "HTTP/1.1 200 OK\r\n\r\npart")
	readHead(t, c)
	wantText(t, c, "part")
	reset(server)
	wantReset(t, c)
	if l := r.line(t); l.Reason != "upstream-reset" {
		t.Errorf("line: %+v", l)
	}
}

// Answers come through the TLS, and its end is told.
func TestTLSRefuses(t *testing.T) {
	r := newTLSRig(t)
	for in, want := range map[string]string{
		connectHead("10.1.2.3:443"):                                refusal(denied),
		"GET http://10.1.2.3/ HTTP/1.1\r\nHost: a\r\n\r\n":         refusal(denied),
		hello + toName + "\x0810.1.2.3\x01\xbb":                    "\x05\x00" + socksRefusal(2),
		"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n x\r\n\r\n":          refusal("400 http_request_error bad header field"),
		"\x16\x03\x01\x00\x05hello":                                "",
		"CONNECT a:443 HTTP/1.1\r\n" + strings.Repeat("a", 10<<10): refusal("431 http_request_error head is larger than 8 KiB"),
	} {
		c, _ := r.dialTLS(t)
		send(t, c, in)
		got := make([]byte, 4096)
		n := 0
		for m, err := 0, error(nil); err == nil; n += m {
			m, err = c.Read(got[n:])
		}
		if string(got[:n]) != want {
			t.Errorf("to %q got %q, want %q", in[:min(len(in), 60)], got[:n], want)
		}
		c.Close()
		r.line(t)
	}
}

// A listener that has a certificate serves those without TLS, too.
func TestTLSOptional(t *testing.T) {
	r := newTLSRig(t)
	o := newOrigin(t)
	c, up := r.open(t, o)
	send(t, c, "ping")
	wantText(t, up, "ping")
	reset(c)
	r.line(t)
}

// A client that is gone, or talks nonsense, gets no answer and is not our fault.
func TestTLSBroken(t *testing.T) {
	r := newTLSRig(t)
	for name, spoil := range map[string]func(c *tls.Conn, below *net.TCPConn){
		"no close_notify":       func(_ *tls.Conn, below *net.TCPConn) { below.CloseWrite() },
		"ends within a record":  func(_ *tls.Conn, below *net.TCPConn) { below.Write([]byte{23, 3, 3, 1, 0, 'x'}); below.CloseWrite() },
		"garbage":               func(_ *tls.Conn, below *net.TCPConn) { below.Write([]byte(strings.Repeat("garbage", 10))) },
		"no record of its keys": func(_ *tls.Conn, below *net.TCPConn) { below.Write([]byte{23, 3, 3, 0, 3, 'x', 'y', 'z'}) },
		"close_notify":          func(c *tls.Conn, _ *net.TCPConn) { c.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			c, below := r.dialTLS(t)
			send(t, c, "CONNECT a:443 HTTP/1.1\r\nHost")
			spoil(c, below)
			if l := r.line(t); l.Reason != "no-request" || l.Status != 0 {
				t.Errorf("line: %+v", l)
			}
		})
	}
	t.Run("in the handshake", func(t *testing.T) {
		c := r.dial(t)
		send(t, c, "\x16\x03\x01\x00\x05hello")
		if l := r.line(t); l.Reason != "no-request" {
			t.Errorf("line: %+v", l)
		}
	})
}
