package proxyproto

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// CASES 3c/2 to 3c/6: what is no header of version 1 is refused, as early as it is
// known.
func TestParseV1Refuses(t *testing.T) {
	line := func(n int, end string) string { // of n bytes, with end
		return "PROXY UNKNOWN " + strings.Repeat("x", n-len("PROXY UNKNOWN ")-len(end)) + end
	}
	for _, tt := range []struct{ name, b string }{
		{"2 without end", line(108, "")},
		{"2 too long to end", line(106, "")},
		{"2 LF only", "PROXY UNKNOWN\n"},
		{"2 LF only, later CRLF", "PROXY UNKNOWN x\n\r\n"},
		{"2 CR only", "PROXY UNKNOWN\rx"},
		{"2 CR CR LF", "PROXY UNKNOWN\r\r\n"},
		{"2 CRLF ends at byte 108", line(108, "\r\n")},
		{"3 no space", "PROXYjunk TCP4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"3 lower case", "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"3 lower case family", "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"3 double space", "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n"},
		{"3 double space in front", "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"3 leading space", " PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"3 tab", "PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n"},
		{"3 trailing token", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n"},
		{"3 trailing space", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n"},
		{"3 five tokens", "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"},
		{"3 nothing", "PROXY \r\n"},
		{"4 TCP4 with IPv6", "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n"},
		{"4 TCP6 with IPv4", "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"4 mixed", "PROXY TCP6 2001:db8::1 192.0.2.2 1 2\r\n"},
		{"4 mapped", "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"},
		{"4 zone", "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2\r\n"},
		{"4 leading zero", "PROXY TCP4 192.0.02.1 192.0.2.2 1 2\r\n"},
		{"4 short", "PROXY TCP4 192.2.1 192.0.2.2 1 2\r\n"},
		{"4 brackets", "PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n"},
		{"4 family", "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"5 port 99999", "PROXY TCP4 192.0.2.1 192.0.2.2 99999 2\r\n"},
		{"5 port 65536", "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n"},
		{"5 port -1", "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n"},
		{"5 port 080", "PROXY TCP4 192.0.2.1 192.0.2.2 080 2\r\n"},
		{"5 port +80", "PROXY TCP4 192.0.2.1 192.0.2.2 +80 2\r\n"},
		{"5 port empty", "PROXY TCP4 192.0.2.1 192.0.2.2  2\r\n"},
		{"5 port hex", "PROXY TCP4 192.0.2.1 192.0.2.2 0x50 2\r\n"},
		{"6 UNKNOWN and no space", "PROXY UNKNOWNjunk\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, n, err := Parse([]byte(tt.b))
			if err == nil || err == ErrIncomplete || n != 0 {
				t.Errorf("got %+v, %d, %v", h, n, err)
			}
		})
	}
}

// CASES 3c/2, 3c/6, 3c/7, 3c/12.
func TestParseV1(t *testing.T) {
	tcp4 := Header{Src: netip.MustParseAddrPort("192.0.2.1:1"), Dst: netip.MustParseAddrPort("203.0.113.9:65535")}
	tcp6 := Header{Src: netip.MustParseAddrPort("[2001:db8::1]:0"), Dst: netip.MustParseAddrPort("[2001:db8::c000:202]:80")}
	const line4 = "PROXY TCP4 192.0.2.1 203.0.113.9 1 65535\r\n"
	for _, tt := range []struct {
		name, header, rest string
		want               Header
	}{
		{"TCP4", line4, "", tcp4},
		{"TCP6", "PROXY TCP6 2001:DB8:0::1 2001:db8::192.0.2.2 0 80\r\n", "", tcp6},
		{"2 of 107 bytes", "PROXY UNKNOWN" + strings.Repeat(" ", 107-15) + "\r\n", "\r\n", Header{Local: true}},
		{"6 UNKNOWN", "PROXY UNKNOWN\r\n", "", Header{Local: true}},
		{"6 UNKNOWN and junk", "PROXY UNKNOWN \x00 TCP4 1\r\n", "x", Header{Local: true}},
		{"7 payload", line4, "\x16\x03\x01", tcp4},
		{"12 second header", line4, line4, tcp4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, n, err := Parse([]byte(tt.header + tt.rest))
			if err != nil || n != len(tt.header) || !equal(h, tt.want) {
				t.Errorf("got %+v, %d, %v, want %+v, %d", h, n, err, tt.want, len(tt.header))
			}
			for i := range tt.header {
				if _, _, err := Parse([]byte(tt.header[:i])); !errors.Is(err, ErrIncomplete) {
					t.Errorf("%d bytes: got %v, want %v", i, err, ErrIncomplete)
				}
			}
		})
	}
}

func TestAppendV1(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::2]:2")
	for _, tt := range []struct {
		name string
		h    Header
		want string
	}{
		{"IPv4", Header{Src: v4, Dst: v4}, "PROXY TCP4 192.0.2.1 192.0.2.1 1 1\r\n"},
		{"IPv6", Header{Src: v6, Dst: v6}, "PROXY TCP6 2001:db8::2 2001:db8::2 2 2\r\n"},
		{"mapped", Header{Src: netip.MustParseAddrPort("[::ffff:192.0.2.1]:1"), Dst: v4}, "PROXY TCP4 192.0.2.1 192.0.2.1 1 1\r\n"},
		{"zone", Header{Src: netip.MustParseAddrPort("[fe80::1%eth0]:1"), Dst: v6}, "PROXY TCP6 fe80::1 2001:db8::2 1 2\r\n"},
		{"the longest", Header{
			Src: netip.MustParseAddrPort("[2001:db8:1111:1111:1111:1111:1111:1111]:65535"),
			Dst: netip.MustParseAddrPort("[2001:db8:1111:1111:1111:1111:1111:1111]:65535"),
		}, "PROXY TCP6 2001:db8:1111:1111:1111:1111:1111:1111 2001:db8:1111:1111:1111:1111:1111:1111 65535 65535\r\n"},
		{"local", Header{Local: true, Src: v4, Dst: v4}, "PROXY UNKNOWN\r\n"},
		{"nothing", Header{}, "PROXY UNKNOWN\r\n"},
		{"two families", Header{Src: v4, Dst: v6}, "PROXY UNKNOWN\r\n"},
		{"datagrams", Header{UDP: true, Src: v4, Dst: v4}, "PROXY UNKNOWN\r\n"},
	} {
		if got := string(AppendV1(nil, tt.h)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
