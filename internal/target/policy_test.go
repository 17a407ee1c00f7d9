package target

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestSpecial holds the rows of 3a that are about addresses: each is refused by the
// zero Policy, on the default ports, in text and behind a name.
func TestSpecial(t *testing.T) {
	for _, tt := range []struct {
		id    string
		addrs []string
	}{
		{"3a/1 loopback", []string{"127.0.0.1", "127.255.255.254", "::1"}},
		{"3a/4 unspecified", []string{"0.0.0.0", "::"}},
		{"3a/5 mapped", []string{"::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "0:0:0:0:0:ffff:10.0.0.1"}},
		{"3a/6 compatible and translated", []string{"::7f00:1", "::127.0.0.1", "::808:808", "::ffff:0:7f00:1", "::ffff:0:808:808"}},
		{"3a/7 NAT64", []string{"64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::1"}},
		{"3a/8 6to4", []string{"2002:7f00:1::", "2002:808:808::1"}},
		{"3a/8 Teredo", []string{"2001:0:4136:e378::1"}},
		{"3a/8 ISATAP", []string{"2606:4700::5efe:7f00:1", "2606:4700::200:5efe:808:808"}},
		{"3a/10 private", []string{"10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255", "fc00::1", "fdff::1", "fec0::1"}},
		{"3a/11 carrier-grade NAT", []string{"100.64.0.0", "100.127.255.255", "100.100.100.200"}},
		{"3a/12 metadata", []string{"169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fd20:ce::254", "168.63.129.16"}},
		{"3a/13 special IPv4", []string{
			"198.18.0.0", "198.19.255.255", "192.0.0.0", "192.0.0.192", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
			"240.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.255", "0.1.2.3",
		}},
		{"3a/14 special IPv6", []string{
			"ff02::1", "ff0e::1", "100::1", "2001:db8::1", "3fff::1", "3fff:fff::1", "5f00::1", "2001:2::1", "2001:10::1", "2001:20::1",
			"2001:1ff:ffff::1", "fe80::1", "4000::1", "1fff::1",
		}},
	} {
		t.Run(tt.id, func(t *testing.T) {
			for _, s := range tt.addrs {
				ap := netip.AddrPortFrom(netip.MustParseAddr(s), 443)
				literal, err := FromAddrPort(ap)
				if err != nil {
					t.Fatal(err)
				}
				checkResolve(t, &Policy{}, literal, nil, nil, ErrAddress)
				checkResolve(t, &Policy{}, Target{Name: "a.example", Port: 443}, []string{s}, nil, ErrAddress)

				allow := Policy{Allow: rules(t, ap.Addr().Unmap().String())}
				checkResolve(t, &allow, literal, nil, []string{literal.Host()}, nil)
			}
		})
	}
}

func TestPublic(t *testing.T) {
	for _, s := range []string{
		"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "168.63.129.15", "169.253.255.255",
		"172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "198.17.255.255", "198.20.0.0", "223.255.255.255",
		"2001:200::1", "2001:db7::1", "2606:4700::1111", "2003::1", "3fff:1000::1", "2a00::5eff:1:1",
	} {
		checkResolve(t, &Policy{}, mustParse(t, netip.AddrPortFrom(netip.MustParseAddr(s), 443).String()), nil, []string{s}, nil)
	}
	t.Run("3a/5 mapped is judged as IPv4", func(t *testing.T) {
		checkResolve(t, &Policy{}, mustParse(t, "[::ffff:1.1.1.1]:443"), nil, []string{"1.1.1.1"}, nil)
		checkResolve(t, &Policy{}, mustParse(t, "a:443"), []string{"::ffff:1.1.1.1"}, []string{"1.1.1.1"}, nil)
	})
}

func TestJudgeName(t *testing.T) {
	p := Policy{Allow: rules(t, "10.0.0.0/8:8443", "open.example:8080", "ok.localhost", "metadata.google.internal"), Deny: rules(t, "*.bad.example")}
	for _, tt := range []struct {
		target string
		want   error
	}{
		{"a.example:443", nil},
		{"a.example:80", nil},
		{"a.example:8080", ErrPort},
		{"a.example:8443", ErrPort}, // open to 10.0.0.0/8 alone, and that is not known
		{"open.example:8080", nil},
		{"x.bad.example:443", ErrName},
		{"localhost:443", ErrAddress},
		{"a.localhost:443", ErrAddress},
		{"ok.localhost:443", nil},
		{"metadata.google.internal:80", nil},
	} {
		if got := p.JudgeName(mustParse(t, tt.target)); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.target, got, tt.want)
		}
	}
	if got := new(Policy).JudgeName(Target{Name: metadataName, Port: 80}); got != ErrName {
		t.Errorf("%s: got %v", metadataName, got)
	}
}

func TestPolicy(t *testing.T) {
	own := func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.5") || a.IsLoopback() }
	loop := func(ap netip.AddrPort) bool { return ap.Port() == 8080 && ap.Addr().IsLoopback() }

	for _, tt := range []struct {
		id     string
		policy Policy
		target string
		answer []string // of lookup; nil: lookup must not be called
		want   []string
		err    error
	}{
		{"3a/12 metadata name", Policy{}, "metadata.google.internal.:80", nil, nil, ErrName},
		{"3a/12 metadata name is not opened by a prefix", Policy{Allow: rules(t, "169.254.0.0/16")}, "metadata.google.internal:80", nil, nil, ErrName},
		{"3a/12 metadata name is opened by name", Policy{Allow: rules(t, "metadata.google.internal")}, "metadata.google.internal:80", []string{"169.254.169.254"}, []string{"169.254.169.254"}, nil},
		{"3a/15 localhost", Policy{}, "LOCALHOST.:443", []string{"127.0.0.1", "::1"}, nil, ErrAddress},
		{"3a/15 localhost is opened by prefix", Policy{Allow: rules(t, "127.0.0.0/8")}, "a.localhost:443", []string{"::1", "127.0.0.1"}, []string{"127.0.0.1"}, nil},
		{"3a/21 the list sees the canonical name", Policy{Deny: rules(t, "example.com")}, "EXAMPLE.Com.:443", nil, nil, ErrName},
		{"3a/25 port of an address", Policy{}, "1.1.1.1:25", nil, nil, ErrPort},
		{"3a/25 port of a name, before DNS", Policy{}, "a:22", nil, nil, ErrPort},
		{"3a/25 port before address", Policy{}, "10.0.0.1:22", nil, nil, ErrPort},
		{"3a/25 Ports replace the default", Policy{Ports: []PortRange{{8000, 8999}}}, "1.1.1.1:443", nil, nil, ErrPort},
		{"3a/25 last of a range", Policy{Ports: []PortRange{{1, 2}, {8000, 8999}}}, "1.1.1.1:8999", nil, []string{"1.1.1.1"}, nil},
		{"3a/26 only private", Policy{}, "a:443", []string{"10.0.0.1", "fd00::1"}, nil, ErrAddress},
		{"3a/27 private among public", Policy{}, "a:443", []string{"2606::1", "10.0.0.1", "1.1.1.1"}, []string{"2606::1", "1.1.1.1"}, nil},
		{"3a/29 no more than 16", Policy{}, "a:443", many(4096), many(16), nil},
		{"3a/30 loop", Policy{Loop: loop}, "127.0.0.2:8080", nil, nil, ErrLoop},
		{"3a/30 loop before port and allow", Policy{Loop: loop, Allow: rules(t, "127.0.0.0/8")}, "127.0.0.1:8080", nil, nil, ErrLoop},
		{"3a/30 loop by mapped address", Policy{Loop: loop}, "[::ffff:127.0.0.1]:8080", nil, nil, ErrLoop},
		{"3a/30 loop by name", Policy{Loop: loop, Allow: rules(t, "a:8080")}, "a:8080", []string{"127.0.0.1", "10.0.0.1"}, []string{"10.0.0.1"}, nil},
		{"3a/30 nothing but loops", Policy{Loop: loop, Ports: []PortRange{{8080, 8080}}}, "a:8080", []string{"127.0.0.1", "10.0.0.1"}, nil, ErrLoop},
		{"3a/30 other port of loopback", Policy{Loop: loop, Allow: rules(t, "127.0.0.0/8")}, "127.0.0.1:443", nil, []string{"127.0.0.1"}, nil},
		{"3a/32 own address", Policy{Own: func(netip.Addr) bool { return true }}, "1.1.1.1:443", nil, nil, ErrAddress},
		{"3a/32 own address in a wide prefix", Policy{Own: own, Allow: rules(t, "10.0.0.0/8")}, "10.0.0.5:443", nil, nil, ErrAddress},
		{"3a/32 neighbor in a wide prefix", Policy{Own: own, Allow: rules(t, "10.0.0.0/8")}, "10.0.0.6:443", nil, []string{"10.0.0.6"}, nil},
		{"3a/32 own address alone", Policy{Own: own, Allow: rules(t, "10.0.0.5/32")}, "10.0.0.5:443", nil, []string{"10.0.0.5"}, nil},
		{"3a/32 own address by exact name", Policy{Own: own, Allow: rules(t, "a")}, "a:443", []string{"10.0.0.5"}, []string{"10.0.0.5"}, nil},
		{"3a/32 own address by suffix", Policy{Own: own, Allow: rules(t, "*.a")}, "b.a:443", []string{"10.0.0.5", "10.0.0.6"}, []string{"10.0.0.6"}, nil},
		{"3a/32 loopback is never own", Policy{Own: own, Allow: rules(t, "127.0.0.0/8")}, "127.0.0.1:443", nil, []string{"127.0.0.1"}, nil},
		{"3a/33 rule with a port", Policy{Allow: rules(t, "10.1.2.3/32:443")}, "10.1.2.3:443", nil, []string{"10.1.2.3"}, nil},
		{"3a/33 its other port", Policy{Allow: rules(t, "10.1.2.3/32:443")}, "10.1.2.3:80", nil, nil, ErrAddress},
		{"3a/33 opens a port that is not listed", Policy{Allow: rules(t, "10.1.2.3:8443")}, "10.1.2.3:8443", nil, []string{"10.1.2.3"}, nil},
		{"3a/33 for that destination only", Policy{Allow: rules(t, "10.1.2.3:8443")}, "1.1.1.1:8443", nil, nil, ErrPort},
		{"3a/33 for a name that leads there", Policy{Allow: rules(t, "10.1.2.3:8443")}, "a:8443", []string{"1.1.1.1", "10.1.2.3"}, []string{"10.1.2.3"}, nil},
		{"3a/33 for a name that does not", Policy{Allow: rules(t, "10.1.2.3:8443")}, "a:8443", []string{"1.1.1.1"}, nil, ErrPort},
		{"3a/33 rule by name with a port", Policy{Allow: rules(t, "a:8443")}, "a:8443", []string{"10.0.0.1"}, []string{"10.0.0.1"}, nil},
		{"3a/33 rule without a port opens none", Policy{Allow: rules(t, "10.0.0.0/8", "a")}, "a:8443", nil, nil, ErrPort},
		{"3a/33 deny beats allow by prefix", Policy{Allow: rules(t, "10.0.0.0/8"), Deny: rules(t, "10.1.0.0/16")}, "10.1.2.3:443", nil, nil, ErrAddress},
		{"3a/33 deny beats allow by name", Policy{Allow: rules(t, "a"), Deny: rules(t, "10.1.0.0/16")}, "a:443", []string{"10.1.2.3", "10.2.0.1"}, []string{"10.2.0.1"}, nil},
		{"3a/33 deny of a port", Policy{Deny: rules(t, "1.1.1.0/24:80")}, "1.1.1.1:443", nil, []string{"1.1.1.1"}, nil},
		{"deny by suffix", Policy{Allow: rules(t, "*"), Deny: rules(t, "*.internal.example")}, "a.b.internal.example:443", nil, nil, ErrName},
		{"deny of every name leaves addresses", Policy{Deny: rules(t, "*")}, "1.1.1.1:443", nil, []string{"1.1.1.1"}, nil},
		{"every name is no address", Policy{Allow: rules(t, "*")}, "10.0.0.1:443", nil, nil, ErrAddress},
		{"lookup says nothing", Policy{}, "a:443", []string{}, nil, ErrAddress},
		{"zone of an answer does not hide it", Policy{Allow: rules(t, "a"), Deny: rules(t, "fe80::/10")}, "a:443", []string{"fe80::1%eth0"}, nil, ErrAddress},
	} {
		t.Run(tt.id, func(t *testing.T) {
			checkResolve(t, &tt.policy, mustParse(t, tt.target), tt.answer, tt.want, tt.err)
		})
	}
	t.Run("zero Target", func(t *testing.T) {
		checkResolve(t, &Policy{}, Target{}, nil, nil, ErrPort)
		checkResolve(t, &Policy{}, Target{Port: 443}, nil, nil, ErrAddress)
	})
}

func TestResolveOnce(t *testing.T) {
	t.Run("3a/28 a second answer is never asked for", func(t *testing.T) {
		calls := 0
		got, err := new(Policy).Resolve(t.Context(), mustParse(t, "a:443"), func(context.Context, string) ([]netip.Addr, error) {
			calls++
			return []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("::1")}, nil
		})
		if want := []netip.AddrPort{netip.MustParseAddrPort("1.1.1.1:443")}; err != nil || !slices.Equal(got, want) || calls != 1 {
			t.Errorf("got %v, %v after %d lookups, want %v after 1", got, err, calls, want)
		}
	})
}

func TestResolveLookupError(t *testing.T) {
	want := errors.New("no server")
	got, err := new(Policy).Resolve(t.Context(), mustParse(t, "a:443"), func(context.Context, string) ([]netip.Addr, error) {
		return nil, want
	})
	if got != nil || !errors.Is(err, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// checkResolve resolves to, for which lookup answers with answer, and fails if lookup
// is called though answer is nil.
func checkResolve(t *testing.T, p *Policy, to Target, answer, want []string, wantErr error) {
	t.Helper()
	got, err := p.Resolve(t.Context(), to, func(_ context.Context, name string) ([]netip.Addr, error) {
		if answer == nil || name != to.Name {
			t.Errorf("%v: lookup of %q", to, name)
		}
		var addrs []netip.Addr
		for _, s := range answer {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		return addrs, nil
	})
	if !errors.Is(err, wantErr) {
		t.Errorf("Resolve(%v) of %v: %v, want %v", to, answer, err, wantErr)
	}
	if err != nil && strings.ContainsAny(err.Error(), "0123456789") {
		t.Errorf("Resolve(%v): %q discloses an address", to, err)
	}
	var hosts []string
	for _, ap := range got {
		hosts = append(hosts, ap.Addr().String())
		if ap.Port() != to.Port {
			t.Errorf("Resolve(%v): port of %v", to, ap)
		}
	}
	if !slices.Equal(hosts, want) {
		t.Errorf("Resolve(%v) of %v = %v, want %v", to, answer, hosts, want)
	}
}

func rules(t testing.TB, list ...string) []Rule {
	t.Helper()
	var rs []Rule
	for _, s := range list {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	return rs
}

func many(n int) (addrs []string) {
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("1.1.%d.%d", i/256, i%256))
	}
	return addrs
}

func BenchmarkPolicy(b *testing.B) {
	p := Policy{
		Allow: rules(b, "127.0.0.0/8", "*.example.com"),
		Deny:  rules(b, "*.internal.example", "203.0.114.0/24"),
		Own:   func(netip.Addr) bool { return false },
		Loop:  func(netip.AddrPort) bool { return false },
	}
	answer := []netip.Addr{netip.MustParseAddr("2606:4700::1111"), netip.MustParseAddr("1.1.1.1")}
	lookup := func(context.Context, string) ([]netip.Addr, error) { return answer, nil }

	b.Run("judge", func(b *testing.B) {
		b.ReportAllocs()
		ap := netip.MustParseAddrPort("1.1.1.1:443")
		for b.Loop() {
			if err := p.judge(ap, grant{port: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, s := range []string{"1.1.1.1:443", "www.example.org:443"} {
		b.Run(s, func(b *testing.B) {
			b.ReportAllocs()
			to := mustParse(b, s)
			for b.Loop() {
				if _, err := p.Resolve(b.Context(), to, lookup); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// An original destination is judged by what is denied and by its port alone.
func TestPass(t *testing.T) {
	p := Policy{
		Deny:  rules(t, "10.9.0.0/16", "bad.example", "*.worse.example", "10.1.0.1:8443"),
		Allow: rules(t, "10.1.0.0/16:25", "mail.example:26"),
		Ports: []PortRange{{443, 443}, {8000, 8999}},
		Own:   func(netip.Addr) bool { return true },
		Loop:  func(ap netip.AddrPort) bool { return ap.String() == "10.0.0.1:443" },
	}
	for _, tt := range []struct {
		to, name string
		want     error
	}{
		{"10.1.0.1:443", "", nil},
		{"127.0.0.1:443", "a.example", nil},
		{"[fe80::1]:8443", "", nil},
		{"169.254.169.254:443", "", nil},
		{"10.9.0.1:443", "", ErrAddress},
		{"10.1.0.1:8443", "", ErrAddress},
		{"10.1.0.1:443", "bad.example", ErrName},
		{"10.1.0.1:443", "a.bad.example", nil},
		{"10.1.0.1:443", "a.worse.example", ErrName},
		{"10.1.0.1:80", "", ErrPort},
		{"10.1.0.1:25", "", nil},
		{"10.2.0.1:25", "", ErrPort},
		{"10.2.0.1:26", "mail.example", nil},
		{"10.2.0.1:26", "", ErrPort},
		{"10.0.0.1:443", "", ErrLoop},
	} {
		if err := p.Pass(netip.MustParseAddrPort(tt.to), tt.name); err != tt.want {
			t.Errorf("%s as %q: got %v, want %v", tt.to, tt.name, err, tt.want)
		}
	}
}
