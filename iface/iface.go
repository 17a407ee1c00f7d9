// Package iface says which addresses this host has, on which interfaces, which
// of them lead out, and when that changes.
//
// There is one watcher per process. Each change of the host gives a snapshot, a
// Host, that is never changed again; from it, each pool of source addresses
// selects its own: an interface by name or by MAC, or, by default, the
// interfaces that hold a default route.
//
// An address counts from the moment it can be bound, for IPv6 when duplicate
// address detection is done (RFC 4862, section 5.4), and is usable as a source
// until it is deprecated (section 5.5.4). A link that goes down keeps what the
// kernel lets it keep; no selection ever moves to another interface because its
// own is down or gone.
//
// The package reads rtnetlink(7) of the network namespace it is called in. It
// changes nothing there, and does not resolve names.
package iface

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
)

// ErrNoInterface is returned for an interface that this host does not have now.
var ErrNoInterface = errors.New("no such interface")

// Host is what the kernel said of this host's interfaces, addresses and default
// routes at one moment. It is never changed.
type Host struct {
	links   []link                // by index
	uplinks [2][]string           // by family, the interfaces of Default; see inherit
	at      map[netip.Addr]holder // derived from links
}

// link is a network interface.
type link struct {
	index    int32
	name     string
	mac      net.HardwareAddr
	up       bool // as set by the administrator, whatever the carrier
	loopback bool
	addrs    []address // as the kernel lists them: IPv4, then IPv6
}

// address is an address that is assigned to a link.
type address struct {
	ip         netip.Addr
	ready      bool // can be bound: neither tentative nor found to be a duplicate
	deprecated bool // not to be used for new connections
}

// holder is the link that has an address.
type holder struct {
	name  string
	ready bool
}

// The families, as indexes of Host.uplinks.
const (
	ipv4 = iota
	ipv6
)

func family(a netip.Addr) int {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// newHost returns the snapshot of these links, and of the names of those that
// hold a default route.
func newHost(links []link, uplinks [2][]string) *Host {
	h := &Host{links: links, uplinks: uplinks, at: make(map[netip.Addr]holder)}
	for _, l := range links {
		for _, a := range l.addrs {
			// Two links may have one address. The first link that can use it has it.
			if old, ok := h.at[a.ip]; !ok || a.ready && !old.ready {
				h.at[a.ip] = holder{l.name, a.ready}
			}
		}
	}
	return h
}

// Interface returns the usable addresses of the named interface, or
// ErrNoInterface. Those of 127.0.0.0/8 and ::1 are usable only here, on the
// loopback interface: it must be asked for by name.
func (h *Host) Interface(name string) ([]netip.Addr, error) {
	for _, l := range h.links {
		if l.name == name {
			return l.usable(l.loopback), nil
		}
	}
	return nil, fmt.Errorf("interface %q: %w", name, ErrNoInterface)
}

// MAC returns the usable addresses of the interface with that hardware address,
// or ErrNoInterface. Where several share it, as a VLAN and its parent do, it
// returns those of all.
func (h *Host) MAC(hw net.HardwareAddr) ([]netip.Addr, error) {
	var addrs []netip.Addr
	found := false
	for _, l := range h.links {
		// A tunnel has no MAC, and the loopback interface's, all zeros, names nothing.
		if bytes.Equal(l.mac, hw) && len(hw) > 0 && !l.loopback {
			addrs = append(addrs, l.usable(false)...)
			found = true
		}
	}
	if !found {
		return nil, fmt.Errorf("interface with MAC %s: %w", hw, ErrNoInterface)
	}
	return addrs, nil
}

// Default returns the addresses by which this host leaves when nothing else is
// said: the usable IPv4 addresses of the interfaces that hold an IPv4 default
// route, and IPv6 likewise. A container bridge holds none, and its address is no
// way out. Only a host without a default route in either family leaves by every
// interface that is up.
//
// In the snapshots of one Watch, a family that loses its last default route
// stays with the interfaces that held it: a link that flaps must not move the
// host's connections to addresses that were never meant for them.
func (h *Host) Default() []netip.Addr {
	var addrs []netip.Addr
	isolated := len(h.uplinks[ipv4]) == 0 && len(h.uplinks[ipv6]) == 0
	for _, l := range h.links {
		out := isolated && l.up && !l.loopback
		for _, a := range l.usable(false) {
			if out || slices.Contains(h.uplinks[family(a)], l.name) {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}

// Has reports whether a is assigned to an interface and can be bound. This is
// so for deprecated, link-local and loopback addresses, too: connections that
// use one live on.
func (h *Host) Has(a netip.Addr) bool { return h.at[plain(a)].ready }

// Own reports whether a is an address of this host, ready or not, that others
// might reach it by: any but those of 127.0.0.0/8 and ::1. LocalRoute also knows
// the addresses that no interface has.
func (h *Host) Own(a netip.Addr) bool {
	a = plain(a)
	_, ok := h.at[a]
	return ok && !a.IsLoopback()
}

// InterfaceOf returns the name of the interface that has a, or "".
func (h *Host) InterfaceOf(a netip.Addr) string { return h.at[plain(a)].name }

// plain returns a as snapshots spell it: an IPv4-mapped address is the IPv4
// address, and a zone is not part of it.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// usable returns the addresses of l that new connections may leave by.
func (l *link) usable(loopback bool) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range l.addrs {
		if a.ready && !a.deprecated && (a.ip.IsGlobalUnicast() || loopback && a.ip.IsLoopback()) {
			addrs = append(addrs, a.ip)
		}
	}
	return addrs
}

// inherit gives h the uplinks of the snapshot before for each family that has no
// default route now. They go from one snapshot to the next by name, since an
// interface that is made again has another index, until there is a default route.
func (h *Host) inherit(last *Host) {
	for f := range h.uplinks {
		if len(h.uplinks[f]) == 0 {
			h.uplinks[f] = last.uplinks[f]
		}
	}
}

// equal reports whether all methods of h and o answer the same.
func (h *Host) equal(o *Host) bool {
	return reflect.DeepEqual(h.links, o.links) && reflect.DeepEqual(h.uplinks, o.uplinks)
}
