package iface

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Read returns the host as it is now.
func Read() (*Host, error) {
	c, err := dial(bufSize)
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.host()
}

// hostTries is how often a dump that a change of the host interrupted is
// repeated at once. The dumps of most hosts fit one message, and cannot be.
const hostTries = 10

// host reads the whole host.
func (c *conn) host() (*Host, error) {
	var err error
	for range hostTries {
		r := newReader()
		if err = r.read(c); err == nil {
			return r.host(), nil
		}
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	return nil, err
}

// reader puts a Host together from the kernel's messages.
type reader struct {
	links   map[int32]*link // by index
	places  map[place]int   // where in its link's list an address is
	uplinks [2][]int32      // the indexes of the links that hold a default route
}

// place is an address on a link.
type place struct {
	link int32
	ip   netip.Addr
}

func newReader() *reader {
	return &reader{links: make(map[int32]*link), places: make(map[place]int)}
}

func (r *reader) read(c *conn) error {
	if err := c.dump(unix.RTM_GETLINK, r.link); err != nil {
		return err
	}
	if err := c.dump(unix.RTM_GETADDR, r.address); err != nil {
		return err
	}
	return c.dump(unix.RTM_GETROUTE, r.route)
}

func (r *reader) host() *Host {
	var links []link
	var uplinks [2][]string
	byIndex := func(a, b *link) int { return cmp.Compare(a.index, b.index) }
	for _, l := range slices.SortedFunc(maps.Values(r.links), byIndex) {
		links = append(links, *l)
		for f := range uplinks {
			if slices.Contains(r.uplinks[f], l.index) {
				uplinks[f] = append(uplinks[f], l.name)
			}
		}
	}
	return newHost(links, uplinks)
}

func (r *reader) link(m *syscall.NetlinkMessage) error {
	var head unix.IfInfomsg
	attrs, err := decode(m, &head)
	if err != nil {
		return err
	}
	l := &link{
		index:    head.Index,
		up:       head.Flags&unix.IFF_UP != 0,
		loopback: head.Flags&unix.IFF_LOOPBACK != 0,
	}
	for typ, value := range attributes(attrs) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(value)
		case unix.IFLA_ADDRESS:
			l.mac = slices.Clone(value)
		}
	}
	r.links[l.index] = l
	return nil
}

func (r *reader) address(m *syscall.NetlinkMessage) error {
	var head unix.IfAddrmsg
	attrs, err := decode(m, &head)
	if err != nil {
		return err
	}
	l := r.links[int32(head.Index)]
	if l == nil || head.Family != unix.AF_INET && head.Family != unix.AF_INET6 {
		return nil // the link is younger than the dump of links: there is an event to come
	}
	flags := uint32(head.Flags)
	var local, remote netip.Addr
	for typ, value := range attributes(attrs) {
		switch typ {
		case unix.IFA_FLAGS: // all of them; the header has room for eight
			if len(value) >= 4 {
				flags = binary.NativeEndian.Uint32(value)
			}
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS: // the peer's, when the link is point-to-point
			remote, _ = netip.AddrFromSlice(value)
		}
	}
	if !local.IsValid() {
		local = remote
	}
	if local.IsValid() {
		r.add(l, newAddress(local, flags))
	}
	return nil
}

// add adds an address to a link, once. The kernel lists an IPv4 address twice
// when it has two prefix lengths or two peers, and an IPv6 address when another
// one is added between two parts of the dump, which it then does not always call
// interrupted (seen on Linux 6.18).
func (r *reader) add(l *link, a address) {
	key := place{l.index, a.ip}
	i, ok := r.places[key]
	if !ok {
		r.places[key] = len(l.addrs)
		l.addrs = append(l.addrs, a)
		return
	}
	l.addrs[i].ready = l.addrs[i].ready || a.ready
	l.addrs[i].deprecated = l.addrs[i].deprecated && a.deprecated
}

func newAddress(ip netip.Addr, flags uint32) address {
	// An optimistic address may be used while it is tentative, RFC 4429.
	tentative := flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	failed := flags&unix.IFA_F_DADFAILED != 0
	return address{
		ip:         ip,
		ready:      !tentative && !failed,
		deprecated: flags&unix.IFA_F_DEPRECATED != 0,
	}
}

func (r *reader) route(m *syscall.NetlinkMessage) error {
	if !isDefault(m) {
		return nil
	}
	var head unix.RtMsg
	attrs, err := decode(m, &head)
	if err != nil {
		return err
	}
	if head.Type != unix.RTN_UNICAST {
		return nil
	}
	f := ipv4
	switch head.Family {
	case unix.AF_INET:
	case unix.AF_INET6:
		f = ipv6
	default:
		return nil
	}
	for typ, value := range attributes(attrs) {
		switch typ {
		case unix.RTA_OIF:
			if len(value) >= 4 {
				r.uplinks[f] = append(r.uplinks[f], int32(binary.NativeEndian.Uint32(value)))
			}
		case unix.RTA_MULTIPATH:
			r.uplinks[f] = append(r.uplinks[f], nexthops(value)...)
		}
	}
	return nil
}

// isDefault reports whether a route message is about a default route. A router
// may have a million others, so this is all that is looked at in those.
func isDefault(m *syscall.NetlinkMessage) bool {
	return len(m.Data) >= unix.SizeofRtMsg && m.Data[1] == 0 // rtm_dst_len
}

// nexthops returns the interfaces of a multipath route, a list of struct
// rtnexthop, but for those that the kernel has given up because the link is down.
func nexthops(list []byte) []int32 {
	var links []int32
	for len(list) >= unix.SizeofRtNexthop {
		var hop unix.RtNexthop
		if _, err := binary.Decode(list, binary.NativeEndian, &hop); err != nil {
			return links
		}
		if hop.Flags&unix.RTNH_F_DEAD == 0 {
			links = append(links, hop.Ifindex)
		}
		if int(hop.Len) < unix.SizeofRtNexthop {
			return links
		}
		list = list[min(align(int(hop.Len)), len(list)):]
	}
	return links
}
