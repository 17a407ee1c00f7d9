package proxyproto

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
)

const (
	signatureV1 = "PROXY "
	maxV1       = 107 // bytes of a line, with its CRLF
)

// ParseLax is Parse, but takes IPv4 addresses, plain or mapped into IPv6, in a line of
// version 1 that says TCP6. nginx's stream module writes such lines about connections
// to a socket that is for both families.
func ParseLax(b []byte) (h Header, n int, err error) {
	if len(b) > 0 && b[0] == signatureV1[0] {
		return parseV1(b, true)
	}
	return Parse(b)
}

func parseV1(b []byte, lax bool) (Header, int, error) {
	if err := startsWith(b, signatureV1); err != nil {
		return Header{}, 0, err
	}
	line, err := cutLine(b)
	if err != nil {
		return Header{}, 0, err
	}
	h, err := parseLine(line, lax)
	if err != nil {
		return Header{}, 0, err
	}
	return h, len(line) + len("\r\n"), nil
}

// cutLine returns what precedes the CRLF.
func cutLine(b []byte) ([]byte, error) {
	b = b[:min(len(b), maxV1)]
	i := bytes.IndexAny(b, "\r\n")
	switch {
	case i < 0 && len(b) < maxV1-1:
		return nil, ErrIncomplete
	case i < 0 || i == maxV1-1:
		return nil, fmt.Errorf("proxyproto: line longer than %d bytes", maxV1)
	case b[i] == '\n':
		return nil, fmt.Errorf("proxyproto: LF without CR: %q", b[:i])
	case i+1 == len(b):
		return nil, ErrIncomplete
	case b[i+1] != '\n':
		return nil, fmt.Errorf("proxyproto: CR without LF: %q", b[:i])
	}
	return b[:i], nil
}

func parseLine(line []byte, lax bool) (Header, error) {
	malformed := func() (Header, error) {
		return Header{}, fmt.Errorf("proxyproto: malformed line: %q", line)
	}
	f := bytes.Split(line, []byte(" "))
	family := string(f[1]) // signatureV1 ends with a space
	switch {
	case family == "UNKNOWN":
		return Header{Local: true}, nil // what follows is to be ignored
	case family != "TCP4" && family != "TCP6" || len(f) != 6:
		return malformed()
	}
	is4 := family == "TCP4"
	src, ok1 := parseAddr(f[2], f[4], is4, lax && !is4)
	dst, ok2 := parseAddr(f[3], f[5], is4, lax && !is4)
	if !ok1 || !ok2 {
		return malformed()
	}
	return Header{Src: src, Dst: dst}, nil
}

// parseAddr takes no IPv4 address for IPv6, also not mapped, unless either will do:
// then the two ends of the connection could be of different families.
func parseAddr(addr, port []byte, is4, either bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(string(addr))
	if either {
		a, is4 = a.Unmap(), a.Unmap().Is4()
	}
	if err != nil || a.Is4() != is4 || a.Is4In6() || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(string(port), 10, 16)
	if err != nil || strconv.FormatUint(p, 10) != string(port) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, uint16(p)), true
}

// AppendV1 appends h as a header of version 1 to b. What that version cannot say
// (datagrams, addresses of two families) it says as UNKNOWN, and TLVs not at all.
func AppendV1(b []byte, h Header) []byte {
	src, dst := plain(h.Src), plain(h.Dst)
	family := " TCP4 "
	switch {
	case h.Local, h.UDP, !src.IsValid(), !dst.IsValid(), src.Addr().Is4() != dst.Addr().Is4():
		return append(b, "PROXY UNKNOWN\r\n"...)
	case src.Addr().Is6():
		family = " TCP6 "
	}
	b = append(b, "PROXY"...)
	b = append(b, family...)
	b = src.Addr().AppendTo(b)
	b = append(b, ' ')
	b = dst.Addr().AppendTo(b)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(src.Port()), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(dst.Port()), 10)
	return append(b, "\r\n"...)
}
