//go:build linux

package main

import (
	"fmt"
	"net"
	"net/netip"

	"swivel/iface"
	"swivel/internal/config"
	"swivel/rotate"
)

func (f *found) lookPrefix() {
	if routed, err := prefixRouted(f.Prefix); err == nil && !routed {
		f.missing = fmt.Sprintf("it is not routed to this host (ip route add local %s dev lo)", f.Prefix)
		return
	}
	f.sources = []rotate.Source{{Prefix: f.Prefix, Spread: f.Spread, Weight: f.Weight, Labels: f.Labels, Free: true}}
}

// prefixRouted reports whether the kernel takes what is sent to addresses of p for
// this host's. Some of them are asked about: the first and the last one, which are not
// those of the network itself, and one in the middle.
func prefixRouted(p netip.Prefix) (bool, error) {
	first, last := p.Addr(), lastOf(p)
	probes := []netip.Addr{first, last}
	if p.Bits() < first.BitLen()-1 {
		half, _ := last.Prefix(p.Bits() + 1)
		probes = []netip.Addr{first.Next(), half.Addr(), last.Prev()}
	}
	for _, a := range probes {
		if routed, err := iface.LocalRoute(a); err != nil || !routed {
			return false, err
		}
	}
	return true, nil
}

// lastOf returns the last address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// onLink notes where neighbors have to find the addresses of an IPv6 prefix by
// themselves. The kernel answers ARP for all that has a local route, but Neighbor
// Discovery (RFC 4861) only for the addresses of its interfaces.
func (r *report) onLink(pool string, s config.Source) {
	if !s.Prefix.IsValid() || s.Prefix.Addr().Is4() {
		return
	}
	links, _ := net.Interfaces()
	for _, l := range links {
		if l.Flags&net.FlagLoopback == 0 && covers(l, s.Prefix) {
			r.note(fmt.Sprintf("have it routed to this host, or run ndppd with  proxy %s { rule %s { static } }", l.Name, s.Prefix),
				"pool %s: prefix %s is on the link of %s: this host does not tell its neighbors that the addresses are here", pool, s.Prefix, l.Name)
		}
	}
}

// covers reports whether the network of one of l's addresses has all of p.
func covers(l net.Interface, p netip.Prefix) bool {
	addrs, _ := l.Addrs()
	for _, a := range addrs {
		n, err := netip.ParsePrefix(a.String())
		if err == nil && n.Bits() <= p.Bits() && n.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
