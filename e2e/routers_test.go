//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// router is a program that routes by server name: a.example to one backend, and
// what its documentation has for everything else to another.
type router struct {
	name, program, version string
	patience               time.Duration // to wait for it while nothing happens
	start                  func(t *testing.T, a, other string) (addr string)
}

// silence is how long a router is told to wait for a client, where it can be told.
const silence = "1s"

var routers = []router{
	{"swivel", "", "version", patience, startSwivelRouter},
	{"HAProxy", "haproxy", "-v", 5 * time.Second, startHAProxyRouter},
	{"nginx", "nginx", "-v", 5 * time.Second, startNginxRouter},
	{"sniproxy", "sniproxy", "-V", 5 * time.Second, startSNIProxyRouter},
}

// What a router can make of a client.
const (
	toA     = "a.example" // the backend of that name
	toOther = "default"   // the other one
	cutOff  = "refused"   // closed, perhaps with an alert
	held    = "held"      // nothing for much longer than silence
	lost    = "lost"      // closed before the backend's answer
)

// TestRouters is the table of the README. What swivel makes of a client is asserted;
// what others make of it is logged, with their versions.
func TestRouters(t *testing.T) {
	a := func() *hello { return newHello(t, "a.example") }
	cases := []struct {
		name, sent string
		fin        bool
		want       string
	}{
		{"a hello of today, 1.8 KB", a().padded(1800).record(), false, toA},
		{"the same in two records, cut inside the name", cutInName(a()), false, toA},
		{"in records of one byte", a().records(1), false, toA},
		{"16 KiB in one record", a().padded(maxRecord).record(), false, toA},
		{"16 KiB in two records", a().padded(maxRecord).records(maxRecord / 2), false, toA},
		{"40 KB in three records", a().padded(40_000).record(), false, toA},
		{"another name", newHello(t, "b.example").record(), false, toOther},
		{"FIN right behind the hello", a().record(), true, toA},
		{"illegal: an empty record first", "\x16\x03\x01\x00\x00" + a().record(), false, cutOff},
		{"illegal: the name extension twice", a().with(extServerName, vector16("\x00"+string(vector16("b.example")))).record(), false, cutOff},
		{"illegal: two names", a().names("a.example", "b.example").record(), false, cutOff},
		{"illegal: a length that does not add up", wrongLength(a()), false, cutOff},
		{"illegal: NUL in the name", newHello(t, "a.example\x00.b.example").record(), false, cutOff},
		{"illegal: NUL and nothing behind", newHello(t, "a.example\x00").record(), false, cutOff},
		{"half a hello, then nothing", a().record()[:100], false, cutOff},
		{"nothing", "", false, cutOff},
	}
	one, other := newNamedBackend(t, toA), newNamedBackend(t, toOther)
	table := make([][]string, len(cases)+1)
	for i := range table {
		table[i] = make([]string, len(routers))
	}
	t.Run("all", func(t *testing.T) {
		for col, r := range routers {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				table[0][col] = r.find(t)
				addr := r.start(t, one, other)
				for i, tt := range cases {
					t.Run(tt.name, func(t *testing.T) {
						t.Parallel()
						got := r.route(t, addr, tt.sent, tt.fin)
						if table[1+i][col] = got; r.name == "swivel" && got != tt.want {
							t.Errorf("%s, want %s", got, tt.want)
						}
					})
				}
			})
		}
	})
	t.Logf("%s", strings.Join(table[0], "; "))
	for i, tt := range cases {
		t.Logf("%-46s %-10s", tt.name, table[1+i])
	}
}

// find returns the version of a router, or skips the test.
func (r *router) find(t *testing.T) string {
	program := r.program
	if program == "" {
		program = *binary
	} else if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
	out, _ := exec.Command(program, r.version).CombinedOutput()
	version, _, _ := strings.Cut(string(out), "\n")
	return version
}

// cutInName returns h in two records, of which the first ends within the name.
func cutInName(h *hello) string {
	at := strings.Index(string(h.message()), "a.example") + 4
	first := string(h.message()[:at])
	return "\x16\x03\x01" + string(vector16(first)) + "\x16\x03\x01" + string(vector16(string(h.message()[at:])))
}

// wrongLength returns h with a list of names that is said to be a byte longer.
func wrongLength(h *hello) string {
	for i := range h.extensions {
		if e := &h.extensions[i]; e.typ == extServerName {
			e.data = slices.Clone(e.data)
			e.data[1]++
		}
	}
	return h.record()
}

// newNamedBackend returns the address of a server that says its name, and at the
// client's end how it went.
func newNamedBackend(t *testing.T, name string) string {
	ln := listen(t)
	go func() { // until ln is closed
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // until the client is done
				defer c.Close()
				io.WriteString(c, name+"\n")
				n, err := io.Copy(io.Discard, c)
				fmt.Fprintf(c, "%d bytes, %v\n", n, err)
			}()
		}
	}()
	return ln.Addr().String()
}

// route sends a client's bytes, and FIN when it is to, and says what came of it.
func (r *router) route(t *testing.T, addr, sent string, fin bool) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(r.patience))
	go func() { // until c is closed
		io.WriteString(c, sent)
		if fin {
			c.(*net.TCPConn).CloseWrite()
		}
	}()
	var got strings.Builder
	b := make([]byte, 1024)
	for {
		n, err := c.Read(b)
		got.Write(b[:n])
		name, rest, whole := strings.Cut(got.String(), "\n")
		switch {
		case whole && (name == toA || name == toOther) && !fin:
			return name
		case whole && rest == fmt.Sprintf("%d bytes, <nil>\n", len(sent)):
			return name
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && got.Len() == 0:
			return held
		case fin:
			return lost
		default:
			return cutOff
		}
	}
}

func startSwivelRouter(t *testing.T, a, other string) string {
	return start(t, "-config", config(t, fmt.Sprintf(`
limits: {head: %s}
listeners:
  - {name: router, mode: sni, listen: 127.0.0.1:0, routes: [{names: [a.example], to: [%s]}, {names: ["*"], to: [%s]}]}
`, silence, a, other))).addr("router")
}

func startHAProxyRouter(t *testing.T, a, other string) string {
	return startRouter(t, fmt.Sprintf(`
defaults
	mode tcp
	timeout connect 5s
	timeout client 1m
	timeout server 1m
frontend router
	bind ADDR
	tcp-request inspect-delay %s
	tcp-request content accept if { req.ssl_hello_type 1 }
	use_backend a if { req.ssl_sni -i a.example }
	default_backend other
backend a
	server a %s
backend other
	server other %s
`, silence, a, other), "haproxy", "-db", "-f")
}

func startNginxRouter(t *testing.T, a, other string) string {
	const module = "/usr/lib/nginx/modules/ngx_stream_module.so"
	load := ""
	if _, err := os.Stat(module); err == nil {
		load = "load_module " + module + ";"
	}
	if out, _ := exec.Command("nginx", "-V").CombinedOutput(); load == "" && strings.Contains(string(out), "--with-stream=dynamic") {
		t.Skip("nginx has no stream module (install libnginx-mod-stream)")
	}
	if os.Geteuid() == 0 {
		load += "\nuser root;"
	}
	return startRouter(t, fmt.Sprintf(`%s
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {}
stream {
	map $ssl_preread_server_name $backend { a.example %s; default %s; }
	server { listen ADDR; ssl_preread on; preread_timeout %s; proxy_pass $backend; }
}
`, load, a, other, silence), "nginx", "-p", filepath.Dir(filepath.Dir(t.TempDir())), "-c")
}

func startSNIProxyRouter(t *testing.T, a, other string) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root"
	}
	return startRouter(t, fmt.Sprintf(`%s
pidfile %s/pid
listener ADDR { proto tls
	table t
	fallback %s }
table t {
	a\.example %s
}
`, user, t.TempDir(), other, a), "sniproxy", "-f", "-c")
}

// startRouter runs a program whose last argument is its configuration, in which ADDR
// is where it listens.
func startRouter(t *testing.T, text, program string, args ...string) string {
	t.Helper()
	ln := listen(t)
	addr := ln.Addr().String()
	ln.Close()
	file := filepath.Join(t.TempDir(), "router.conf")
	write(t, file, strings.ReplaceAll(text, "ADDR", addr))
	ctx, stop := context.WithCancel(context.Background())
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, program, append(args, file)...)
	cmd.Stderr = &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it may have children to end
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", program, stderr.String())
		}
	})
	eventually(t, program+" does not listen", func() bool { return !refuses(addr) })
	return addr
}
