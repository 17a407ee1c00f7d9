//go:build linux

package e2e

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"swivel/internal/netlab"
)

// drains is a configuration whose clients may go on for so long after SIGTERM.
func drains(limit string) string { return "limits: {drain: " + limit + "}" + file("127.0.0.2") }

// TestDrain is G1: the listener is closed at once, and a tunnel goes on until it
// ends by itself.
func TestDrain(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			s := start(t, "-config", config(t, drains("10m")))
			proxy, echo := s.addr("egress"), newEcho(t, nil)
			held := tunnel(t, proxy, echo)
			fds := netlab.FDs(s.pid())
			early := dial(t, proxy)
			eventually(t, "not accepted", func() bool { return netlab.FDs(s.pid()) > fds })
			if _, err := io.WriteString(early, "CONNECT "+echo+" HTTP/1.1\r\n"); err != nil {
				t.Fatal(err)
			}
			s.signal(sig)
			if got := s.line(message("draining")); got["clients"] != 2.0 {
				t.Errorf("%v clients are left, want the tunnel and the head", got["clients"])
			}
			eventually(t, "new clients are taken", func() bool { return refuses(proxy) })
			s.signal(syscall.SIGHUP) // which changes nothing any more
			alive(t, held)

			// Whose request was on its way is served.
			if _, err := io.WriteString(early, "Host: "+echo+"\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(early).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 200 ") {
				t.Errorf("got %q, %v; want 200", line, err)
			}
			early.Close()
			held.CloseWrite()
			if _, err := held.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%v, want the tunnel to end as the echo ended it", err)
			}
			if status := s.wait(); status != 0 {
				t.Errorf("status %d, want 0", status)
			}
		})
	}
}

// TestDrainLimit: what is left when the time is over sees a reset, on both sides.
func TestDrainLimit(t *testing.T) {
	for _, limit := range []string{"0s", "200ms"} {
		t.Run(limit, func(t *testing.T) {
			s := start(t, "-config", config(t, drains(limit)))
			ln := listen(t)
			held := tunnel(t, s.addr("egress"), ln.Addr().String())
			upstream, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer upstream.Close()
			s.signal(syscall.SIGTERM)
			for side, c := range map[string]net.Conn{"client": held, "upstream": upstream} {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: %v, want a reset", side, err)
				}
			}
			if status := s.wait(); status != 0 {
				t.Errorf("status %d, want 0", status)
			}
			if got := s.line(closed).text("reason"); got != "drained" {
				t.Errorf("reason %q, want drained", got)
			}
		})
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	s := start(t, "-config", config(t, drains("10m")))
	held := tunnel(t, s.addr("egress"), newEcho(t, nil))
	s.signal(syscall.SIGTERM)
	s.line(message("draining"))
	alive(t, held)
	s.signal(syscall.SIGTERM)
	if status := s.wait(); status != 1 {
		t.Errorf("status %d, want 1", status)
	}
}

// TestDrainIdleHTTP: a client of plain HTTP that is between two requests is not
// waited for.
func TestDrainIdleHTTP(t *testing.T) {
	s := start(t, "-config", config(t, drains("10m")))
	tr := &http.Transport{Proxy: http.ProxyURL(proxyURL(s.addr("egress")))}
	defer tr.CloseIdleConnections()
	cl := &http.Client{Transport: tr, Timeout: patience}
	for range 2 {
		r, err := cl.Get(newOrigin(t, nil).url)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	s.stop()
}

// TestDrainUnderLoad is G1 with many: tunnels that end by themselves while swivel
// drains end well, and none is cut.
func TestDrainUnderLoad(t *testing.T) {
	const tunnels = 200
	s := start(t, "-config", config(t, drains("10m")))
	proxy, echo := s.addr("egress"), newEcho(t, nil)
	var held []*net.TCPConn
	for range tunnels {
		held = append(held, tunnel(t, proxy, echo))
	}
	var newcomers, ending sync.WaitGroup
	for range 4 {
		newcomers.Go(func() { // until the listener is closed
			for visit(proxy, echo) == nil {
			}
		})
	}
	s.signal(syscall.SIGTERM)
	newcomers.Wait()
	for _, c := range held {
		ending.Go(func() {
			if err := ping(c); err != nil {
				t.Error(err)
			}
			c.CloseWrite()
			if n, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%d, %v; want the end", n, err)
			}
		})
	}
	ending.Wait()
	if status := s.wait(); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
}

// TestSignalsAtStart is G5. Before the signals are asked for, they end the process
// as they end any other; from the first line of the log they are obeyed.
func TestSignalsAtStart(t *testing.T) {
	args := []string{"-listen", "127.0.0.1:0", "-pool", "127.0.0.2"}
	for i := range 40 {
		sig := []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP}[i%2]
		s := launch(t, command(t, args...))
		logged := i%4 > 1
		if logged {
			s.line(func(entry) bool { return true })
		}
		s.signal(sig)
		if sig == syscall.SIGHUP && logged {
			s.line(message("reloaded"))
			s.stop()
			continue
		}
		if sig == syscall.SIGHUP {
			s.cmd.Process.Signal(syscall.SIGTERM) // which may find nobody any more
		}
		status := s.wait()
		if killed := status == -1; status != 0 && (logged || !killed) || s.stderr.Len() > 0 {
			t.Errorf("%v, logged %v: %v, %q", sig, logged, s.cmd.ProcessState, s.stderr.String())
		}
	}
}

// TestEndIsNotLost: however many reloads are asked for in front of it.
func TestEndIsNotLost(t *testing.T) {
	for range 5 {
		s := start(t, "-listen", "127.0.0.1:0", "-pool", "127.0.0.2")
		for range 50 {
			s.signal(syscall.SIGHUP)
		}
		s.stop()
	}
}

// TestKill is G2: after a kill, the same command starts on the same port, although
// the kernel still knows connections of the one before.
func TestKill(t *testing.T) {
	at := unused()
	args := []string{"-listen", at, "-allow", "127.0.0.0/8", "-ports", "1-65535", "-pool", "127.0.0.2"}
	echo := newEcho(t, nil)
	for i := range 3 {
		s := start(t, args...)
		held := tunnel(t, at, echo)
		if err := visit(at, echo); err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		s.signal(syscall.SIGKILL)
		s.wait()
		if _, err := held.Read(make([]byte, 1)); err == nil {
			t.Error("a tunnel outlived the process")
		}
	}
	if got := finish(t, command(t, append([]string{"check"}, args...)...)); got.status != 0 {
		t.Errorf("check: %+v", got)
	}
}
