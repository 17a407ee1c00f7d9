package sni

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// 3e/7 and 3e/8: bodies that do not add up, or that could be read in two ways.
func TestParseBody(t *testing.T) {
	sni := name("a.example.com")
	host := func(typ byte, s string) []byte { return slices.Concat([]byte{typ}, vec16([]byte(s))) }
	serverName := func(list []byte) []byte { return extension(extServerName, list) }
	for _, tt := range []struct {
		name string
		edit func(*parts)
		want string // "" when it is to be refused
		err  string
	}{
		{"as it should be", func(p *parts) {}, "a.example.com", ""},
		{"version 2.0", func(p *parts) { p.version = []byte{2, 0} }, "", "version"},
		{"session id of 32", func(p *parts) { p.sessionID = vec8(make([]byte, 32)) }, "a.example.com", ""},
		{"session id of 33", func(p *parts) { p.sessionID = vec8(make([]byte, 33)) }, "", "session id"},
		{"no suites", func(p *parts) { p.suites = vec16(nil) }, "", "cipher suites"},
		{"odd suites", func(p *parts) { p.suites = vec16(make([]byte, 3)) }, "", "cipher suites"},
		{"suites past the end", func(p *parts) { p.suites = []byte{0xff, 0xfe, 1} }, "", "cut short"},
		{"no compression", func(p *parts) { p.compressions = vec8(nil) }, "", "compression"},
		{"no extensions block", func(p *parts) { p.extensions = nil }, "", "no extensions"},
		{"bytes behind the extensions", func(p *parts) { p.tail = []byte{0} }, "", "length of the extensions"},
		{"extensions past the end", func(p *parts) { p.extensions, p.tail = nil, []byte{0, 5, 0} }, "", "length of the extensions"},
		{"half a length of extensions", func(p *parts) { p.extensions, p.tail = nil, []byte{0} }, "", "length of the extensions"},
		{"an extension past the end", func(p *parts) { p.extensions = [][]byte{sni, {0, 10, 0xff, 0xff, 0}} }, "", "length of an extension"},
		{"half an extension", func(p *parts) { p.extensions = [][]byte{sni, {0}} }, "", "length of an extension"},
		{"two of them", func(p *parts) { p.extensions = [][]byte{sni, name("b.example.com")} }, "", "twice"},
		{"the same twice", func(p *parts) { p.extensions = [][]byte{sni, sni} }, "", "twice"},
		{"another one twice", func(p *parts) { p.extensions = [][]byte{sni, extension(77, nil), extension(77, nil)} }, "", "twice"},
		{"two host names", func(p *parts) {
			p.extensions = [][]byte{serverName(vec16(slices.Concat(host(0, "a.example.com"), host(0, "b.example.com"))))}
		}, "", "several server names"},
		{"a name of type 1", func(p *parts) { p.extensions = [][]byte{serverName(vec16(host(1, "a.example.com")))} }, "", "type of a server name"},
		{"a name of type 1 behind", func(p *parts) {
			p.extensions = [][]byte{serverName(vec16(slices.Concat(host(0, "a.example.com"), host(1, "b.example.com"))))}
		}, "", "several server names"},
		{"an empty name", func(p *parts) { p.extensions = [][]byte{name("")} }, "", "server name"},
		{"an empty list", func(p *parts) { p.extensions = [][]byte{serverName(vec16(nil))} }, "", "length of a server name"},
		{"an empty extension", func(p *parts) { p.extensions = [][]byte{serverName(nil)} }, "", "length of the server name list"},
		{"a byte behind the list", func(p *parts) {
			p.extensions = [][]byte{serverName(append(vec16(host(0, "a.example.com")), 0))}
		}, "", "length of the server name list"},
		{"a name of 0xffff in 65 bytes", func(p *parts) {
			p.extensions = [][]byte{serverName(vec16(slices.Concat([]byte{0, 0xff, 0xff}, make([]byte, 62))))}
		}, "", "length of a server name"},
		{"an empty ALPN list", func(p *parts) { p.extensions = [][]byte{sni, extension(extALPN, vec16(nil))} }, "", "ALPN"},
		{"an empty ALPN protocol", func(p *parts) { p.extensions = [][]byte{sni, extension(extALPN, vec16([]byte{2, 'h', '2', 0}))} }, "", "ALPN"},
		{"an ALPN protocol past the end", func(p *parts) { p.extensions = [][]byte{sni, extension(extALPN, vec16([]byte{3, 'h', '2'}))} }, "", "ALPN"},
		{"pre_shared_key in front", func(p *parts) { p.extensions = [][]byte{extension(extPreSharedKey, nil), sni} }, "", "pre_shared_key"},
		{"pre_shared_key at the end", func(p *parts) { p.extensions = [][]byte{sni, extension(extPreSharedKey, make([]byte, 8000))} }, "a.example.com", ""},
		{"GREASE", func(p *parts) {
			p.suites = vec16([]byte{0x0a, 0x0a, 0x13, 0x01})
			p.extensions = [][]byte{extension(0x1a1a, nil), sni, extension(0x2a2a, []byte{0})}
		}, "a.example.com", ""},
		{"a thousand extensions", func(p *parts) { p.extensions = append([][]byte{sni}, many(1000)...) }, "a.example.com", ""},
		{"a thousand and the first again", func(p *parts) { p.extensions = append(append([][]byte{sni}, many(1000)...), sni) }, "", "twice"},
		{"a thousand and the last again", func(p *parts) {
			p.extensions = append(append([][]byte{sni}, many(1000)...), many(1000)[999])
		}, "", "twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := simple(sni)
			tt.edit(&p)
			h, err := parseAll(p.hello())
			if tt.want != "" {
				if err != nil || string(h.Name) != tt.want {
					t.Errorf("got %q, %v", h.Name, err)
				}
				return
			}
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q, %v, want %s", h.Name, err, tt.err)
			}
		})
	}
}

func many(n int) (exts [][]byte) {
	for i := range n {
		exts = append(exts, extension(uint16(1000+i), nil))
	}
	return exts
}

// Without the extension, or without any, there is no name; that is no error.
func TestParseNoName(t *testing.T) {
	for _, extensions := range [][][]byte{{}, {extension(10, nil)}} {
		wantName(t, simple(extensions...).hello(), "")
	}
}

// 3e/10: an encrypted hello is noticed, and routed by the outer name.
func TestParseECH(t *testing.T) {
	for _, tt := range []struct {
		data string
		want bool
	}{{"\x00\x00\x01", true}, {"\x01", false}, {"", false}} {
		h, err := parseAll(simple(name("outer.example"), extension(extECH, []byte(tt.data))).hello())
		if err != nil || h.ECH != tt.want || string(h.Name) != "outer.example" {
			t.Errorf("%q: got %+v, %v", tt.data, h, err)
		}
	}
}

// 3e/9: what a server name may be.
func TestParseName(t *testing.T) {
	long := strings.Repeat("a123456789.", 23) // 253 bytes
	for _, tt := range []struct{ name, want string }{
		{"a.example.com", "a.example.com"},
		{"EXAMPLE.com", "example.com"},
		{"example.com.", "example.com"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"_x.example.com", "_x.example.com"},
		{"_x", "_x"},
		{"localhost", "localhost"},
		{"1.2.3.4.example", "1.2.3.4.example"},
		{"0xyz.0xyz", "0xyz.0xyz"},
		{strings.Repeat("a", 63) + ".b", strings.Repeat("a", 63) + ".b"},
		{"b." + strings.Repeat("a", 63), "b." + strings.Repeat("a", 63)},
		{long[:253], long[:252]},
		{long[:251] + "bc", long[:251] + "bc"},
		{long[:251] + "bc.", long[:251] + "bc"},
		{long[:251] + "bcd", ""},
		{strings.Repeat("a", 64) + ".b", ""},
		{"b." + strings.Repeat("a", 64), ""},
		{"example.com..", ""},
		{".example.com", ""},
		{".", ""},
		{"..", ""},
		{"a..b", ""},
		{"127.0.0.1", ""},
		{"127.0.0.1.", ""},
		{"::1", ""},
		{"[::1]", ""},
		{"2130706433", ""},
		{"0x7f.1", ""},
		{"0x7F000001", ""},
		{"a.0x", ""},
		{"*", ""},
		{"*.example.com", ""},
		{"a.example.com\x00.evil.example", ""},
		{"a.example.com\x00", ""},
		{"b\u00fccher.example", ""},
		{"../x", ""},
		{"a/b.example", ""},
		{"a%00.example", ""},
		{"%00", ""},
		{"a b.example", ""},
		{"a.example.com:443", ""},
		{"user@a.example", ""},
		{"a.example.com\r\nHost: b", ""},
		{strings.Repeat("a", 65_000), ""},
	} {
		t.Run(fmt.Sprintf("%.40q", tt.name), func(t *testing.T) {
			p := simple(name(tt.name))
			h, err := parseAll(p.hello())
			switch {
			case tt.want == "" && !errors.Is(err, ErrMalformed):
				t.Errorf("got %q, %v, want it to be refused", h.Name, err)
			case tt.want != "" && (err != nil || string(h.Name) != tt.want):
				t.Errorf("got %q, %v, want %q", h.Name, err, tt.want)
			}
		})
	}
}
