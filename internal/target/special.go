package target

import "net/netip"

// metadataName is where Google's cloud serves the credentials of a host. It resolves
// to a link-local address, and a resolver on that host may say otherwise.
const metadataName = "metadata.google.internal"

// special4 is what is not public in IPv4: the IANA special-purpose registry
// (RFC 6890 and updates), multicast, and one address of a cloud.
var special4 = prefixes(
	"0.0.0.0/8",        // this network; Linux connects to loopback
	"10.0.0.0/8",       // private
	"100.64.0.0/10",    // carrier-grade NAT; 100.100.100.200 is Alibaba's metadata
	"127.0.0.0/8",      // loopback
	"168.63.129.16/32", // Azure's wire server, in a range that is public otherwise
	"169.254.0.0/16",   // link-local; 169.254.169.254 and others are metadata
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // protocol assignments; 192.0.0.192 is Oracle's metadata
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // 6to4 relays
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarking
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved, and broadcast
)

// unicast6 is all that IANA has given out as global unicast. Outside of it are
// loopback, IPv4-mapped, -compatible and -translated addresses, NAT64, unique local,
// link-local, site-local, multicast and segment routing. Go's IsGlobalUnicast is
// true for most of these.
var unicast6 = netip.MustParsePrefix("2000::/3")

// special6 is what is not public within unicast6.
var special6 = prefixes(
	"2001::/23",     // protocol assignments: Teredo, benchmarking, ORCHID
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4: the IPv4 address inside may be anything
	"3fff::/20",     // documentation
)

// special reports whether addr, which is unmapped, is not a public address.
func special(addr netip.Addr) bool {
	if addr.Is4() {
		return within(addr, special4)
	}
	return !unicast6.Contains(addr) || within(addr, special6) || isISATAP(addr)
}

// isISATAP reports whether the interface identifier embeds an IPv4 address
// (RFC 5214, section 6.1), which a tunnel of the host would send the packet to.
func isISATAP(addr netip.Addr) bool {
	b := addr.As16()
	return b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

func within(addr netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func prefixes(list ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(list))
	for i, s := range list {
		ps[i] = netip.MustParsePrefix(s)
	}
	return ps
}
