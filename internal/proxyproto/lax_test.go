package proxyproto

import (
	"net/netip"
	"testing"
)

// 3c/4: what nginx writes about a socket for both families is taken where that is
// asked for, and nothing else is then.
func TestParseLax(t *testing.T) {
	for _, tt := range []struct {
		line     string
		src, dst string // "" if it is refused
	}{
		{"PROXY TCP6 ::ffff:198.51.100.7 ::ffff:198.51.100.1 5001 25\r\n", "198.51.100.7:5001", "198.51.100.1:25"},
		{"PROXY TCP6 198.51.100.7 198.51.100.1 5001 25\r\n", "198.51.100.7:5001", "198.51.100.1:25"},
		{"PROXY TCP6 2001:db8::7 198.51.100.1 5001 25\r\n", "[2001:db8::7]:5001", "198.51.100.1:25"},
		{"PROXY TCP6 2001:db8::7 2001:db8::1 5001 25\r\n", "[2001:db8::7]:5001", "[2001:db8::1]:25"},
		{"PROXY TCP4 198.51.100.7 198.51.100.1 5001 25\r\n", "198.51.100.7:5001", "198.51.100.1:25"},
		{"PROXY TCP4 2001:db8::7 2001:db8::1 5001 25\r\n", "", ""},
		{"PROXY TCP4 ::ffff:198.51.100.7 198.51.100.1 5001 25\r\n", "", ""},
		{"PROXY TCP6 198.51.100.07 198.51.100.1 5001 25\r\n", "", ""},
		{"PROXY TCP6 fe80::1%eth0 2001:db8::1 5001 25\r\n", "", ""},
	} {
		h, n, err := ParseLax([]byte(tt.line + "payload"))
		if tt.src == "" {
			if err == nil {
				t.Errorf("%q: accepted as %+v", tt.line, h)
			}
			continue
		}
		if err != nil || n != len(tt.line) || h.Src != netip.MustParseAddrPort(tt.src) || h.Dst != netip.MustParseAddrPort(tt.dst) {
			t.Errorf("%q: got %+v, %d, %v", tt.line, h, n, err)
		}
	}
	v2 := AppendV2(nil, Header{Src: src4, Dst: dst4})
	if h, n, err := ParseLax(v2); err != nil || n != len(v2) || h.Src != src4 {
		t.Errorf("version 2: got %+v, %d, %v", h, n, err)
	}
}
