package exit

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// dialog is a proxy that expects each first of two, and answers the second.
func dialog(t *testing.T, messages ...string) func(net.Conn) {
	return func(c net.Conn) {
		for i := 0; i < len(messages); i += 2 {
			got := make([]byte, len(messages[i]))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != messages[i] {
				t.Errorf("message %d: got %q, %v, want %q", i/2, got, err, messages[i])
				return
			}
			for _, b := range []byte(messages[i+1]) {
				c.Write([]byte{b})
			}
		}
	}
}

const (
	request4 = "\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"
	success  = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	bound4   = "\x05\x00\x00\x01\xcb\x00\x71\x05\x12\x34"
)

func TestSOCKS(t *testing.T) {
	address6 := netip.MustParseAddrPort("[2001:db8::1]:443")
	for _, tt := range []struct {
		name   string
		p      Proxy
		r      Request
		dialog []string
		source string
	}{
		{"without a password", Proxy{}, Request{Addr: destination, Name: "site.example"}, []string{"\x05\x01\x00", "\x05\x00", request4, success + "rest"}, ""},
		{"with one that is not wanted", Proxy{User: "u", Password: "pw"}, Request{Addr: destination}, []string{"\x05\x02\x00\x02", "\x05\x00", request4, bound4 + "rest"}, "203.0.113.5"},
		{"with one that is", Proxy{User: "u", Password: "pw"}, Request{Addr: destination},
			[]string{"\x05\x02\x00\x02", "\x05\x02", "\x01\x01u\x02pw", "\x01\x00", request4, "\x05\x00\x00\x03\x03abc\x00\x50rest"}, ""},
		{"with a session", Proxy{User: "u", Password: "p", Sessions: true}, Request{Addr: destination, Session: "1"},
			[]string{"\x05\x02\x00\x02", "\x05\x02", "\x01\x0bu-session-1\x01p", "\x01\x00", request4, success + "rest"}, ""},
		{"for a name", Proxy{Names: true}, Request{Addr: destination, Name: "site.example"},
			[]string{"\x05\x01\x00", "\x05\x00", "\x05\x01\x00\x03\x0csite.example\x01\xbb", "\x05\x00\x00\x04" + strings.Repeat("\x20", 18) + "rest"}, "2020:2020:2020:2020:2020:2020:2020:2020"},
		{"for IPv6", Proxy{}, Request{Addr: address6},
			[]string{"\x05\x01\x00", "\x05\x00", "\x05\x01\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x01\xbb", success + "rest"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.p.Scheme = SOCKS5
			tunnel, c, err := open(t, &tt.p, &tt.r, dialog(t, tt.dialog...))
			if err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(c)
			if got := string(tunnel.Early) + string(rest); err != nil || got != "rest" {
				t.Errorf("got %q, %v behind the answer, want rest", got, err)
			}
			if tunnel.Source != tt.source {
				t.Errorf("source: got %q, want %q", tunnel.Source, tt.source)
			}
		})
	}
}

func TestSOCKSRefused(t *testing.T) {
	for _, tt := range []struct {
		dialog []string
		status int
		token  string
		blame  Blame
	}{
		{[]string{"\x05\x01\x00", "\x05\xff"}, 407, "", Itself},
		{[]string{"\x05\x01\x00", "\x05\x02"}, 407, "", Itself},
		{[]string{"\x05\x01\x00", "\x05\x00", request4, "\x05\x01\x00\x01"}, 502, "", Either},
		{[]string{"\x05\x01\x00", "\x05\x00", request4, "\x05\x02\x00\x01"}, 403, "http_request_denied", Itself},
		{[]string{"\x05\x01\x00", "\x05\x00", request4, "\x05\x03\x00\x01"}, 502, "destination_ip_unroutable", Either},
		{[]string{"\x05\x01\x00", "\x05\x00", request4, "\x05\x05\x00\x01"}, 502, "connection_refused", Destination},
		{[]string{"\x05\x01\x00", "\x05\x00", request4, "\x05\x06\x00\x01"}, 504, "connection_timeout", Destination},
		{[]string{"\x05\x01\x00", "\x05\x00", request4, "\x05\x07\x00\x01"}, 405, "", Itself},
		{[]string{"\x05\x01\x00", "\x05\x00", request4, "\x05\x99\x00\x01"}, 502, "", Either},
	} {
		_, _, err := open(t, &Proxy{Scheme: SOCKS5}, &Request{Addr: destination}, dialog(t, tt.dialog...))
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Status != tt.status || r.Token != tt.token || r.Blame() != tt.blame {
			t.Errorf("%q: got %+v (%v)", tt.dialog, r, err)
		}
	}
	_, _, err := open(t, &Proxy{Scheme: SOCKS5, User: "u", Password: "secret"}, &Request{Addr: destination},
		dialog(t, "\x05\x02\x00\x02", "\x05\x02", "\x01\x01u\x06secret", "\x01\x01"))
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Status != 407 || strings.Contains(err.Error(), "secret") {
		t.Errorf("a wrong password: got %v", err)
	}
}

func TestSOCKSGarbage(t *testing.T) {
	for _, d := range [][]string{
		{"\x05\x01\x00", ""},
		{"\x05\x01\x00", "HT"},
		{"\x05\x01\x00", "\x05\x00", request4, "\x04\x00\x00\x01"},
		{"\x05\x01\x00", "\x05\x00", request4, "\x05\x00\x00\x02"},
		{"\x05\x01\x00", "\x05\x00", request4, success[:7]},
		{"\x05\x01\x00", "\x05\x00", request4, "\x05\x00\x00\x03\xffabc"},
	} {
		_, _, err := open(t, &Proxy{Scheme: SOCKS5}, &Request{Addr: destination}, dialog(t, d...))
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%q: got %v, want an *Error", d, err)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(success + "rest"))
	f.Add([]byte("\x05\x05\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &stream{Reader: bytes.NewReader(b)}
		if _, err := readReply(c); err != nil {
			return
		}
		if used := len(b) - c.Len(); used < 6 || used > 4+1+255+2 {
			t.Errorf("%q: %d bytes used", b, used)
		}
	})
}
