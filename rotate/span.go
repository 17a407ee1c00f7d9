package rotate

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
)

// span is a prefix that is cut into parts, each of which counts as one source: sites
// count, and ban, all of an IPv6 /64 as one. The parts are numbered, so that none of
// them needs any memory: a /48 has 65,536 parts of 64 bits, a /32 four billion.
type span struct {
	base   netip.Addr
	length int // of the prefix, in bits
	spread int // of a part
}

func newSpan(p netip.Prefix, spread int) span {
	return span{p.Masked().Addr(), p.Bits(), max(spread, p.Bits())}
}

// width is how many bits an address has.
func (s span) width() int { return s.base.BitLen() }

// parts is how many there are. Of more than 2^63 the rest is not used.
func (s span) parts() uint64 { return 1 << min(s.spread-s.length, 63) }

// part returns the number of the nth part in the order in which they take turns:
// neighbors are far from each other, as the bits of the count are reversed.
func (s span) part(n uint64) uint64 {
	k := min(s.spread-s.length, 63)
	if k == 0 {
		return 0
	}
	return bits.Reverse64(n) >> (64 - k)
}

// usable reports whether a part has an address that may be used. One that is no more
// than an address is not when it is the first of the prefix, which is the
// subnet-router anycast address (RFC 4291, section 2.6.1) or the network's, or the
// last of IPv4, the broadcast address. Prefixes of one or two addresses have neither
// (RFC 6164, RFC 3021).
func (s span) usable(part uint64) bool {
	if s.spread < s.width() || s.length >= s.width()-1 {
		return true
	}
	return part != 0 && (s.base.Is6() || part != s.parts()-1)
}

// addr returns an address of a part. host chooses which: the same one gives the same
// address.
func (s span) addr(part uint64, host [2]uint64) netip.Addr {
	free := s.width() - s.spread
	hi, lo := shift(part, free)
	h := mask(host, free)
	if free > 1 && h == ([2]uint64{}) {
		h[1] = 1
	}
	if s.base.Is4() {
		if free > 1 && h[1] == 1<<free-1 {
			h[1]--
		}
		b := s.base.As4()
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(b[:])|uint32(lo|h[1]))))
	}
	b := s.base.As16()
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])|hi|h[0])
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])|lo|h[1])
	return netip.AddrFrom16(b)
}

// shift returns v * 2^n as 128 bits.
func shift(v uint64, n int) (hi, lo uint64) {
	if n >= 64 {
		return v << (n - 64), 0
	}
	return v >> (64 - n), v << n
}

// mask keeps the last n bits of v.
func mask(v [2]uint64, n int) [2]uint64 {
	if n < 64 {
		return [2]uint64{0, v[1] & (1<<n - 1)}
	}
	return [2]uint64{v[0] & (1<<(n-64) - 1), v[1]}
}

func randomHost() [2]uint64 { return [2]uint64{rand.Uint64(), rand.Uint64()} }

// partOf returns the number of the part that has a.
func (s span) partOf(a netip.Addr) uint64 {
	var hi, lo uint64
	if a.Is4() {
		b := a.As4()
		lo = uint64(binary.BigEndian.Uint32(b[:]))
	} else {
		b := a.As16()
		hi, lo = binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	}
	free := s.width() - s.spread
	var v uint64
	switch {
	case free >= 64:
		v = hi >> (free - 64)
	case free == 0:
		v = lo
	default:
		v = hi<<(64-free) | lo>>free
	}
	return v & (s.parts() - 1)
}
