package egress_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"swivel/relay"
)

// The upstream connection ends with the client's.
func TestForwardClientLeaves(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	for _, tt := range []struct {
		name, request, response string
	}{
		{"before the response", get(o), ""},
		{"in the request", post(o), ""},
		{"in the response", get(o), "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart"},
	} {
		for how, leave := range map[string]func(*net.TCPConn){"client-closed": closeConn, "client-reset": reset} {
			t.Run(how+" "+tt.name, func(t *testing.T) {
				c := r.dial(t)
				send(t, c, tt.request)
				up := o.accept(t)
				readHead(t, up)
				if tt.response != "" {
					send(t, up, tt.response)
					readHead(t, c)
					wantText(t, c, "part")
				}
				leave(c)
				io.Copy(io.Discard, up) // to the end, whatever it is
				if l := r.line(t); l.Reason != how {
					t.Errorf("line: %+v", l)
				}
			})
		}
	}
	r.accepting()
	r.noLine(t)
}

func idle(r *rig) { r.Limits.Idle = 500 * time.Millisecond }

// Nobody answers, or asks.
func TestForwardIdle(t *testing.T) {
	t.Parallel()
	r := newRig(t, idle)
	o := newOrigin(t)
	t.Run("origin says nothing", func(t *testing.T) {
		if got, want := r.talk(t, get(o), 1000), refusal("504 connection_read_timeout"); got != want {
			t.Errorf("got %q", got)
		}
		if l := r.line(t); l.Reason != "connection_read_timeout" {
			t.Errorf("line: %+v", l)
		}
		o.accept(t)
	})
	t.Run("client says nothing", func(t *testing.T) {
		if got, want := r.talk(t, post(o), 1000), refusal("504 connection_read_timeout"); got != want {
			t.Errorf("got %q", got)
		}
		r.line(t)
		o.accept(t)
	})
	t.Run("between requests", func(t *testing.T) {
		c := r.dial(t)
		send(t, c, get(o))
		up := o.accept(t)
		readHead(t, up)
		send(t, up, "HTTP/1.1 204 No Content\r\n\r\n")
		readHead(t, c)
		wantEnd(t, c)
		if l := r.line(t); l.Reason != "done" {
			t.Errorf("line: %+v", l)
		}
	})
	r.noLine(t)
}

// A response goes on no more, by the fault of one side or the other.
func TestForwardStalled(t *testing.T) {
	t.Parallel()
	r := newRig(t, idle)
	o := newOrigin(t)
	t.Run("origin stops", func(t *testing.T) {
		c := r.dial(t)
		send(t, c, get(o))
		up := o.accept(t)
		readHead(t, up)
		send(t, up, "HTTP/1.1 200 OK\r\n\r\npart")
		readHead(t, c)
		if got := wantReset(t, c); !strings.Contains(got, "part") {
			t.Errorf("got %q", got)
		}
		if l := r.line(t); l.Reason != "idle" {
			t.Errorf("line: %+v", l)
		}
	})
	t.Run("client takes nothing", func(t *testing.T) {
		c := r.dial(t)
		send(t, c, get(o))
		up := o.accept(t)
		readHead(t, up)
		send(t, up, "HTTP/1.1 200 OK\r\n\r\n")
		io.Copy(up, zeros{}) // until it is cut
		c.Close()
		if l := r.line(t); l.Reason != "idle" {
			t.Errorf("line: %+v", l)
		}
	})
	r.noLine(t)
}

// Whoever ends a request from outside is named, and both peers see a reset.
func TestForwardEnded(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*rig){
		"killed":   nil,
		"lifetime": func(r *rig) { r.Limits.Lifetime = 500 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, change)
			o := newOrigin(t)
			for _, response := range []string{"", "HTTP/1.1 200 OK\r\n\r\npart"} {
				c := r.dial(t)
				send(t, c, get(o))
				up := o.accept(t)
				readHead(t, up)
				send(t, up, response)
				if response != "" {
					readHead(t, c)
					wantText(t, c, "4\r\npart")
				}
				if change == nil {
					r.table.End(relay.Killed)
				}
				wantReset(t, c)
				wantReset(t, up)
				if l := r.line(t); l.Reason != name || l.Source == "" {
					t.Errorf("line: %+v", l)
				}
			}
		})
	}
}
