package egress_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const (
	hello    = "\x05\x01\x00"                             // no authentication
	password = "\x05\x01\x02"                             // with a password
	login    = "\x01\x03ann\x10" + marker                 // RFC 1929
	toName   = "\x05\x01\x00\x03"                         // connect to a name
	toIPv4   = "\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbb" // connect to 127.0.0.1:443
)

// The cases of the requirements' table 3d. Those with a user are in refusedLogins.
var refusedSOCKS = []struct{ id, in, want, reason string }{
	{"1 version 4", "\x04\x01\x01\xbb\x7f\x00\x00\x01\x00", "", "wrong-protocol"},
	{"1 version 0", "\x00\x01\x00", "", "wrong-protocol"},
	{"1 no methods", "\x05\x00", "\x05\xff", "http_request_error"},
	{"1 only GSSAPI", "\x05\x01\x01", "\x05\xff", "http_request_error"},
	{"1 only a password", "\x05\x01\x02", "\x05\xff", "http_request_error"},
	{"4 version of the request", hello + "\x04\x01\x00\x01\x7f\x00\x00\x01\x01\xbb", "\x05\x00" + socksRefusal(1), "http_request_error"},
	{"4 RSV", hello + "\x05\x01\x01\x01\x7f\x00\x00\x01\x01\xbb", "\x05\x00" + socksRefusal(1), "http_request_error"},
	{"4 BIND", hello + "\x05\x02\x00\x01\x7f\x00\x00\x01\x01\xbb", "\x05\x00" + socksRefusal(7), "http_request_error"},
	{"4 UDP", hello + "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", "\x05\x00" + socksRefusal(7), "http_request_error"},
	{"5 address type 0", hello + "\x05\x01\x00\x00\x7f\x00\x00\x01\x01\xbb", "\x05\x00" + socksRefusal(8), "http_request_error"},
	{"5 address type 2", hello + "\x05\x01\x00\x02\x7f\x00\x00\x01\x01\xbb", "\x05\x00" + socksRefusal(8), "http_request_error"},
	{"5 address type 5", hello + "\x05\x01\x00\x05\x7f\x00\x00\x01\x01\xbb", "\x05\x00" + socksRefusal(8), "http_request_error"},
	{"5 address type 255", hello + "\x05\x01\x00\xff\x7f\x00\x00\x01\x01\xbb", "\x05\x00" + socksRefusal(8), "http_request_error"},
	{"6 empty name", hello + toName + "\x00\x01\xbb", "\x05\x00" + socksRefusal(1), "http_request_error"},
	{"6 255 bytes", hello + toName + "\xff" + strings.Repeat("a", 255) + "\x01\xbb", "\x05\x00" + socksRefusal(1), "http_request_error"},
	{"6 NUL in the name", hello + toName + "\x03a\x00b\x01\xbb", "\x05\x00" + socksRefusal(1), "http_request_error"},
	{"6 127.0.0.1 as a name", hello + toName + "\x09127.0.0.1\x01\xbb", "\x05\x00" + socksRefusal(2), "destination_ip_prohibited"},
	{"6 ::1 as a name", hello + toName + "\x03::1\x01\xbb", "\x05\x00" + socksRefusal(2), "destination_ip_prohibited"},
	{"6 a decimal as a name", hello + toName + "\x0a2130706433\x01\xbb", "\x05\x00" + socksRefusal(1), "http_request_error"},
	{"6 brackets", hello + toName + "\x05[::1]\x01\xbb", "\x05\x00" + socksRefusal(1), "http_request_error"},
	{"6 denied address", hello + toIPv4, "\x05\x00" + socksRefusal(2), "destination_ip_prohibited"},
	{"6 mapped address", hello + "\x05\x01\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x01\x01\xbb", "\x05\x00" + socksRefusal(2), "destination_ip_prohibited"},
	{"7 port 0", hello + "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00", "\x05\x00" + socksRefusal(1), "http_request_error"},
	{"7 port 0 of a name", hello + toName + "\x0bcanary.test\x00\x00", "\x05\x00" + socksRefusal(1), "http_request_error"},
}

var refusedLogins = []struct{ id, in, want, reason string }{
	{"1 no method with a password", hello, "\x05\xff", "http_request_error"},
	{"2 request in place of the password", password + toIPv4, "\x05\x02\x01\x01", "http_request_error"},
	{"2 request behind a greeting without one", hello + toIPv4, "\x05\xff", "http_request_error"},
	{"2 request behind a wrong password", password + "\x01\x03ann\x01x" + toIPv4, "\x05\x02\x01\x01", "credentials"},
	{"3 version of the login", password + "\x05\x03ann\x10" + marker, "\x05\x02\x01\x01", "http_request_error"},
	{"3 no user", password + "\x01\x00\x10" + marker, "\x05\x02\x01\x01", "http_request_error"},
	{"3 no password", password + "\x01\x03ann\x00", "\x05\x02\x01\x01", "http_request_error"},
	{"3 255 and 255 bytes", password + "\x01\xff" + strings.Repeat("a", 255) + "\xff" + strings.Repeat("b", 255), "\x05\x02\x01\x01", "credentials"},
	{"3 wrong password", password + "\x01\x03ann\x11" + marker + "x", "\x05\x02\x01\x01", "credentials"},
	{"6 policy comes last", password + login + toIPv4, "\x05\x02\x01\x00" + socksRefusal(2), "destination_ip_prohibited"},
}

func TestSOCKSRefuses(t *testing.T) {
	open := newRig(t, func(r *rig) { r.Policy.Allow = nil })
	closed := newRig(t, func(r *rig) {
		r.Policy.Allow = nil
		r.Users = users(t)
	})
	o := newOrigin(t)
	for _, set := range []struct {
		*rig
		rows []struct{ id, in, want, reason string }
	}{{open, refusedSOCKS}, {closed, refusedLogins}} {
		for _, tt := range set.rows {
			for name, segment := range map[string]int{"": 64 << 10, ", byte by byte": 1} {
				t.Run("3d/"+tt.id+name, func(t *testing.T) {
					if got := set.talk(t, tt.in, segment); got != tt.want {
						t.Errorf("got %q, want %q", got, tt.want)
					}
					if l := set.line(t); l.Reason != tt.reason || l.Error == "" || l.Status != 0 {
						t.Errorf("line: %+v", l)
					}
				})
			}
		}
		wantNothingDone(t, set.rig, o)
	}
}

func TestSOCKSConnects(t *testing.T) {
	r := newRig(t, nil)
	withUsers := newRig(t, func(r *rig) { r.Users = users(t) })
	o := newOrigin(t)
	for _, tt := range []struct {
		id   string
		r    *rig
		in   string
		want string // before the reply
	}{
		{"2 all at once", r, hello + socksAddr(o.AddrPort), "\x05\x00"},
		{"2 all at once, with a password", withUsers, password + login + socksAddr(o.AddrPort), "\x05\x02\x01\x00"},
		{"1 255 methods", r, "\x05\xff" + strings.Repeat("\x00", 255) + socksAddr(o.AddrPort), "\x05\x00"},
		{"6 address as a name", r, hello + socksName("127.0.0.1", o.Port()), "\x05\x00"},
		{"6 name", r, hello + socksName("Canary.TEST.", o.Port()), "\x05\x00"},
		{"6 mapped address", r, hello + socksAddr(netip.AddrPortFrom(netip.AddrFrom16(loopback.As16()), o.Port())), "\x05\x00"},
	} {
		for name, segment := range map[string]int{"": 64 << 10, ", byte by byte": 1} {
			t.Run("3d/"+tt.id+name, func(t *testing.T) {
				c := tt.r.dial(t)
				for part := []byte(tt.in + "early"); len(part) > 0; part = part[min(segment, len(part)):] {
					send(t, c, string(part[:min(segment, len(part))]))
				}
				up := o.accept(t)
				wantText(t, c, tt.want+string(boundReply(up)))
				wantText(t, up, "early")
				send(t, up, "answer")
				up.Close()
				wantText(t, c, "answer")
				wantEnd(t, c)
				c.Close()
				if l := tt.r.line(t); l.Mode != "socks5" || l.Up != 5 || l.Down != 6 || l.Reason != "upstream-closed" {
					t.Errorf("line: %+v", l)
				}
			})
		}
	}
	if strings.Contains(withUsers.log.text(), marker) {
		t.Error("the log has the password")
	}
}

// boundReply is the reply that has the address which the origin sees.
func boundReply(up *net.TCPConn) []byte {
	b := []byte(socksAddr(up.RemoteAddr().(*net.TCPAddr).AddrPort()))
	b[1] = 0
	return b
}

func TestSOCKSTooSlow(t *testing.T) {
	t.Parallel()
	short := func(r *rig) { r.Head = time.Second }
	r := newRig(t, short)
	withUsers := newRig(t, func(r *rig) {
		short(r)
		r.Users = users(t)
	})
	o := newOrigin(t)
	whole := hello + toName + "\x0bcanary.test\x01\xbb"
	type client struct {
		*rig
		id, in, want string
		conn         net.Conn
	}
	clients := []client{
		{rig: r, id: "1 255 methods announced", in: "\x05\xff\x00\x00\x00"},
		{rig: withUsers, id: "3 half a password", in: password + login[:8], want: "\x05\x02"},
	}
	for i := 1; i < len(whole); i++ {
		c := client{rig: r, id: fmt.Sprintf("9 %d bytes", i), in: whole[:i]}
		if i >= len(hello) {
			c.want = "\x05\x00"
		}
		clients = append(clients, c)
	}
	for i := range clients { // all wait at a time
		clients[i].conn = clients[i].dial(t)
		send(t, clients[i].conn, clients[i].in)
	}
	for _, c := range clients {
		t.Run("3d/"+c.id, func(t *testing.T) {
			if got := readAll(t, c.conn); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if l := c.line(t); l.Reason != "no-request" {
				t.Errorf("line: %+v", l)
			}
		})
	}
	wantNothingDone(t, r, o)
	wantNothingDone(t, withUsers, o)
}
