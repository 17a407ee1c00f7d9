package iface_test

import (
	"net/netip"
	"testing"

	"swivel/iface"
)

func TestLocalRoute(t *testing.T) {
	host, _ := newHost(t)
	host.Addr("va", "2001:db8::1/64")
	host.Batch(`route add default via 10.0.0.254
route add local 192.0.2.0/24 dev lo
route add local 2001:db8:1::/48 dev lo
route add blackhole 198.51.100.1
route add prohibit 198.51.100.2
route add unreachable 198.51.100.3
route add unreachable 2001:db8:2::/48
`)
	for addr, want := range map[string]bool{
		"127.0.0.1":           true,
		"127.8.9.10":          true,
		"10.0.0.1":            true,
		"::ffff:10.0.0.1":     true,
		"192.0.2.99":          true,
		"0.0.0.0":             true,
		"::":                  true,
		"::1":                 true,
		"2001:db8::1":         true,
		"2001:db8:1:2:3::4":   true,
		"10.0.0.2":            false,
		"203.0.113.1":         false,
		"224.0.0.1":           false,
		"198.51.100.1":        false,
		"198.51.100.2":        false,
		"198.51.100.3":        false,
		"2001:db8::2":         false,
		"2001:db8:2::1":       false,
		"2001:db8:3::1":       false, // no route at all
		"fe80::1234%whatever": false,
	} {
		err := host.Do(func() error {
			got, err := iface.LocalRoute(netip.MustParseAddr(addr))
			if err == nil && got != want {
				t.Errorf("LocalRoute(%s) = %t", addr, got)
			}
			return err
		})
		if err != nil {
			t.Errorf("LocalRoute(%s): %v", addr, err)
		}
	}
}

func TestAnswerRoute(t *testing.T) {
	host, _ := newHost(t)
	host.Batch(`route add default via 10.0.0.254
rule add from 127.0.0.1 iif lo ipproto udp sport 53 lookup 100
route add local default dev lo table 100
`)
	host.Run("ip", "-6", "rule", "add", "from", "::1", "iif", "lo", "ipproto", "udp", "sport", "50-53", "lookup", "100")
	host.Run("ip", "-6", "route", "add", "local", "default", "dev", "lo", "table", "100")
	for from, want := range map[string]bool{
		"127.0.0.1:53": true, "[::ffff:127.0.0.1]:53": true, "127.0.0.1:54": false, "127.0.0.2:53": false, "10.0.0.1:53": false,
		"[::1]:51": true, "[::1]:54": false,
	} {
		ap := netip.MustParseAddrPort(from)
		to := netip.MustParseAddr("192.0.2.1")
		if ap.Addr().Unmap().Is6() {
			to = netip.MustParseAddr("2001:db8::1")
		}
		err := host.Do(func() error {
			got, err := iface.AnswerRoute(to, ap)
			if err == nil && got != want {
				t.Errorf("AnswerRoute(%s, %s) = %t", to, from, got)
			}
			return err
		})
		if err != nil {
			t.Errorf("AnswerRoute(%s, %s): %v", to, from, err)
		}
	}
}
