// Package proxyproto turns PROXY protocol headers, which a load balancer puts in
// front of a connection or datagram to tell whose it is, into addresses and back:
// versions 1 and 2 (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt)
// and Cloudflare's Simple Proxy Protocol for UDP.
//
// It is as strict as the specification allows: a header is either valid as a whole
// or refused. It does not judge the addresses that a header names, nor who may
// send one.
package proxyproto

import (
	"errors"
	"net/netip"
)

// Header is what a header says.
type Header struct {
	// Local is true when the header names nobody: commands and families LOCAL,
	// UNKNOWN and UNSPEC. The peer that sent it is the client then.
	Local bool

	UDP  bool           // a header about datagrams
	Src  netip.AddrPort // the client; invalid if Local
	Dst  netip.AddrPort // where the client connected to; invalid if Local
	TLVs TLVs           // of version 2
}

// ErrIncomplete is returned while more bytes could make a valid header.
var ErrIncomplete = errors.New("proxyproto: incomplete header")

// Parse parses the header of version 1 or 2 that b begins with, and returns how
// many bytes it takes. What follows, also when it looks like another header, is
// payload. The TLVs of h point into b.
func Parse(b []byte) (h Header, n int, err error) {
	switch {
	case len(b) == 0:
		return Header{}, 0, ErrIncomplete
	case b[0] == signatureV1[0]:
		return parseV1(b, false)
	case b[0] == signatureV2[0]:
		return ParseV2(b)
	}
	return Header{}, 0, errNoHeader
}

var errNoHeader = errors.New("proxyproto: no header")

// startsWith tells whether b starts with signature: ErrIncomplete if it ends within.
func startsWith(b []byte, signature string) error {
	n := min(len(b), len(signature))
	switch {
	case string(b[:n]) != signature[:n]:
		return errNoHeader
	case n < len(signature):
		return ErrIncomplete
	}
	return nil
}

// Append appends h as a header of a version, which is 1 or 2, to b.
func Append(b []byte, version int, h Header) []byte {
	if version == 1 {
		return AppendV1(b, h)
	}
	return AppendV2(b, h)
}

// plain is ap as a header has it: an IPv4 address as such, and no zone.
func plain(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
