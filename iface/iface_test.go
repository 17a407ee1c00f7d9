package iface

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// addrs reads "10.0.0.1 fd00::1": addresses that are ready, unless a mark says
// otherwise: ? not ready, - deprecated.
func addrs(list string) []address {
	var out []address
	for s := range strings.FieldsSeq(list) {
		ip := strings.TrimRight(s, "?-")
		out = append(out, address{
			ip:         netip.MustParseAddr(ip),
			ready:      !strings.Contains(s, "?"),
			deprecated: strings.Contains(s, "-"),
		})
	}
	return out
}

// words is how tests compare addresses.
func words(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

var (
	mac1 = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	mac2 = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	mac3 = net.HardwareAddr{2, 0, 0, 0, 0, 3}
)

// A host as they are: a loopback interface with a service address, two uplinks,
// a VLAN on the second, and a container bridge.
func testLinks() []link {
	return []link{
		{1, "lo", make(net.HardwareAddr, 6), true, true, addrs("127.0.0.1 10.9.9.9 ::1 fe80::9")},
		{2, "eth0", mac1, true, false, addrs("192.0.2.1 192.0.2.2- 192.0.2.3 169.254.1.1 2001:db8::1 2001:db8::2? 2001:db8::3- fe80::1")},
		{3, "eth1", mac2, false, false, addrs("198.51.100.1 2001:db8:1::1")},
		{4, "eth1.5", mac2, true, false, addrs("203.0.113.1")},
		{5, "docker0", mac3, true, false, addrs("172.17.0.1 fd00::1")},
		{6, "tun0", nil, true, false, nil},
	}
}

func TestHostInterface(t *testing.T) {
	h := newHost(testLinks(), [2][]string{})
	for name, want := range map[string]string{
		"lo":      "127.0.0.1 10.9.9.9 ::1",
		"eth0":    "192.0.2.1 192.0.2.3 2001:db8::1",
		"eth1":    "198.51.100.1 2001:db8:1::1", // down, and keeps its addresses
		"docker0": "172.17.0.1 fd00::1",
		"tun0":    "",
	} {
		got, err := h.Interface(name)
		if err != nil || words(got) != want {
			t.Errorf("%s: got %s, %v; want %s", name, words(got), err, want)
		}
	}
	for _, name := range []string{"", "eth", "eth00", "ETH0"} {
		if got, err := h.Interface(name); !errors.Is(err, ErrNoInterface) || got != nil {
			t.Errorf("%q: got %v, %v; want ErrNoInterface", name, got, err)
		}
	}
}

func TestHostMAC(t *testing.T) {
	h := newHost(testLinks(), [2][]string{})
	for _, tt := range []struct {
		hw   net.HardwareAddr
		want string
	}{
		{mac1, "192.0.2.1 192.0.2.3 2001:db8::1"},
		{mac2, "198.51.100.1 2001:db8:1::1 203.0.113.1"},
	} {
		got, err := h.MAC(tt.hw)
		if err != nil || words(got) != tt.want {
			t.Errorf("%s: got %s, %v; want %s", tt.hw, words(got), err, tt.want)
		}
	}
	for _, hw := range []net.HardwareAddr{nil, make(net.HardwareAddr, 6), {2, 0, 0, 0, 0, 9}} {
		if got, err := h.MAC(hw); !errors.Is(err, ErrNoInterface) || got != nil {
			t.Errorf("MAC %s: got %v, %v; want ErrNoInterface", hw, got, err)
		}
	}
}

func TestHostDefault(t *testing.T) {
	for _, tt := range []struct {
		name   string
		v4, v6 string // uplinks
		want   string
	}{
		{"one interface", "eth0", "eth0", "192.0.2.1 192.0.2.3 2001:db8::1"},
		{"each family its own", "eth0", "eth1", "192.0.2.1 192.0.2.3 2001:db8:1::1"},
		{"one family only", "eth1", "", "198.51.100.1"},
		{"two interfaces, by index", "eth1 eth0", "", "192.0.2.1 192.0.2.3 198.51.100.1"},
		{"an interface that is gone", "ppp0", "", ""},
		{"none: every interface that is up", "", "", "192.0.2.1 192.0.2.3 2001:db8::1 203.0.113.1 172.17.0.1 fd00::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(testLinks(), [2][]string{strings.Fields(tt.v4), strings.Fields(tt.v6)})
			if got := words(h.Default()); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestHostInherit(t *testing.T) {
	for _, tt := range []struct {
		name    string
		history []string // each snapshot's uplinks, "IPv4/IPv6"
		want    string   // the last one's, then
	}{
		{"never had one", []string{"/", "/"}, "/"},
		{"lost", []string{"eth0/eth0", "/"}, "eth0/eth0"},
		{"lost for long", []string{"eth0/", "/", "/", "/"}, "eth0/"},
		{"lost in one family", []string{"eth0/eth0", "/eth0"}, "eth0/eth0"},
		{"moved", []string{"eth0/", "/", "eth1/"}, "eth1/"},
		{"one of two lost", []string{"eth0 eth1/", "eth1/"}, "eth1/"},
		{"found", []string{"/", "eth0/"}, "eth0/"},
		{"lost in turn", []string{"eth0/eth0", "/eth0", "eth0/", "/"}, "eth0/eth0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var last *Host
			for _, s := range tt.history {
				v4, v6, _ := strings.Cut(s, "/")
				h := newHost(testLinks(), [2][]string{strings.Fields(v4), strings.Fields(v6)})
				if last != nil {
					h.inherit(last)
				}
				last = h
			}
			got := strings.Join(last.uplinks[ipv4], " ") + "/" + strings.Join(last.uplinks[ipv6], " ")
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestHostAddress(t *testing.T) {
	h := newHost(testLinks(), [2][]string{})
	for _, tt := range []struct {
		addr     string
		has, own bool
		link     string
	}{
		{"192.0.2.1", true, true, "eth0"},
		{"::ffff:192.0.2.1", true, true, "eth0"},
		{"192.0.2.2", true, true, "eth0"},    // deprecated
		{"2001:db8::2", false, true, "eth0"}, // tentative
		{"fe80::1", true, true, "eth0"},
		{"fe80::1%eth0", true, true, "eth0"},
		{"10.9.9.9", true, true, "lo"},
		{"127.0.0.1", true, false, "lo"},
		{"::1", true, false, "lo"},
		{"127.0.0.2", false, false, ""},
		{"198.51.100.1", true, true, "eth1"},
		{"203.0.113.99", false, false, ""},
	} {
		a := netip.MustParseAddr(tt.addr)
		if got := h.Has(a); got != tt.has {
			t.Errorf("Has(%s) = %t", a, got)
		}
		if got := h.Own(a); got != tt.own {
			t.Errorf("Own(%s) = %t", a, got)
		}
		if got := h.InterfaceOf(a); got != tt.link {
			t.Errorf("InterfaceOf(%s) = %q, want %q", a, got, tt.link)
		}
	}
	if h.Has(netip.Addr{}) || h.Own(netip.Addr{}) {
		t.Error("a host has the invalid address")
	}
}

// An address that two links have is that of the first one that can use it.
func TestHostSharedAddress(t *testing.T) {
	h := newHost([]link{
		{index: 1, name: "a", addrs: addrs("fd00::1?")},
		{index: 2, name: "b", addrs: addrs("fd00::1")},
		{index: 3, name: "c", addrs: addrs("fd00::1 fd00::2?")},
		{index: 4, name: "d", addrs: addrs("fd00::2?")},
	}, [2][]string{})
	one, two := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	if got := h.InterfaceOf(one); !h.Has(one) || got != "b" {
		t.Errorf("%s is on %s, usable: %t; want b, true", one, got, h.Has(one))
	}
	if got := h.InterfaceOf(two); h.Has(two) || got != "c" {
		t.Errorf("%s is on %s, usable: %t; want c, false", two, got, h.Has(two))
	}
}

func TestHostEqual(t *testing.T) {
	old := newHost(testLinks(), [2][]string{{"eth0"}})
	if !old.equal(newHost(testLinks(), [2][]string{{"eth0"}})) {
		t.Error("the same host is another")
	}
	for name, change := range map[string]func(h *Host){
		"uplink":     func(h *Host) { h.uplinks[ipv6] = []string{"eth0"} },
		"link":       func(h *Host) { h.links = h.links[:5] },
		"name":       func(h *Host) { h.links[1].name = "wan" },
		"MAC":        func(h *Host) { h.links[1].mac = mac2 },
		"down":       func(h *Host) { h.links[1].up = false },
		"address":    func(h *Host) { h.links[1].addrs = h.links[1].addrs[1:] },
		"order":      func(h *Host) { slices.Reverse(h.links[1].addrs) },
		"ready":      func(h *Host) { h.links[1].addrs[0].ready = false },
		"deprecated": func(h *Host) { h.links[1].addrs[0].deprecated = true },
	} {
		h := newHost(testLinks(), [2][]string{{"eth0"}})
		change(h)
		if old.equal(h) {
			t.Errorf("a change of %s is none", name)
		}
	}
}
