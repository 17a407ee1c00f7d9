package rotate

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"swivel/internal/exit"
)

// proxyServer is a proxy that answers every request with text, after which it sends
// back what it gets. It keeps silent when text is empty.
func proxyServer(t *testing.T, text string, conf *tls.Config) *exit.Proxy {
	t.Helper()
	return proxyThat(t, func(string) string { return text }, conf)
}

// proxyThat is proxyServer with an answer to each request line.
func proxyThat(t *testing.T, answers func(request string) string, conf *tls.Config) *exit.Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	scheme := exit.HTTP
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	if conf != nil {
		ln, scheme = tls.NewListener(ln, conf), exit.HTTPS
	}
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	serving.Go(func() { // until ln is closed
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { // until the client has gone, or the test ends
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				in := bufio.NewReader(c)
				request := ""
				for line := ""; line != "\r\n"; request += line {
					if line, err = in.ReadString('\n'); err != nil {
						return
					}
				}
				text := answers(request)
				if text == "" {
					<-ctx.Done()
					return
				}
				io.WriteString(c, text)
				io.Copy(c, in)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		ln.Close()
		serving.Wait()
	})
	return &exit.Proxy{Scheme: scheme, Host: "127.0.0.1", Port: at.Port()}
}

const connected = "HTTP/1.1 200 OK\r\nSwivel-Source: 203.0.113.5\r\n\r\n"

func refusal(status, token string) string {
	return "HTTP/1.1 " + status + " x\r\nProxy-Status: swivel; error=" + token + "\r\n\r\n"
}

// exits is a pool of them, used in turn.
func exits(proxies ...*exit.Proxy) *Pool {
	p := new(Pool)
	var list []Source
	for _, e := range proxies {
		list = append(list, Source{Exit: e})
	}
	p.Set(Config{}, list)
	return p
}

var far = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:443")}

// downProxy is a proxy where nobody listens.
func downProxy(t *testing.T) *exit.Proxy {
	return &exit.Proxy{Scheme: exit.HTTP, Host: "127.0.0.1", Port: closed(t).Port()}
}

func TestExits(t *testing.T) {
	good := func() *exit.Proxy { return proxyServer(t, connected+"early", nil) }
	for _, tt := range []struct {
		name     string
		proxies  []*exit.Proxy
		attempts int
	}{
		{"one that is up", []*exit.Proxy{good()}, 1},
		{"one that is down", []*exit.Proxy{downProxy(t), good()}, 2},
		{"one that answers nothing", []*exit.Proxy{proxyServer(t, "", nil), good()}, 2},
		{"one that answers nonsense", []*exit.Proxy{proxyServer(t, "SSH-2.0\r\n\r\n", nil), good()}, 2},
		{"one that wants other credentials", []*exit.Proxy{proxyServer(t, "HTTP/1.1 407 x\r\n\r\n", nil), good()}, 2},
		{"one that denies the destination", []*exit.Proxy{proxyServer(t, refusal("403", "destination_ip_prohibited"), nil), good()}, 2},
		{"one that is full", []*exit.Proxy{proxyServer(t, refusal("503", "connection_limit_reached"), nil), good()}, 2},
		{"one that cannot reach it", []*exit.Proxy{proxyServer(t, refusal("502", "destination_ip_unroutable"), nil), good()}, 2},
		{"several that cannot be used", []*exit.Proxy{downProxy(t), proxyServer(t, "HTTP/1.1 407 x\r\n\r\n", nil), downProxy(t), good()}, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &Dialer{Pool: exits(tt.proxies...)}
			up, err := d.Dial(t.Context(), Request{Addrs: far, Timeout: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer up.Close()
			last := tt.proxies[len(tt.proxies)-1]
			if up.Source.Exit != last || up.Attempts != tt.attempts || up.Said != "203.0.113.5" || up.Addr != far[0] || up.Early != len("early") {
				t.Errorf("got %+v", up)
			}
			up.SetDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(up.Stream, "late")
			got := make([]byte, len("earlylate"))
			if _, err := io.ReadFull(up.Stream, got); err != nil || string(got) != "earlylate" {
				t.Errorf("got %q, %v", got, err)
			}
			up.Done()
			for _, use := range d.Pool.Sources() {
				if use.Open != 0 {
					t.Errorf("%s: %d open", use.String(), use.Open)
				}
			}
		})
	}
}

// TestExitsRefuse: what is the destination's fault is not tried through all.
func TestExitsRefuse(t *testing.T) {
	t.Run("the destination", func(t *testing.T) {
		d := &Dialer{Pool: exits(proxyServer(t, refusal("502", "connection_refused"), nil), proxyServer(t, connected, nil))}
		_, err := d.Dial(t.Context(), Request{Addrs: far})
		derr, _ := errors.AsType[*Error](err)
		r, ok := errors.AsType[*exit.Refusal](err)
		if !ok || r.Token != "connection_refused" || derr.Attempts != 1 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("its next address is tried", func(t *testing.T) {
		proxy := proxyServer(t, refusal("502", "connection_refused"), nil)
		_, err := (&Dialer{Pool: exits(proxy)}).Dial(t.Context(), Request{Addrs: []netip.AddrPort{far[0], netip.MustParseAddrPort("[2001:db8::1]:443")}})
		if derr, _ := errors.AsType[*Error](err); derr == nil || derr.Attempts != 2 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("all of them are down", func(t *testing.T) {
		_, err := (&Dialer{Pool: exits(downProxy(t), downProxy(t))}).Dial(t.Context(), Request{Addrs: far})
		if e, ok := errors.AsType[*exit.Error](err); !ok || e.Asked {
			t.Errorf("got %v", err)
		}
	})
	t.Run("what says most is told", func(t *testing.T) {
		d := &Dialer{Pool: exits(downProxy(t), proxyServer(t, refusal("403", "destination_ip_prohibited"), nil), downProxy(t))}
		_, err := d.Dial(t.Context(), Request{Addrs: far})
		if r, ok := errors.AsType[*exit.Refusal](err); !ok || r.Status != 403 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("our own address", func(t *testing.T) {
		proxy := proxyServer(t, connected, nil)
		d := &Dialer{Pool: exits(proxy), Loop: func(a netip.AddrPort) bool { return a.Port() == proxy.Port }}
		if _, err := d.Dial(t.Context(), Request{Addrs: far}); !errors.Is(err, ErrLoop) {
			t.Errorf("got %v", err)
		}
	})
}

// TestExitFamilies: proxies without IPv6 serve destinations that have both, each in
// its turn, and none of them cools for it.
func TestExitFamilies(t *testing.T) {
	only4 := func(request string) string {
		if strings.HasPrefix(request, "CONNECT [") {
			return refusal("503", "proxy_configuration_error")
		}
		return connected
	}
	var list []Source
	for range 3 {
		list = append(list, Source{Exit: proxyThat(t, only4, nil)})
	}
	p := new(Pool)
	p.Set(Config{Cooldown: Cooldown{After: 1, For: time.Hour, Most: time.Hour}}, list)
	for i := range 9 {
		both := []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:443"), far[0]}
		up, err := (&Dialer{Pool: p}).Dial(t.Context(), Request{Addrs: both, Target: "a.example"})
		if err != nil {
			t.Fatal(err)
		}
		if up.Source.Exit != list[i%3].Exit || up.Attempts != 2 || up.Addr != far[0] {
			t.Errorf("%d: got %s for %s after %d attempts", i, up.Source.String(), up.Addr, up.Attempts)
		}
		up.Close()
		up.Done()
	}
	for _, u := range p.Sources() {
		if u.Cooling > 0 {
			t.Errorf("%s is cooling", u.String())
		}
	}
}

func TestExitNames(t *testing.T) {
	proxy := proxyServer(t, connected, nil)
	proxy.Host = "node2.example"
	d := &Dialer{Pool: exits(proxy), Lookup: func(_ context.Context, name string) ([]netip.Addr, error) {
		if name != "node2.example" {
			t.Errorf("looked up %s", name)
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")}, nil // nobody is at the first
	}}
	up, err := d.Dial(t.Context(), Request{Addrs: far})
	if err != nil {
		t.Fatal(err)
	}
	up.Close()
	up.Done()
	d.Lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, io.ErrUnexpectedEOF }
	if _, err := d.Dial(t.Context(), Request{Addrs: far}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

func TestExitTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	proxy := proxyServer(t, connected+"early", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	d := &Dialer{Pool: exits(proxy)}
	if _, err := d.Dial(t.Context(), Request{Addrs: far}); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("a certificate that nobody trusts: got %v", err)
	}
	proxy.Roots = x509.NewCertPool()
	proxy.Roots.AddCert(cert)
	up, err := d.Dial(t.Context(), Request{Addrs: far})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	defer up.Done()
	up.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(up.Stream, "late")
	got := make([]byte, len("earlylate"))
	if _, err := io.ReadFull(up.Stream, got); err != nil || string(got) != "earlylate" || up.Stream == nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestExitTurns: a proxy is one source, whatever the family, and gateways that have
// the same ones choose the same one.
func TestExitTurns(t *testing.T) {
	var list []Source
	for _, host := range []string{"a.example", "b.example", "c.example"} {
		list = append(list, Source{Exit: &exit.Proxy{Scheme: exit.HTTP, Host: host, Port: 8080}})
	}
	list = append(list, Source{Addr: netip.MustParseAddr("10.0.0.1")}, list[0])
	var p Pool
	p.Set(Config{Strategy: LeastUsed}, list)
	for range 4 {
		if _, err := p.Next(&Request{}, dst4, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if turn, err := p.Next(&Request{}, dst6, nil); err != nil || turn.Exit == nil {
			t.Fatalf("got %v, %v", turn, err)
		}
	}
	uses := p.Sources()
	if len(uses) != 4 {
		t.Fatalf("%d sources, want 4", len(uses))
	}
	for _, u := range uses {
		if want := map[bool]int{true: 2, false: 1}[u.Exit != nil]; u.Open != want {
			t.Errorf("%s: %d open, want %d", u.String(), u.Open, want)
		}
	}

	var one, other Pool
	one.Set(Config{Strategy: Hash, HashBy: ByUser}, list)
	slices.Reverse(list)
	for i, s := range list { // as another gateway has it
		if s.Exit != nil {
			proxy := *s.Exit
			proxy.Password = "other"
			list[i].Exit = &proxy
		}
	}
	other.Set(Config{Strategy: Hash, HashBy: ByUser}, list)
	seen := make(map[string]bool)
	for _, user := range strings.Fields("a b c d e f g h i j k l m n o p") {
		a, _ := one.Next(&Request{User: user}, dst4, nil)
		b, _ := other.Next(&Request{User: user}, dst4, nil)
		if a.ID() != b.ID() {
			t.Errorf("%s: %s and %s", user, a.ID(), b.ID())
		}
		seen[a.String()] = true
	}
	if len(seen) < 3 {
		t.Errorf("%v alone are used", seen)
	}
}
