package rules

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"swivel/internal/netlab"
	"swivel/internal/target"
)

func ports(list ...string) (all []target.PortRange) {
	for _, s := range list {
		p, err := target.ParsePorts(s)
		if err != nil {
			panic(err)
		}
		all = append(all, p)
	}
	return all
}

func at(list ...string) (all []netip.AddrPort) {
	for _, s := range list {
		all = append(all, netip.MustParseAddrPort(s))
	}
	return all
}

var everywhere = at("0.0.0.0:8443", "[::]:8443")

// sets are all that the kernel is asked to load.
var sets = []struct {
	name string
	set  Set
}{
	{"router", Set{Captures: []Capture{{Name: "web", Ports: ports("443", "80"), To: everywhere}}}},
	{"every port", Set{Captures: []Capture{{Name: "web", Ports: ports("1-65535"), To: everywhere}}}},
	{"many ports", Set{Captures: []Capture{{Name: "web", To: everywhere, Ports: ports("1", "3", "5", "7", "9", "11", "13", "15", "17", "19", "21", "23", "25", "27", "1000-1999", "2001", "3000-3999")}}}},
	{"router by tproxy", Set{Captures: []Capture{{Name: "web", TProxy: true, Ports: ports("443"), To: everywhere}}}},
	{"router, both ways", Set{Captures: []Capture{
		{Name: "a", Ports: ports("443"), To: everywhere},
		{Name: "b", TProxy: true, Ports: ports("80"), To: at("0.0.0.0:8080", "[::]:8080")},
	}}},
	{"one address", Set{Captures: []Capture{{Name: "web", Ports: ports("443"), To: at("10.0.0.1:8443", "10.0.0.2:8443")}}}},
	{"an address of each family", Set{Captures: []Capture{{Name: "web", Ports: ports("443"), To: at("127.0.0.1:8443", "[2001:db8::1]:8443")}}}},
	{"tproxy to an address of each family", Set{Captures: []Capture{{Name: "web", TProxy: true, Ports: ports("443"), To: at("127.0.0.1:8443", "[::1]:8444")}}}},
	{"a name that needs care", Set{Captures: []Capture{{Name: "a \"b\" `c` $d ü " + strings.Repeat("x", 200), Ports: ports("443"), To: everywhere}}}},
	{"sidecar, by user", Set{Captures: []Capture{{Name: "web", Ports: ports("443", "80"), To: everywhere}}, Exclude: Exclude{"uid", 1000}}},
	{"sidecar, by mark", Set{Captures: []Capture{{Name: "web", Ports: ports("1-65535"), To: at("127.0.0.1:8443", "[::1]:8443")}}, Exclude: Exclude{"mark", 7}}},
	{"unwrap to others", Set{Unwraps: []Unwrap{
		{Name: "game", To: netip.MustParsePrefix("10.6.0.2/32"), Ports: ports("25565", "2000-2100")},
		{Name: "game", UDP: true, To: netip.MustParsePrefix("fd00:6::2/128"), Ports: ports("25565")},
	}}},
	{"unwrap to loopback", Set{Unwraps: []Unwrap{{Name: "mail", To: netip.MustParsePrefix("127.0.0.1/32"), Ports: ports("25")}}}},
	{"unwrap to any destination", Set{Unwraps: []Unwrap{
		{Name: "any", To: netip.MustParsePrefix("0.0.0.0/0"), Ports: ports("1-65535")}, {Name: "any", To: netip.MustParsePrefix("::/0")},
	}}},
	{"all at once", Set{
		Captures: []Capture{{Name: "a", Ports: ports("443"), To: everywhere}, {Name: "b", TProxy: true, Ports: ports("80"), To: at("0.0.0.0:8080", "[::]:8080")}},
		Unwraps:  []Unwrap{{Name: "game", To: netip.MustParsePrefix("10.6.0.2/32"), Ports: ports("25565")}},
	}},
	{"all at once, sidecar", Set{
		Captures: []Capture{{Name: "b", TProxy: true, Ports: ports("80"), To: everywhere}},
		Unwraps:  []Unwrap{{Name: "game", To: netip.MustParsePrefix("10.6.0.2/32"), Ports: ports("25565")}},
		Exclude:  Exclude{"uid", 1000},
	}},
	{"sidecar by tproxy", Set{Captures: []Capture{{Name: "web", TProxy: true, Ports: ports("443"), To: everywhere}}, Exclude: Exclude{"uid", 0}}},
}

// What is printed loads as it is, again over whatever was loaded before, and is
// removed by the command that it names.
func TestLoads(t *testing.T) {
	for _, program := range []string{"nft", "iptables", "ip6tables"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	ns := netlab.New(t).Namespace("host")
	empty := map[string]string{"nft": state(ns, "nft"), "iptables": state(ns, "iptables")}
	for _, format := range []string{"nft", "iptables"} {
		for _, tt := range sets {
			t.Run(format+", "+tt.name, func(t *testing.T) {
				text := text(t, format, tt.set)
				load(ns, format, text)
				first := state(ns, format)
				load(ns, format, text)
				if again := state(ns, format); again != first {
					t.Errorf("loaded once:\n%s\nloaded twice:\n%s", first, again)
				}
				remove(ns, format)
				load(ns, format, text)
				if alone := state(ns, format); alone != first {
					t.Errorf("loaded after others:\n%s\nloaded alone:\n%s", first, alone)
				}
				for _, u := range tt.set.Unwraps {
					if !u.Loaded(first) {
						t.Errorf("%s: not found in\n%s", u.Name, first)
					}
				}
				for _, c := range tt.set.Captures {
					if !c.Loaded(first) {
						t.Errorf("%s: not found in\n%s", c.Name, first)
					}
					c.Ports = append(ports("65535"), c.Ports...)
					if c.Loaded(first) {
						t.Errorf("%s: found with other ports", c.Name)
					}
				}
			})
		}
		remove(ns, format)
		if left := state(ns, format); format == "nft" && left != empty[format] || strings.Contains(left, "SWIVEL") {
			t.Errorf("what is removed by %s leaves\n%s", removals[format], left)
		}
	}
}

func text(t *testing.T, format string, s Set) string {
	t.Helper()
	write := s.NFT
	if format == "iptables" {
		write = s.IPTables
	}
	text, err := write()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "#   remove:               "+removals[format]+"\n") {
		t.Errorf("does not say how it is removed:\n%s", text)
	}
	return text
}

var removals = map[string]string{"nft": nftRemove, "iptables": iptablesRemove}

func remove(ns *netlab.Namespace, format string) {
	ns.Run("sh", "-c", removals[format]+"; true") // it fails where there is nothing
}

func load(ns *netlab.Namespace, format, text string) {
	if format == "nft" {
		ns.Nft(text)
		return
	}
	ns.Run("sh", "-c", text)
}

func state(ns *netlab.Namespace, format string) string {
	if format == "nft" {
		return ns.Run("nft", "list", "ruleset")
	}
	// Counters and the time are not part of the rules.
	return ns.Run("sh", "-c", "{ iptables-save; ip6tables-save; } | grep -v '^#' | sed 's/\\[.*\\]//'")
}

func TestRefuses(t *testing.T) {
	web := Capture{Name: "web", Ports: ports("443"), To: everywhere}
	with := func(change func(c *Capture)) Set {
		c := web
		change(&c)
		return Set{Captures: []Capture{c}}
	}
	for _, tt := range []struct {
		set  Set
		want string
	}{
		{Set{}, "no listener needs rules of the kernel (transparent: redirect or tproxy, or mode unwrap)"},
		{Set{Captures: []Capture{web}, Exclude: Exclude{"mark", Mark}}, "mark 0x5357: is used by the rules themselves"},
		{with(func(c *Capture) { c.Ports = nil }), "listener web: it captures no port"},
		{with(func(c *Capture) { c.To = at("0.0.0.0:0") }), "listener web: port 0 is another each time (give it a port)"},
		{with(func(c *Capture) { c.To = at("[::1]:8443") }), "listener web: nothing that is forwarded can be sent to ::1 (listen on :8443)"},
		{Set{Captures: []Capture{web, {Name: "b", Ports: ports("1-79", "400-500"), To: everywhere}}}, "listeners web and b: both capture port 443"},
	} {
		for _, write := range []func() (string, error){tt.set.NFT, tt.set.IPTables} {
			if text, err := write(); err == nil || err.Error() != tt.want || text != "" {
				t.Errorf("got %v, %q; want %s", err, text, tt.want)
			}
		}
	}
}

func TestParseExclude(t *testing.T) {
	for s, want := range map[string]Exclude{"uid:0": {"uid", 0}, "uid:1000": {"uid", 1000}, "mark:7": {"mark", 7}, "mark:0x10": {"mark", 16}} {
		if got, err := ParseExclude(s); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "uid", "uid:", "uid:x", "uid:-1", "uid:01", "uid:4294967296", "mark:0", "gid:1", "uid:1 ", "uid:1:2", "7"} {
		if got, err := ParseExclude(s); err == nil {
			t.Errorf("%q: accepted as %v", s, got)
		}
	}
}

func TestLocalNet(t *testing.T) {
	for _, tt := range []struct {
		to      string
		exclude Exclude
		want    bool
	}{
		{"127.0.0.1:8443", Exclude{}, true},
		{"127.0.0.1:8443", Exclude{"uid", 1}, false},
		{"10.0.0.1:8443", Exclude{}, false},
		{"0.0.0.0:8443", Exclude{}, false},
	} {
		s := Set{Captures: []Capture{{Name: "web", Ports: ports("443"), To: at(tt.to)}}, Exclude: tt.exclude}
		text, err := s.NFT()
		if got := s.LocalNet(); err != nil || got != tt.want || strings.Contains(text, LocalNetCommand) != tt.want {
			t.Errorf("%v, %v: got %t, want %t; %v\n%s", tt.to, tt.exclude, got, tt.want, err, text)
		}
	}
}

func ExampleSet_NFT() {
	s := Set{Captures: []Capture{{Name: "web", Ports: ports("443", "80"), To: everywhere}}}
	text, _ := s.NFT()
	fmt.Print(text)
	// Output:
	// #!/usr/sbin/nft -f
	// # Brings to swivel the connections that this host forwards.
	// #
	// #   load, or load again:  swivel rules … | nft -f -
	// #   remove:               nft delete table inet swivel
	//
	// table inet swivel
	// delete table inet swivel
	// table inet swivel {
	// 	chain redirect_prerouting {
	// 		type nat hook prerouting priority -100; policy accept;
	// 		fib daddr type local return
	// 		tcp dport { 443, 80 } redirect to :8443 comment "swivel web f552392a"
	// 	}
	// }
}
