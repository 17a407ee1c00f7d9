package unwrap

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

var errSource = errors.New("source address refused")

// judge judges the address that a client claims, before it is dialed from. What is
// refused would be taken by the server for something that it trusts (this host), or
// could never be answered.
func (d *Door) judge(src, dst netip.AddrPort) error {
	if !src.IsValid() {
		return nil
	}
	a, why := src.Addr(), ""
	switch {
	case a.IsUnspecified():
		why = "unspecified" // bind(2) would take it for an address of this host
	case src == dst:
		why = "the target itself" // which would answer itself
	case slices.ContainsFunc(d.Allow, func(p netip.Prefix) bool { return p.Contains(a) }):
		return nil
	case a.IsLoopback():
		why = "loopback"
	case a.IsMulticast():
		why = "multicast"
	case a == broadcast:
		why = "broadcast"
	case a.Is6() && a.IsLinkLocalUnicast():
		why = "link-local"
	case src.Port() == 0:
		why = "port 0"
	case a == dst.Addr():
		why = "the target's own address"
	case d.Own != nil && d.Own(a):
		why = "an address of this host"
	default:
		return nil
	}
	return fmt.Errorf("%w: %v: %s", errSource, src, why)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
