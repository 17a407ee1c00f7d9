package egress_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"swivel/listener/egress"
)

// clientHello is what crypto/tls sends first to a server of this name; with "", to
// an address.
func clientHello(t testing.TB, name string) string {
	t.Helper()
	if name == "" {
		name = "127.0.0.1"
	}
	client, server := net.Pipe()
	defer server.Close()
	go tls.Client(client, &tls.Config{ServerName: name}).Handshake() // until server is closed
	b := make([]byte, 16<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// verifyRig has a Door that verifies, and lets clients speak TLS to it.
func verifyRig(t testing.TB, v egress.Verify) *rig {
	return newRig(t, func(r *rig) {
		r.Verify = v
		r.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	})
}

// Whatever the client says, an upstream that speaks first is heard at once.
func TestVerify(t *testing.T) {
	hello := clientHello(t, "Canary.test")
	for _, tt := range []struct {
		name, host, sent string
		mismatch         string // with VerifyLog
		denied           string // with VerifyDeny
	}{
		{"the same name", "canary.TEST.", hello, "", ""},
		{"the same name, and more", "canary.test", hello + strings.Repeat("x", 100_000), "", ""},
		{"another name", "canary.test", clientHello(t, "b.test"), `the TLS in the tunnel names "b.test"`, `the TLS in the tunnel names "b.test"`},
		{"no name", "canary.test", clientHello(t, ""), "the TLS in the tunnel names no server", "the TLS in the tunnel names no server"},
		{"no name, to an address", "127.0.0.1", clientHello(t, ""), "", ""},
		{"a name, to an address", "127.0.0.1", hello, `the TLS in the tunnel names "canary.test"`, `the TLS in the tunnel names "canary.test"`},
		{"no TLS", "canary.test", "GET / HTTP/1.1\r\n", "", "what is in the tunnel is not TLS"},
		{"half a hello", "canary.test", hello[:100], "", "what is in the tunnel is not TLS"},
		{"malformed", "canary.test", "\x16\x03\x01\x00\x00", "the TLS in the tunnel: malformed hello: empty record", "the TLS in the tunnel: malformed hello: empty record"},
		{"nothing", "canary.test", "", "", ""},
	} {
		for _, v := range []egress.Verify{"", egress.VerifyLog, egress.VerifyDeny} {
			t.Run(tt.name+" "+string(v), func(t *testing.T) {
				r := verifyRig(t, v)
				o := newOrigin(t)
				c := r.dial(t)
				send(t, c, connectHead(fmt.Sprintf("%s:%d", tt.host, o.Port())))
				up := o.accept(t)
				readHead(t, c)
				send(t, up, "220 ready")
				wantText(t, c, "220 ready")
				go func() { // ends with c
					io.WriteString(c, tt.sent)
					c.CloseWrite()
				}()
				got, _ := io.ReadAll(up)
				up.Close()
				c.Close()
				l := r.line(t)
				switch {
				case v == egress.VerifyDeny && tt.denied != "":
					if len(got) > 0 || l.Reason != "denied" || l.Error != tt.denied || l.Mismatch != tt.denied {
						t.Errorf("upstream got %d bytes; line: %+v", len(got), l)
					}
				case string(got) != tt.sent || l.Error != "":
					t.Errorf("upstream got %d bytes, want %d; line: %+v", len(got), len(tt.sent), l)
				case v == egress.VerifyLog && l.Mismatch != tt.mismatch, v != egress.VerifyLog && l.Mismatch != "":
					t.Errorf("line: %+v", l)
				}
			})
		}
	}
}

// Every way to a tunnel is verified, and wherever the hello is cut.
func TestVerifyEveryWay(t *testing.T) {
	r := verifyRig(t, egress.VerifyDeny)
	o := newOrigin(t)
	good, bad := clientHello(t, "canary.test"), clientHello(t, "b.test")
	for name, request := range map[string]string{
		"CONNECT": connectHead(fmt.Sprintf("canary.test:%d", o.Port())),
		"SOCKS5":  hello + socksName("canary.test", o.Port()),
	} {
		for _, overTLS := range []bool{false, true} {
			for _, early := range []int{0, 1, 100, len(good)} { // bytes of the hello behind the request
				dial := func() net.Conn {
					if overTLS {
						c, _ := r.dialTLS(t)
						return c
					}
					return r.dial(t)
				}
				c := dial()
				send(t, c, request+good[:early])
				up := o.accept(t)
				wantTunnel(t, name, c, up)
				if rest := good[early:]; rest != "" {
					send(t, c, rest)
				}
				wantText(t, up, good)
				send(t, up, "answer")
				wantText(t, c, "answer")
				c.Close()
				up.Close()
				if l := r.line(t); l.Mismatch != "" {
					t.Errorf("%s, TLS %t, %d bytes early: %+v", name, overTLS, early, l)
				}

				c = dial()
				cut := min(early, len(bad))
				send(t, c, request+bad[:cut])
				if rest := bad[cut:]; rest != "" {
					send(t, c, rest)
				}
				up = o.accept(t)
				if got, _ := io.ReadAll(up); len(got) > 0 {
					t.Errorf("%s, TLS %t, %d bytes early: upstream got %q", name, overTLS, early, got)
				}
				c.Close()
				if l := r.line(t); l.Reason != "denied" {
					t.Errorf("%s, TLS %t, %d bytes early: %+v", name, overTLS, early, l)
				}
			}
		}
	}
}
