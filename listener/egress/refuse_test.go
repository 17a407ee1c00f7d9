package egress_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"swivel/relay"
)

func TestForwardRefuses(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	for _, tt := range []struct{ name, in, want string }{
		{"https URL", "GET https://$T/ HTTP/1.1\r\nHost: a\r\n\r\n", "400 http_request_error bad request target: want CONNECT, or an http:// URL"},
		{"origin form", "GET / HTTP/1.1\r\nHost: $T\r\n\r\n", "400 http_request_error bad request target: want CONNECT, or an http:// URL"},
		{"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: $T\r\n\r\n", "400 http_request_error bad request target: want CONNECT, or an http:// URL"},
		{"TRACE", "TRACE http://$T/ HTTP/1.1\r\nHost: a\r\n\r\n", "405 http_request_error method is not served"},
		{"userinfo", "GET http://user:$M@$T/ HTTP/1.1\r\nHost: a\r\n\r\n", badTarget},
		{"userinfo and nothing else", "GET http://$M@/ HTTP/1.1\r\nHost: a\r\n\r\n", badTarget},
		{"no host", "GET http:///$M HTTP/1.1\r\nHost: $T\r\n\r\n", badTarget},
		{"port 0", "GET http://a:0/ HTTP/1.1\r\nHost: a\r\n\r\n", badTarget},
		{"IPv6 without brackets", "GET http://::1/ HTTP/1.1\r\nHost: a\r\n\r\n", badTarget},
		{"a number", "GET http://2130706433/ HTTP/1.1\r\nHost: a\r\n\r\n", badTarget},
		{"denied", "GET http://10.1.2.3/ HTTP/1.1\r\nHost: $T\r\n\r\n", denied},
		{"a body behind it", "POST http://10.1.2.3/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart", denied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := strings.NewReplacer("$T", o.String(), "$M", marker).Replace(tt.in)
			want := refusal(tt.want, allowField(statusOf(tt.want))...)
			got := r.talk(t, in, 64<<10)
			// net/http has looked at the URL before, and has its own words.
			if own := "HTTP/1.1 400 Bad Request\r\n"; got != want && (tt.want != badTarget || !strings.HasPrefix(got, own)) {
				t.Errorf("got %q, want %q", got, want)
			}
			if l := r.line(t); l.Reason != reasonOf(tt.want) || l.Status != statusOf(tt.want) {
				t.Errorf("line: %+v", l)
			}
		})
	}
	wantNothingDone(t, r, o)
}

// What net/http refuses to read it answers by itself; the log has it all the same.
func TestForwardMalformed(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	o := newOrigin(t)
	for _, tt := range []struct {
		name, fields string
		status       int
	}{
		{"two Host", "Host: a\r\nHost: b\r\n", 400},
		{"no Host", "", 400},
		{"space before the colon", "Host: a\r\nX : b\r\n", 400},
		{"two lengths", "Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400},
		{"unknown coding", "Host: a\r\nTransfer-Encoding: gzip\r\n", 501},
		{"80 KiB head", "Host: a\r\nX: " + strings.Repeat(marker, 5<<10) + "\r\n", 431},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := r.talk(t, "GET http://"+o.String()+"/ HTTP/1.1\r\n"+tt.fields+"\r\n", 64<<10)
			res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
			if err != nil || res.StatusCode != tt.status {
				t.Fatalf("got %q, want %d", got, tt.status)
			}
			if l := r.line(t); l.Mode != "http" || l.Status != tt.status || l.Reason != "http_request_error" {
				t.Errorf("line: %+v", l)
			}
		})
	}
	wantNothingDone(t, r, o)
}

// What follows on a connection is judged like what came first.
func TestForwardRefusesNext(t *testing.T) {
	for name, next := range map[string]string{
		"CONNECT":     "CONNECT $T HTTP/1.1\r\nHost: $T\r\n\r\n",
		"origin form": "GET /" + marker + " HTTP/1.1\r\nHost: $T\r\n\r\n",
		"malformed":   "GET http://$T/ HTTP/1.1\r\nHost : a\r\n\r\n",
		"no password": "GET http://$T/ HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.Users = users(t) })
			o := newOrigin(t)
			first := "GET http://$T/ HTTP/1.1\r\nHost: a\r\n" + basic("ann:"+marker) + "\r\n\r\n"
			c := r.dial(t)
			send(t, c, strings.ReplaceAll(first+next, "$T", o.String())) // pipelined
			up := o.accept(t)
			readHead(t, up)
			send(t, up, "HTTP/1.1 204 No Content\r\n\r\n")
			readHead(t, c)
			r.line(t)
			if got := readAll(t, c); !strings.HasPrefix(got, "HTTP/1.1 40") {
				t.Errorf("got %q", got)
			}
			c.Close()
			if l := r.line(t); l.Status < 400 || l.Status > 407 || l.Reason == "" {
				t.Errorf("line: %+v", l)
			}
			wantNothingDone(t, r, o)
		})
	}
}

// A body that the client never sends does not keep the connection.
func TestForwardRestOfBody(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	o := newOrigin(t)
	c := r.dial(t)
	send(t, c, post(o))
	up := o.accept(t)
	readHead(t, up)
	send(t, up, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	readHead(t, c)
	wantText(t, c, "ok")
	wantEnd(t, c)
	if l := r.line(t); l.Reason != "done" {
		t.Errorf("line: %+v", l)
	}
}

// A drain lets a request end, and its connection with it.
func TestForwardDrain(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	idle, busy := r.dial(t), r.dial(t)
	send(t, idle, get(o))
	up := o.accept(t)
	readHead(t, up)
	send(t, up, "HTTP/1.1 204 No Content\r\n\r\n")
	readHead(t, idle)
	r.line(t)
	send(t, busy, get(o))
	up = o.accept(t)
	readHead(t, up)

	r.accepting()
	wantEnd(t, idle)
	send(t, up, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	readHead(t, busy)
	wantText(t, busy, "ok")
	wantEnd(t, busy)
	if l := r.line(t); l.Reason != "done" {
		t.Errorf("line: %+v", l)
	}
	r.noLine(t)
}

// A bug costs one connection, and the log has where it is.
func TestPanic(t *testing.T) {
	r := newRig(t, func(r *rig) { r.Policy = nil })
	for _, in := range []string{
		connectHead("canary.test:443"),
		"GET http://canary.test/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"\x05\x01\x00" + socksName("canary.test", 443),
	} {
		c := r.dial(t)
		send(t, c, in)
		wantReset(t, c)
		for _, want := range []func(line) bool{
			func(l line) bool { return l.Message == "bug" },
			func(l line) bool { return l.Reason == "panic" },
		} {
			for !want(r.anyLine(t)) {
			}
		}
	}
	if !strings.Contains(r.log.text(), "egress.(*session).open") {
		t.Errorf("log has no stack: %s", r.log.text())
	}
}

// Whoever ends a client before it is served is named, too.
func TestEndedEarly(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(r *rig) {
		r.Lookup = func(context.Context, string) ([]netip.Addr, error) {
			entered <- struct{}{}
			<-leave
			return []netip.Addr{loopback}, nil
		}
	})
	o := newOrigin(t)
	name := fmt.Sprintf("slow.test:%d", o.Port())
	for mode, in := range map[string]string{
		"connect": connectHead(name),
		"http":    "GET http://" + name + "/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"socks5":  hello + socksName("slow.test", o.Port()),
	} {
		c := r.dial(t)
		send(t, c, in)
		<-entered
		r.table.End(relay.Killed)
		leave <- struct{}{}
		io.Copy(io.Discard, c)
		if l := r.line(t); l.Mode != mode || l.Reason != "killed" {
			t.Errorf("line: %+v", l)
		}
		r.await(0)
	}
	c := r.dial(t)
	send(t, c, "CONNECT")
	r.await(1)
	r.table.End(relay.Killed)
	wantReset(t, c)
	if l := r.line(t); l.Reason != "killed" {
		t.Errorf("line: %+v", l)
	}
}
