// Package exit asks other proxies for tunnels, by HTTP CONNECT or SOCKS5, over TCP
// or TLS.
//
//	exit.go     what a proxy is, and the way through it
//	connect.go  CONNECT (RFC 9110 section 9.3.6)
//	socks.go    SOCKS5 (RFC 1928, RFC 1929)
//	refusal.go  what proxies answer instead, and whose fault it is
//
// It does not dial, and does not choose. What a proxy answers is not believed
// further than it can be checked: its length is bounded, and of its words only those
// that are known are passed on.
package exit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"swivel/internal/proxyproto"
)

// The ways to speak to a proxy.
const (
	HTTP   = "http"
	HTTPS  = "https" // HTTP over TLS
	SOCKS5 = "socks5"
)

// Proxy is another proxy. It is not changed once it is in use.
type Proxy struct {
	Scheme         string // HTTP, HTTPS or SOCKS5
	Host           string // a name or an address
	Port           uint16
	User, Password string         // "" means that it asks for none
	Roots          *x509.CertPool // that sign its certificate; nil means the system's
	Header         int            // the version of the PROXY header that it is sent; zero means none
	Names          bool           // it is asked for names, where there is one, and looks them up itself
	Sessions       bool           // it is told of sessions, in the user name
}

// String is what p is known by, in logs and among several hosts: where it is, and
// nothing of the credentials.
func (p *Proxy) String() string { return p.Scheme + "://" + p.Addr() }

// Addr is "host:port".
func (p *Proxy) Addr() string { return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))) }

// Request is what a proxy is asked for.
type Request struct {
	Addr    netip.AddrPort // of the destination
	Name    string         // of the destination, without port; "" when it has none
	Session string         // "" means none; letters and digits
	Via     string         // the value of the Via field; "" means none

	// For the PROXY header: who the client is, and its connection. That is asked for
	// the address that it came to, if there is such a header.
	Client netip.AddrPort
	Conn   interface{ Local() netip.AddrPort }
}

// IsKnown reports whether a is an address: one that is unspecified stands for a name
// that only a proxy looks up.
func IsKnown(a netip.AddrPort) bool { return a.IsValid() && !a.Addr().IsUnspecified() }

// target is the destination as p is to be told.
func (p *Proxy) target(r *Request) string {
	if p.Names && r.Name != "" {
		return net.JoinHostPort(r.Name, strconv.Itoa(int(r.Addr.Port())))
	}
	return r.Addr.String()
}

// user is the user name that p is given.
func (p *Proxy) user(r *Request) string {
	if p.Sessions && p.User != "" && r.Session != "" {
		return p.User + "-session-" + r.Session
	}
	return p.User
}

// Tunnel is a way through a proxy.
type Tunnel struct {
	TLS    *tls.Conn // over the connection, and what is to be used of it; nil: the connection itself
	Early  []byte    // what the connection brought behind the answer
	Source string    // what the proxy says that it leaves by; "" when it does not, or not well
}

// Open asks p, which conn is connected to, for a tunnel. The caller closes conn. The
// error is a *Refusal or an *Error.
func (p *Proxy) Open(ctx context.Context, conn net.Conn, r *Request) (*Tunnel, error) {
	// Not the deadline of ctx alone: ctx may be canceled too.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	t, err := p.open(ctx, conn, r)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return t, conn.SetDeadline(time.Time{})
	}
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		refusal.Proxy = p
		return nil, refusal
	}
	if cause := ctx.Err(); cause != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = cause
	}
	return nil, &Error{Proxy: p, Asked: true, Err: err}
}

func (p *Proxy) open(ctx context.Context, conn net.Conn, r *Request) (*Tunnel, error) {
	if err := p.sendHeader(conn, r); err != nil {
		return nil, err
	}
	switch p.Scheme {
	case SOCKS5:
		return p.socks(conn, r)
	case HTTPS:
		c := p.tls(conn)
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		t, err := p.connect(c, r)
		if err == nil {
			t.TLS = c
		}
		return t, err
	default:
		return p.connect(conn, r)
	}
}

func (p *Proxy) tls(conn net.Conn) *tls.Conn {
	return tls.Client(conn, &tls.Config{ServerName: p.Host, RootCAs: p.Roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
}

// Greet does all that comes before a request, of which only TLS has an answer: it
// finds out whether the certificate is good. The caller closes conn.
func (p *Proxy) Greet(ctx context.Context, conn net.Conn) error {
	if err := p.sendHeader(conn, &Request{}); err != nil || p.Scheme != HTTPS {
		return err
	}
	return p.tls(conn).HandshakeContext(ctx)
}

// sendHeader tells the proxy who its client is, in front of all else.
func (p *Proxy) sendHeader(conn net.Conn, r *Request) error {
	if p.Header == 0 {
		return nil
	}
	h := proxyproto.Header{Local: !r.Client.IsValid(), Src: r.Client}
	if !h.Local {
		h.Dst = r.Conn.Local()
	}
	_, err := conn.Write(proxyproto.Append(nil, p.Header, h))
	return err
}

// Error is why a proxy could not be used at all.
type Error struct {
	Proxy *Proxy
	Asked bool // it was reached, and did not answer well, or in time
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("exit %s: %v", e.Proxy, e.Err) }

func (e *Error) Unwrap() error { return e.Err }
