package target

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

var (
	label63 = strings.Repeat("a", 63)
	name253 = strings.Repeat(label63+".", 3) + strings.Repeat("b", 61)
)

func TestParse(t *testing.T) {
	for _, tt := range []struct{ id, in, want string }{
		{"3a/1 address", "127.0.0.1:443", "127.0.0.1:443"},
		{"3a/5 mapped is IPv4", "[::ffff:127.0.0.1]:443", "127.0.0.1:443"},
		{"3a/5 mapped in hex", "[::ffff:a9fe:a9fe]:80", "169.254.169.254:80"},
		{"3a/5 mapped in full", "[0:0:0:0:0:ffff:10.0.0.1]:80", "10.0.0.1:80"},
		{"3a/6 IPv4-compatible stays IPv6", "[::127.0.0.1]:80", "[::7f00:1]:80"},
		{"3a/20 A-label that does not decode", "xn--a:443", "xn--a:443"},
		{"3a/20 hyphens and underscores", "_x.-a-.xn--:443", "_x.-a-.xn--:443"},
		{"3a/21 upper case", "EXAMPLE.Com:443", "example.com:443"},
		{"3a/21 trailing dot", "example.com.:443", "example.com:443"},
		{"3a/22 longest label", label63 + ":443", label63 + ":443"},
		{"3a/22 longest name", name253 + ":443", name253 + ":443"},
		{"3a/22 longest name and dot", name253 + ".:443", name253 + ":443"},
		{"3a/24 least port", "a:1", "a:1"},
		{"3a/24 greatest port", "a:65535", "a:65535"},
		{"number that is not the last label", "1.2.3.4.example:1", "1.2.3.4.example:1"},
		{"label that is nearly hex", "a.0xg:1", "a.0xg:1"},
		{"IPv6", "[2606:4700::1111]:443", "[2606:4700::1111]:443"},
		{"IPv6 in upper case", "[2606:4700:0:0:0:0:0:ABCD]:443", "[2606:4700::abcd]:443"},
	} {
		t.Run(tt.id, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err != nil {
				t.Fatalf("Parse(%q): %v", tt.in, err)
			}
			if got.String() != tt.want {
				t.Errorf("Parse(%q) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

func TestParseMalformed(t *testing.T) {
	for _, tt := range []struct {
		id, cause string
		in        []string
	}{
		{"3a/2 number for a host", "address", []string{
			"2130706433:443", "0x7f000001:443", "0X7F000001:443", "017700000001:443", "0x7f.0.0.1:443", "0177.0.0.1:443",
			"127.1:443", "127.0.1:443", "127.0.0.01:443", "0:443", "0x0a000001:443", "0x:443", "a.0x1:443", "a.b.1:443", "a.1.:443",
		}},
		{"3a/3 nearly an address", "address", []string{"127.0.0.1.:443", "256.1.1.1:443", "1.2.3.4.5:443"}},
		{"3a/3 prefix", "host", []string{"1.1.1.1/32:443"}},
		{"3a/4 empty host", "host", []string{":443"}},
		{"3a/9 zone", "address", []string{"[fe80::1%eth0]:443", "[fe80::1%25eth0]:443", "[::1%lo]:443", "[2606::1%x]:443", "[::1%]:443", "[::ffff:1.1.1.1%x]:443"}},
		{"3a/16 userinfo", "host", []string{"user@a:443", "user@:443"}},
		{"3a/16 userinfo before an address", "address", []string{"user@127.0.0.1:443"}},
		{"3a/16 userinfo with a password", "brackets", []string{"user:pw@h:443"}},
		{"3a/17 percent", "host", []string{"a%2eb:443", "%31%32%37.0.0.a:443", "%61:443", "%:443"}},
		{"3a/18 bytes that no name has", "host", []string{
			"a\x00b:443", "a b:443", " a:443", "a :443", "a\tb:443", "a\rb:443", "a\nb:443", "a\x7fb:443",
			"/a:443", "a?b:443", "a#b:443", `a\b:443`, "a,b:443", "a;b:443", "a\"b:443", "a*:443",
		}},
		{"3a/19 beyond ASCII", "host", []string{"①②⑦.⓪.⓪.①:443", "ｅxample.com:443", "bücher.example:443", "ⓔ:443", "a。b:443", "\xff:443"}},
		{"3a/21 dots", "host", []string{"example.com..:443", ".example.com:443", ".:443", "a..b:443"}},
		{"3a/22 long", "host", []string{label63 + "a:443", name253 + "b:443", strings.Repeat("a.", 5000) + "a:443"}},
		{"3a/23 brackets", "brackets", []string{"[example.com]:443", "[127.0.0.1]:443", "::1:443", "[]:443", "[::1x:443", "::1]:443", "[::1"}},
		{"3a/23 brackets in brackets", "address", []string{"[[::1]]:443", "[::1]]:443", "[::1]a]:443", "[1.2.3.4:5]:443"}},
		{"3a/24 ports", "port", []string{
			"a:0", "a:", "a:65536", "a:4294967739", "a:-1", "a:+443", "a:0443", "a:443 ", "a: 443", "a:0x1bb", "a:https", "a:４４３",
			"a:99999999999999999999", "a", "", "[::1]", "a:1_0", "a:443\n", "a:00",
		}},
	} {
		t.Run(tt.id, func(t *testing.T) {
			for _, in := range tt.in {
				got, err := Parse(in)
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("Parse(%q) = %v, %v, want %v", in, got, err, ErrMalformed)
					continue
				}
				if want := ErrMalformed.Error() + ": " + tt.cause; err.Error() != want {
					t.Errorf("Parse(%q): %q, want %q", in, err, want)
				}
			}
		})
	}
}

func TestParseHost(t *testing.T) {
	for _, tt := range []struct{ host, want string }{
		{"example.com", "example.com:443"},
		{"127.0.0.1", "127.0.0.1:443"},
		{"::1", "[::1]:443"},
		{"::ffff:127.0.0.1", "127.0.0.1:443"},
		{"", ""},
		{"2130706433", ""},
		{"0x7f.1", ""},
		{"[::1]", ""},
		{"::1%lo", ""},
		{"a\x00b", ""},
		{"example.com:443", ""},
		{strings.Repeat("a", 255), ""},
	} {
		t.Run("3d/6 "+tt.host[:min(len(tt.host), 20)], func(t *testing.T) {
			got, err := ParseHost(tt.host, 443)
			if tt.want == "" {
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("ParseHost(%q) = %v, %v, want %v", tt.host, got, err, ErrMalformed)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("ParseHost(%q) = %v, %v, want %v", tt.host, got, err, tt.want)
			}
		})
	}
	t.Run("3d/7 port 0", func(t *testing.T) {
		if _, err := ParseHost("example.com", 0); !errors.Is(err, ErrMalformed) {
			t.Errorf("got %v, want %v", err, ErrMalformed)
		}
	})
}

func TestFromAddrPort(t *testing.T) {
	for _, tt := range []struct {
		in   netip.AddrPort
		want string
	}{
		{netip.MustParseAddrPort("192.0.2.1:443"), "192.0.2.1:443"},
		{netip.MustParseAddrPort("[::ffff:192.0.2.1]:443"), "192.0.2.1:443"},
		{netip.MustParseAddrPort("[2001:db8::1]:443"), "[2001:db8::1]:443"},
		{netip.MustParseAddrPort("192.0.2.1:0"), ""},
		{netip.MustParseAddrPort("[fe80::1%eth0]:443"), ""},
		{netip.AddrPort{}, ""},
	} {
		got, err := FromAddrPort(tt.in)
		if tt.want == "" {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("FromAddrPort(%v) = %v, %v, want %v", tt.in, got, err, ErrMalformed)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("FromAddrPort(%v) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
	}
}

func TestHost(t *testing.T) {
	for in, want := range map[string]string{
		"EXAMPLE.com.:443":       "example.com",
		"[::ffff:192.0.2.1]:443": "192.0.2.1",
		"[2001:db8::1]:443":      "2001:db8::1",
	} {
		if got := mustParse(t, in).Host(); got != want {
			t.Errorf("Host of %s = %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"example.com:443", "EXAMPLE.com.:80", "127.0.0.1:443", "127.1:443", "0x7f.1:1", "[::1]:443", "[::ffff:10.0.0.1]:1",
		"[fe80::1%eth0]:443", "[[::1]]:443", "::1:443", "a@b:443", "a%2eb:443", "a:0443", "a:4294967739", "a\x00b:1",
		"ｅxample.com:443", ":443", "[]:443", "_x.xn--a:65535", "a..b:1", "[example.com]:443", label63 + "x:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || got != (Target{}) {
				t.Fatalf("Parse(%q) = %v, %v", s, got, err)
			}
			return
		}
		if (got.Name != "") == got.Addr.IsValid() || got.Port == 0 || got.Addr.Is4In6() || got.Addr.Zone() != "" {
			t.Fatalf("Parse(%q) = %#v, not canonical", s, got)
		}
		canonical := got.String()
		for _, c := range []byte(canonical) {
			if c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' {
				t.Fatalf("Parse(%q) = %q, has byte %#x", s, canonical, c)
			}
		}
		if again, err := Parse(canonical); err != nil || again != got {
			t.Fatalf("Parse(%q) = %v, %v, want %v", canonical, again, err, got)
		}
		if again, err := ParseHost(got.Host(), got.Port); err != nil || again != got {
			t.Fatalf("ParseHost(%q) = %v, %v, want %v", got.Host(), again, err, got)
		}
		host, _, err := net.SplitHostPort(s)
		if err != nil {
			t.Fatalf("Parse accepts %q, net.SplitHostPort does not: %v", s, err)
		}
		if again, err := ParseHost(host, got.Port); err != nil || again != got {
			t.Fatalf("ParseHost(%q) = %v, %v, Parse says %v", host, again, err, got)
		}
	})
}

func mustParse(t testing.TB, s string) Target {
	t.Helper()
	got, err := Parse(s)
	if err != nil {
		t.Fatalf("Parse(%q): %v", s, err)
	}
	return got
}

func BenchmarkParse(b *testing.B) {
	for _, in := range []string{"www.example.com:443", "203.0.113.9:443", "[2001:db8::1]:443"} {
		b.Run(in, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ said, want string }{
		{"example.com:443", "example.com:443"},
		{"EXAMPLE.com.:443", "example.com:443"},
		{"[2001:DB8::1]:80", "[2001:db8::1]:80"},
		{"192.0.2.1:80", "192.0.2.1:80"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
	} {
		got, err := Parse(tt.said)
		if err != nil {
			t.Fatal(err)
		}
		if text := got.Text(tt.said); text != tt.want || text != got.String() {
			t.Errorf("%s: got %s, want %s", tt.said, text, tt.want)
		}
	}
}
