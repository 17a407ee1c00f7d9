package rotate

import (
	"net/netip"
	"slices"
	"strings"

	"swivel/internal/exit"
)

// Source is an address that connections can leave by, a prefix of which they can
// leave by any address, or another proxy that they can leave through.
type Source struct {
	Addr    netip.Addr        // that a connection is bound to; of a prefix, chosen anew for each; unspecified: the kernel chooses
	Prefix  netip.Prefix      // routed to this host; the zero Prefix: Addr is the source
	Exit    *exit.Proxy       // nil: Addr or Prefix is the source
	Spread  int               // how many bits of an address of Prefix count as one source, see span
	Standby int               // rank of those that are used only when none of a lower one can be
	Weight  int               // how often it is used in comparison to others; below 1 means 1
	Labels  map[string]string // what an operator says of it; not changed after Set

	// Free: no interface has Addr, it is routed to this host all the same, and
	// binding to it takes IP_FREEBIND.
	Free bool
}

// ID tells the sources of a pool apart.
type ID struct {
	Net  netip.Prefix // the address, as a prefix of all its bits; of a Prefix, the part that counts as one source
	Exit string       // the proxy, see exit.Proxy.String
}

// isBound reports whether connections are bound to an address.
func (s *Source) isBound() bool { return s.Addr.IsValid() && !s.Addr.IsUnspecified() }

// ID is what s is known by.
func (s *Source) ID() ID {
	switch {
	case s.Exit != nil:
		return ID{Exit: s.Exit.String()}
	case !s.Prefix.IsValid():
		return ID{Net: netip.PrefixFrom(s.Addr, s.Addr.BitLen())}
	case !s.Addr.IsValid():
		return ID{Net: s.Prefix}
	}
	part, _ := s.Addr.Prefix(s.Spread)
	return ID{Net: part}
}

func (id ID) String() string {
	if id.Exit != "" {
		return id.Exit
	}
	if id.Net.IsSingleIP() {
		return id.Net.Addr().String()
	}
	return id.Net.String()
}

// String is how s stands in logs, and how clients are told of it: the address that
// was chosen, or where the proxy is, or nothing when there is none.
func (s *Source) String() string {
	switch {
	case s.Exit != nil:
		return s.Exit.Addr()
	case s.Addr.IsValid():
		return s.Addr.String()
	case s.Prefix.IsValid():
		return s.Prefix.String()
	}
	return ""
}

// Want is a condition on the labels of a source: the label must be there and have
// one of the values, in upper or lower case.
type Want struct {
	Label  string
	Values []string
}

// is reports whether s is as all of wants say.
func (s *Source) is(wants []Want) bool {
	for _, w := range wants {
		if !s.has(w) {
			return false
		}
	}
	return true
}

func (s *Source) has(w Want) bool {
	for label, value := range s.Labels {
		if strings.EqualFold(label, w.Label) && slices.ContainsFunc(w.Values, func(v string) bool { return strings.EqualFold(v, value) }) {
			return true
		}
	}
	return false
}
