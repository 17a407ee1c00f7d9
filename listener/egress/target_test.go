package egress_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

const (
	denied    = "403 destination_ip_prohibited"
	badTarget = "400 http_request_error bad target"
)

// The cases of the requirements' table 3a, as a CONNECT shows them: the policy is
// the default one, on every port.
var refusedTargets = []struct {
	id      string
	want    string
	targets string
}{
	{"1", denied, "127.0.0.1:443 127.255.255.254:443 [::1]:443"},
	{"2", badTarget, "2130706433:443 0x7f000001:443 017700000001:443 0x7f.0.0.1:443 0177.0.0.1:443 127.1:443 " +
		"127.0.1:443 127.0.0.01:443 0:443 0x0a000001:443"},
	{"3", badTarget, "127.0.0.1.:443 256.1.1.1:443 1.2.3.4.5:443 1.1.1.1/32:443"},
	{"4", denied, "0.0.0.0:443 [::]:443"},
	{"4", badTarget, ":443"},
	{"5", denied, "[::ffff:127.0.0.1]:443 [::ffff:a9fe:a9fe]:443 [0:0:0:0:0:ffff:10.0.0.1]:443"},
	{"6", denied, "[::7f00:1]:443 [::127.0.0.1]:443 [::ffff:0:7f00:1]:443"},
	{"7", denied, "[64:ff9b::a9fe:a9fe]:443 [64:ff9b:1::1]:443"},
	{"8", denied, "[2002:7f00:1::]:443 [2001:0:1::1]:443 [2620::5efe:7f00:1]:443"},
	{"9", badTarget, "[fe80::1%eth0]:443 [fe80::1%25eth0]:443 [::1%lo]:443 [2606::1%x]:443"},
	{"10", denied, "10.0.0.1:443 172.16.0.1:443 192.168.0.1:443 [fc00::1]:443 [fec0::1]:443"},
	{"11", denied, "100.64.0.1:443 100.100.100.200:443"},
	{"12", denied, "169.254.169.254:443 169.254.170.2:443 [fd00:ec2::254]:443 [fd20:ce::254]:443 168.63.129.16:443"},
	{"12", "403 http_request_denied name", "metadata.google.internal:443"},
	{"13", denied, "198.18.0.1:443 192.0.0.1:443 192.0.2.1:443 198.51.100.1:443 203.0.113.1:443 192.88.99.1:443 " +
		"240.0.0.1:443 255.255.255.255:443 224.0.0.1:443 0.1.2.3:443"},
	{"14", denied, "[ff02::1]:443 [100::1]:443 [2001:db8::1]:443 [3fff::1]:443 [5f00::1]:443 [2001:2::1]:443 " +
		"[2001:10::1]:443 [2001:20::1]:443"},
	{"15", denied, "localhost:443 LOCALHOST.:443 a.localhost:443"},
	{"16", badTarget, "user@127.0.0.1:443 a@b:443 user:" + marker + "@h:443"},
	{"17", badTarget, "a%2eb:443 %31%32%37.0.0.1:443 %61:443"},
	{"18", badTarget, "a/b:443 a?:443 a#:443 a\\b:443 a,b:443 a;b:443"},
	{"21", badTarget, "example.com..:443 .example.com:443 .:443 a..b:443"},
	{"22", badTarget, strings.Repeat("a", 64) + ".test:443 " + strings.Repeat("a.", 127) + "test:443 " + strings.Repeat("a", 7<<10) + ":443"},
	{"23", badTarget, "[example.com]:443 [127.0.0.1]:443 [::1:443 ::1:443 [[::1]]:443"},
	{"24", badTarget, "a:0 a: a:65536 a:4294967739 a:-1 a:+443 a:0443 a:0x1bb a:https a:99999999999999999999 a"},
}

func TestConnectRefusesTarget(t *testing.T) {
	r := newRig(t, func(r *rig) { r.Policy.Allow = nil })
	for _, tt := range refusedTargets {
		for _, target := range strings.Fields(tt.targets) {
			t.Run("3a/"+tt.id+" "+target[:min(len(target), 40)], func(t *testing.T) {
				in := "CONNECT " + target + " HTTP/1.1\r\nHost: a\r\n\r\n"
				if got, want := r.talk(t, in, 64<<10), refusal(tt.want); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				l := r.line(t)
				if l.Reason != reasonOf(tt.want) || l.Attempts != 0 || (l.Target == "") != (tt.want == badTarget) {
					t.Errorf("line: %+v", l)
				}
			})
		}
	}
	wantNothingDone(t, r, newOrigin(t))
}

// Names are judged by what they lead to, which nobody learns.
func TestConnectJudgesAddresses(t *testing.T) {
	private := netip.MustParseAddr("10.0.0.1")
	o := newOrigin(t)
	for _, tt := range []struct {
		id, target, want string
		change           func(*rig)
	}{
		{"15 a name of /etc/hosts", "ip6-localhost:443", "502 dns_error no such name", nil},
		{"20 an A-label that does not decode", "xn--a:443", "502 dns_error no such name", nil},
		{"25 port", "example.com:25", "403 http_request_denied port", func(r *rig) { r.Policy.Ports = nil }},
		{"26 private", "a.test:443", denied, func(r *rig) { r.dns.Set("a.test", private) }},
		{"28 public A and loopback AAAA", "a.test:443", denied, func(r *rig) { r.dns.Set("a.test", private, netip.IPv6Loopback()) }},
		{"30 by name", "canary.test:443", "502 proxy_loop_detected", func(r *rig) { r.Policy.Loop = isLoopback }},
		{"30 mapped", "[::ffff:127.0.0.2]:443", "502 proxy_loop_detected", func(r *rig) { r.Policy.Loop = isLoopback }},
		{"32 one of our sources", "192.0.2.7:50000", denied, func(r *rig) {
			r.Policy.Allow = rules(t, "192.0.2.0/24")
			r.Policy.Own = func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.7") }
		}},
		{"33 another port than the rule's", "127.0.0.1:444", "403 http_request_denied port", func(r *rig) {
			r.Policy.Ports = nil
			r.Policy.Allow = rules(t, "127.0.0.1:"+fmt.Sprint(o.Port()))
		}},
		{"33 deny beats allow", "127.0.0.1:443", denied, func(r *rig) { r.Policy.Deny = rules(t, "127.0.0.1") }},
	} {
		t.Run("3a/"+tt.id, func(t *testing.T) {
			r := newRig(t, tt.change)
			if got, want := r.talk(t, connectHead(tt.target), 64<<10), refusal(tt.want); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if l := r.line(t); l.Reason != reasonOf(tt.want) || l.Attempts != 0 || strings.Contains(l.Error, "10.0.0.1") {
				t.Errorf("line: %+v", l)
			}
		})
	}
	o.untouched(t)
}

func isLoopback(ap netip.AddrPort) bool { return ap.Addr().IsLoopback() }

// Of the addresses that a name has, only those are dialed that may be, and they are
// not asked for again.
func TestConnectDialsJudgedAddress(t *testing.T) {
	o := newOrigin(t)
	for _, tt := range []struct {
		id, target string
		change     func(*rig)
	}{
		{"5 mapped", fmt.Sprintf("[::ffff:127.0.0.1]:%d", o.Port()), nil},
		{"21 upper case and a dot", fmt.Sprintf("CANARY.Test.:%d", o.Port()), nil},
		{"27 private beside a usable one", fmt.Sprintf("both.test:%d", o.Port()), func(r *rig) {
			r.dns.Set("both.test", netip.MustParseAddr("10.0.0.1"), loopback)
		}},
		{"33 with exactly that port", o.String(), func(r *rig) {
			r.Policy.Ports = nil
			r.Policy.Allow = rules(t, o.String())
		}},
	} {
		t.Run("3a/"+tt.id, func(t *testing.T) {
			r := newRig(t, tt.change)
			c := r.dial(t)
			send(t, c, connectHead(tt.target))
			if got := readHead(t, c); got != established(o.String(), "127.0.0.2") {
				t.Errorf("got %q", got)
			}
			reset(c)
			o.accept(t)
			if l := r.line(t); l.Address != o.String() || l.Attempts != 1 {
				t.Errorf("line: %+v", l)
			}
			if n := len(r.dns.Queries()); n > 2 { // A and AAAA
				t.Errorf("%d questions to DNS", n)
			}
		})
	}
}
