package target

import (
	"net/netip"
	"testing"
)

func TestRule(t *testing.T) {
	for _, tt := range []struct {
		rule      string
		match, no []string // targets
	}{
		{"10.0.0.0/8", []string{"10.0.0.0:1", "10.255.255.255:443", "[::ffff:10.1.1.1]:1"}, []string{"11.0.0.0:1", "[::a00:1]:1", "a.10.example:1"}},
		{"10.1.2.3", []string{"10.1.2.3:1", "10.1.2.3:2"}, []string{"10.1.2.4:1"}},
		{"10.1.2.3/32:443", []string{"10.1.2.3:443"}, []string{"10.1.2.3:80", "10.1.2.4:443"}},
		{"10.1.2.3:443", []string{"10.1.2.3:443"}, []string{"10.1.2.3:80"}},
		{"::ffff:10.1.2.3", []string{"10.1.2.3:443"}, []string{"10.1.2.4:443"}},
		{"fd00::/8", []string{"[fd12::1]:1"}, []string{"[fc00::1]:1", "10.0.0.1:1"}},
		{"[fd00::/8]:443", []string{"[fd12::1]:443"}, []string{"[fd12::1]:80"}},
		{"[fd00::1]:443", []string{"[fd00::1]:443"}, []string{"[fd00::2]:443", "[fd00::1]:444"}},
		{"fd00::1:443", []string{"[fd00::1:443]:1"}, []string{"[fd00::1]:443"}},
		{"::/0", []string{"[2606::1]:1", "[::1]:1"}, []string{"127.0.0.1:1"}},
		{"Example.COM.", []string{"example.com:1"}, []string{"a.example.com:1", "example.com.a:1", "aexample.com:1"}},
		{"example.com:8443", []string{"example.com:8443"}, []string{"example.com:443"}},
		{"*.Example.com", []string{"a.example.com:1", "a.b.example.com:1"}, []string{"example.com:1", "aexample.com:1", "a.example.com.b:1"}},
		{"*.example.com:8443", []string{"a.example.com:8443"}, []string{"a.example.com:443"}},
		{"*", []string{"a:1", "a.example.com:443"}, []string{"10.0.0.1:1", "[::1]:1"}},
		{"*:443", []string{"a:443"}, []string{"a:80", "10.0.0.1:443"}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			r, err := ParseRule(tt.rule)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range tt.match {
				if !match(r, mustParse(t, s)) {
					t.Errorf("does not match %s", s)
				}
			}
			for _, s := range tt.no {
				if match(r, mustParse(t, s)) {
					t.Errorf("matches %s", s)
				}
			}
		})
	}
	t.Run("zero matches nothing", func(t *testing.T) {
		for _, s := range []string{"a:1", "10.0.0.1:1", "[::]:1"} {
			if match(Rule{}, mustParse(t, s)) {
				t.Errorf("matches %s", s)
			}
		}
	})
}

func match(r Rule, t Target) bool {
	return r.matchName(t) || r.matchAddr(netip.AddrPortFrom(t.Addr, t.Port))
}

func TestParseRuleErrors(t *testing.T) {
	for _, s := range []string{
		"", ":443", "*.", "*.*", "a.*", "**", "*a", "a..b", "bücher.example", "a b", "a@b", "-\x00",
		"10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "1.2.3", "2130706433", "0x7f.1", "10.0.0.0/8:0", "10.0.0.0/8:", "a:0443", "a:65536",
		"fd00::/129", "fd00::1/8", "::ffff:0:0/96", "fe80::1%eth0", "[fd00::/8", "[fd00::/8]", "[fd00::/8]443", "[fd00::/8]:", "[a]:443", "[10.0.0.0/8]:443",
		"*.10.0.0.1", "fe80::%eth0/64", "/8", "a/8",
	} {
		if r, err := ParseRule(s); err == nil {
			t.Errorf("ParseRule(%q) = %+v, want an error", s, r)
		}
	}
}

func TestParsePorts(t *testing.T) {
	for s, want := range map[string]PortRange{
		"443":       {443, 443},
		"8000-8999": {8000, 8999},
		"1-65535":   {1, 65535},
		"80-80":     {80, 80},
	} {
		if got, err := ParsePorts(s); err != nil || got != want {
			t.Errorf("ParsePorts(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "-", "0", "1-", "-1", "0-1", "2-1", "1-65536", "1-2-3", "080", "+80", " 80", "80 ", "https"} {
		if got, err := ParsePorts(s); err == nil {
			t.Errorf("ParsePorts(%q) = %v, want an error", s, got)
		}
	}
}
