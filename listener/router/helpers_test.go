package router_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"swivel/internal/resolver"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/listener/router"
	"swivel/relay"
	"swivel/rotate"
)

// patience is how long a test waits for what must come. Nothing is asserted of
// how soon it does.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("swivel/relay.(*parkingLot).attend"))
}

// rig is a Door behind a listening socket. A test changes its fields in the function
// that it gives to newRig.
type rig struct {
	*router.Door
	routes  []router.Route
	service listener.Service
	gate    *listener.Gate
	table   listener.Table
	names   map[string]netip.Addr
	lookups int

	addr  string // of the listening socket
	lines chan map[string]any
}

func newRig(t testing.TB, change func(*rig)) *rig {
	t.Helper()
	r := &rig{gate: listener.NewGate(20000), lines: make(chan map[string]any, 20000), names: map[string]netip.Addr{}}
	r.gate.Limit(10000, 10000)
	pool := new(rotate.Pool)
	pool.Set(rotate.Config{}, []rotate.Source{{Addr: netip.MustParseAddr("127.0.0.2")}})
	r.Door = &router.Door{
		Name:   "web",
		Policy: &target.Policy{Ports: []target.PortRange{{From: 1, To: 65535}}},
		Leave:  (&rotate.Dialer{Pool: pool}).Dial,
		Head:   patience,
		Dial:   patience,
		Limits: relay.Limits{HalfClosed: patience},
	}
	r.Lookup = func(_ context.Context, name string) ([]netip.Addr, error) {
		r.lookups++
		if a, ok := r.names[name]; ok {
			return []netip.Addr{a}, nil
		}
		return nil, resolver.ErrNotFound
	}
	change(r)
	var err error
	if r.Routes, err = router.NewTable(r.routes); err != nil {
		t.Fatal(err)
	}
	r.service.Name, r.service.Door = "web", r.Door
	r.serve(t)
	return r
}

// serve runs the server until the test ends. Every client must have gone by then.
func (r *rig) serve(t testing.TB) {
	ln, err := listener.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	s := &listener.Server{Gate: r.gate, Table: &r.table, Log: zerolog.New(r)}
	s.Use(&r.service)
	accept, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(accept, context.Background(), ln) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-served:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Errorf("%d clients are still served", r.table.Len())
			r.table.End(relay.Killed)
		}
	})
}

// Write takes a line of the log.
func (r *rig) Write(p []byte) (int, error) {
	var l map[string]any
	if err := json.Unmarshal(p, &l); err != nil {
		return 0, err
	}
	r.lines <- l
	return len(p), nil
}

// line waits for the next access line and compares these of its fields.
func (r *rig) line(t testing.TB, want map[string]any) map[string]any {
	t.Helper()
	select {
	case l := <-r.lines:
		for field, v := range want {
			if l[field] != v {
				t.Errorf("%s: got %v, want %v (%v)", field, l[field], v, l)
			}
		}
		return l
	case <-time.After(patience):
		t.Fatal("no access line")
		return nil
	}
}

func (r *rig) dial(t testing.TB) *net.TCPConn { return dial(t, r.addr) }

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// to is a route to backends.
func to(backends *router.Backends, names ...string) router.Route {
	return router.Route{Names: names, Target: router.Target{Kind: router.ToBackends, Backends: backends}}
}

func kind(k router.Kind, names ...string) router.Route {
	return router.Route{Names: names, Target: router.Target{Kind: k}}
}

// one is a single backend.
func one(addr string) *router.Backends { return router.NewBackends(router.RoundRobin, at(addr)) }

func at(addr string) target.Target {
	ap := netip.MustParseAddrPort(addr)
	return target.Target{Addr: ap.Addr(), Port: ap.Port()}
}

// listen serves every client of a listening socket until the test ends, and returns
// where.
func listen(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	clients.Go(func() { // until ln is closed
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			clients.Go(func() { // until the client is served
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		clients.Wait()
	})
	return ln.Addr().String()
}

// nobody is an address that refuses.
func nobody(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// greeter says its name, and then sends back what it gets.
func greeter(t testing.TB, name string) string {
	return listen(t, func(c net.Conn) {
		io.WriteString(c, name)
		io.Copy(c, c)
	})
}

// secure is a TLS server that says its name, then which name it was asked for.
func secure(t testing.TB, name string) string {
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MinVersion: tls.VersionTLS10, NextProtos: []string{"h2", "http/1.1"}}
	return listen(t, func(c net.Conn) {
		s := tls.Server(c, config)
		if s.Handshake() == nil {
			io.WriteString(s, name+" for "+s.ConnectionState().ServerName)
			s.CloseWrite()
			io.Copy(io.Discard, s)
		}
	})
}

// last returns what c is told before it is closed, and closes it: swivel waits for
// that, a little.
func last(c net.Conn) []byte {
	b, _ := io.ReadAll(c)
	c.Close()
	return b
}

// asks has a TLS client say nothing but its hello, and returns what the server says.
func asks(c net.Conn, config *tls.Config) (string, error) {
	config.InsecureSkipVerify = true
	s := tls.Client(c, config)
	defer s.Close()
	if err := s.Handshake(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(s)
	return string(b), err
}

var certificate = func() func(testing.TB) tls.Certificate {
	make := sync.OnceValues(func() (tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, err
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
	})
	return func(t testing.TB) tls.Certificate {
		c, err := make()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}()

// hello returns what crypto/tls sends first.
func hello(t testing.TB, name string) []byte {
	t.Helper()
	here, there := net.Pipe()
	go func() {
		tls.Client(here, &tls.Config{ServerName: name}).Handshake()
		here.Close()
	}()
	defer there.Close()
	header := make([]byte, 5)
	io.ReadFull(there, header)
	b := append(header, make([]byte, int(header[3])<<8|int(header[4]))...)
	if _, err := io.ReadFull(there, b[5:]); err != nil {
		t.Fatal(err)
	}
	return b
}

// recut puts a hello in one record into records of these many bytes.
func recut(hello []byte, size int) []byte {
	var b bytes.Buffer
	for rest := hello[5:]; len(rest) > 0; {
		n := min(size, len(rest))
		b.Write([]byte{22, 3, 1, byte(n >> 8), byte(n)})
		b.Write(rest[:n])
		rest = rest[n:]
	}
	return b.Bytes()
}
