package egress_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

func TestConnectRefusesHead(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	for _, tt := range refusedHeads {
		for name, segment := range map[string]int{"": 64 << 10, ", byte by byte": 1} {
			t.Run("3b/"+tt.id+name, func(t *testing.T) {
				in := strings.NewReplacer("$T", o.String(), "$M", marker).Replace(tt.in)
				want, status := "", statusOf(tt.want)
				if tt.want != "" {
					want = refusal(tt.want, allowField(status)...)
				}
				if got := r.talk(t, in, segment); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				l := r.line(t)
				if l.Reason != reasonOf(tt.want) || l.Status != status || l.Error == "" || l.Target != "" {
					t.Errorf("line: %+v", l)
				}
			})
		}
	}
	wantNothingDone(t, r, o)
}

// wantNothingDone checks that nobody was asked or connected to, that there are no
// more access lines, and that none has what it must not.
func wantNothingDone(t *testing.T, r *rig, o *origin) {
	t.Helper()
	o.untouched(t)
	if got := r.dns.Queries(); len(got) > 0 {
		t.Errorf("DNS was asked for %q", got)
	}
	r.noLine(t)
	if strings.Contains(r.log.text(), marker) {
		t.Errorf("the log has what a client said: %s", r.log.text())
	}
}

func allowField(status int) []string {
	if status != 405 {
		return nil
	}
	return []string{"Allow: CONNECT, GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"}
}

func statusOf(want string) (status int) {
	fmt.Sscan(want, &status)
	return status
}

func reasonOf(want string) string {
	if want == "" {
		return "wrong-protocol"
	}
	return strings.Fields(want)[1]
}

func TestConnectAcceptsHead(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	o.echo(t)
	for _, tt := range []struct{ id, in string }{
		{"1 correct", "CONNECT $T HTTP/1.1\r\nHost: $T\r\n\r\n"},
		{"10 Host is another", "CONNECT $T HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n"},
		{"11 Content-Length 0", "CONNECT $T HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"},
		{"16 HTTP/1.0", "CONNECT $T HTTP/1.0\r\n\r\n"},
		{"18 HTTP/1.2", "CONNECT $T HTTP/1.2\r\nHost: a\r\n\r\n"},
		{"21 an empty line first", "\r\nCONNECT $T HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"23 obs-text in a value", "CONNECT $T HTTP/1.1\r\nHost: a\r\nX: \xff\t\xe4\r\n\r\n"},
		{"25 100 fields", "CONNECT $T HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X:\r\n", 99) + "\r\n"},
		{"25 8 KiB", "CONNECT $T HTTP/1.1\r\nHost: a\r\nX: $8\r\n\r\n"},
	} {
		for name, segment := range map[string]int{"": 64 << 10, ", byte by byte": 1} {
			t.Run("3b/"+tt.id+name, func(t *testing.T) {
				in := strings.ReplaceAll(tt.in, "$T", o.String())
				in = strings.ReplaceAll(in, "$8", strings.Repeat("8", 8<<10-len(in)+len("$8")))
				c := r.dial(t)
				for part := []byte(in); len(part) > 0; part = part[min(segment, len(part)):] {
					send(t, c, string(part[:min(segment, len(part))]))
				}
				got := readHead(t, c)
				send(t, c, "ping")
				wantText(t, c, "ping")
				c.CloseWrite()
				wantEnd(t, c)
				l := r.line(t)
				if want := established(o.String(), l.Source); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if l.Mode != "connect" || l.Status != 200 || l.Target != o.String() || l.Up != 4 || l.Down != 4 || l.Reason != "client-closed" {
					t.Errorf("line: %+v", l)
				}
			})
		}
	}
}

// The deadline is for the whole head: what comes a little at a time does not
// extend it.
func TestConnectHeadTooSlow(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(r *rig) { r.Head = time.Second })
	slow := refusal("408 http_request_error head took too long")
	heads := []struct{ id, in, want string }{
		{"nothing at all", "", ""},
		{"an empty line", "\r\n", ""},
		{"half a line", "CONN", slow},
		{"half a head", "CONNECT a:443 HTTP/1.1\r\nHost: " + marker + "\r\n", slow},
		{"half of a forwarded head", "GET http://a/ HTTP/1.1\r\nHost:", ""},
		{"a byte now and then", "C", slow},
	}
	conns := make([]*net.TCPConn, len(heads)) // all wait at a time
	for i, tt := range heads {
		conns[i] = r.dial(t)
		send(t, conns[i], tt.in)
	}
	go func() { // ends with the last of them
		for tick := time.Tick(20 * time.Millisecond); ; <-tick {
			if _, err := conns[len(heads)-1].Write([]byte("C")); err != nil {
				return
			}
		}
	}()
	statuses := make(map[int]int)
	for i, tt := range heads {
		t.Run("3b/4 "+tt.id, func(t *testing.T) {
			if got := readAll(t, conns[i]); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			conns[i].Close()
			l := r.line(t) // of any of them
			if l.Status == 0 && l.Reason != "no-request" || l.Status != 0 && l.Reason != "http_request_error" {
				t.Errorf("line: %+v", l)
			}
			statuses[l.Status]++
		})
	}
	if statuses[0] != 3 || statuses[408] != 3 {
		t.Errorf("statuses in the log: %v", statuses)
	}
	wantNothingDone(t, r, newOrigin(t))
}

// What a client sends behind its request goes to the origin first, once.
func TestConnectPipelined(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	head := connectHead(o.String())
	for _, size := range []int{1, 900, 1 << 10, 8<<10 - len(head), 8<<10 - len(head) + 1, 64 << 10} {
		t.Run(fmt.Sprintf("3b/2 %d bytes", size), func(t *testing.T) {
			early := random(size)
			c := r.dial(t)
			go func() { // ends when all of it is read below
				c.Write(append([]byte(head), early...))
				c.CloseWrite()
			}()
			up := o.accept(t)
			wantSum(t, up, early)
			up.Close()
			readHead(t, c)
			wantEnd(t, c)
			if l := r.line(t); l.Up != int64(size) {
				t.Errorf("up: %d, want %d", l.Up, size)
			}
		})
	}
}

func TestConnectSplitAnywhere(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	message := connectHead(o.String()) + "early"
	for i := 1; i < len(message); i++ {
		c := r.dial(t)
		send(t, c, message[:i])
		send(t, c, message[i:])
		up := o.accept(t)
		wantText(t, up, "early")
		up.Close()
		if got := readHead(t, c); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Fatalf("split at %d: got %q", i, got)
		}
		c.Close()
		r.line(t)
	}
}

func TestConnectClientLeaves(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	for _, in := range []string{"", "C", "CONNECT " + marker + ":443 HTTP/1.1\r\nHost"} {
		t.Run(fmt.Sprintf("3b/27 FIN after %d bytes", len(in)), func(t *testing.T) {
			c := r.dial(t)
			send(t, c, in)
			c.CloseWrite()
			wantEnd(t, c)
			if l := r.line(t); l.Reason != "no-request" || l.Status != 0 {
				t.Errorf("line: %+v", l)
			}
		})
		t.Run(fmt.Sprintf("3b/27 RST after %d bytes", len(in)), func(t *testing.T) {
			c := r.dial(t)
			send(t, c, in)
			reset(c)
			if l := r.line(t); l.Reason != "no-request" || l.Status != 0 {
				t.Errorf("line: %+v", l)
			}
		})
	}
	wantNothingDone(t, r, o)

	t.Run("3b/27 FIN after the head", func(t *testing.T) {
		c := r.dial(t)
		send(t, c, connectHead(o.String()))
		c.CloseWrite()
		up := o.accept(t)
		wantEnd(t, up)
		send(t, up, "answer")
		up.Close()
		readHead(t, c)
		wantText(t, c, "answer")
		wantEnd(t, c)
		if l := r.line(t); l.Reason != "client-closed" || l.Down != int64(len("answer")) {
			t.Errorf("line: %+v", l)
		}
	})
	t.Run("3b/27 RST after the head", func(t *testing.T) {
		c, up := r.open(t, o)
		reset(c)
		wantReset(t, up)
		if l := r.line(t); l.Reason != "client-reset" {
			t.Errorf("line: %+v", l)
		}
	})
}

// A connection that takes as long as it may take must not find that the head's time
// is over when it is to be answered.
func TestConnectSlowDial(t *testing.T) {
	t.Parallel()
	const head = time.Second
	r := newRig(t, func(r *rig) {
		r.Head = head
		r.Lookup = slowLookup(2 * head)
	})
	o := newOrigin(t)
	o.echo(t)
	conns := []*net.TCPConn{r.dial(t), r.dial(t)} // both wait at a time
	send(t, conns[0], connectHead(fmt.Sprintf("slow.test:%d", o.Port()))+"ping")
	send(t, conns[1], hello+socksName("slow.test", o.Port())+"ping")
	for _, c := range conns {
		c.CloseWrite()
		if got := readAll(t, c); !strings.HasSuffix(got, "ping") {
			t.Errorf("got %q", got)
		}
		if l := r.line(t); l.Reason != "client-closed" || l.Source == "" {
			t.Errorf("line: %+v", l)
		}
	}
}
