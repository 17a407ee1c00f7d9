// Package target reads the destinations that clients name, and judges them.
//
// Every front door has the same reader (Parse, ParseHost, FromAddrPort), so that
// a destination refused by CONNECT is refused by SOCKS5 too, and the same judge
// (Policy). Clients are not trusted: forms that resolvers and kernels are known to
// read differently ("2130706433", "0x7f.1", "127.1", "user@host") are refused here,
// before anything is asked of DNS.
//
// The package opens no socket and resolves no name. It decodes nothing: neither
// percent-encoding nor U-labels. The addresses it returns are to be dialed as they
// are; to resolve the name again would undo the judgment.
package target

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ErrMalformed is wrapped by what Parse, ParseHost and FromAddrPort return. Its
// text has a cause ("port", "host", ...) and nothing of what the client sent.
var ErrMalformed = errors.New("malformed target")

var (
	errPort     = fmt.Errorf("%w: port", ErrMalformed)
	errHost     = fmt.Errorf("%w: host", ErrMalformed)
	errBrackets = fmt.Errorf("%w: brackets", ErrMalformed)
	errLiteral  = fmt.Errorf("%w: address", ErrMalformed)
)

// Target is a destination that a client named, in canonical form. Exactly one of
// Name and Addr is set. Targets compare with ==.
type Target struct {
	Name string     // lower case, no trailing dot
	Addr netip.Addr // an IPv4-mapped address is IPv4 here; never with a zone
	Port uint16     // never zero
}

// Parse reads "host:port" or "[IPv6]:port", the authority of a CONNECT request.
// The port is mandatory.
func Parse(authority string) (Target, error) {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 {
		return Target{}, errPort
	}
	host := authority[:i]
	port, ok := parsePort(authority[i+1:])
	if !ok {
		return Target{}, errPort
	}
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		if host, ok = strings.CutSuffix(inner, "]"); !ok {
			return Target{}, errBrackets
		}
	}
	if isIPv6 := strings.Contains(host, ":"); isIPv6 != bracketed {
		return Target{}, errBrackets
	}
	return ParseHost(host, port)
}

// ParseHost reads a host that came without brackets and apart from its port, as in
// SOCKS5's domain form. An address in text is taken as the address.
func ParseHost(host string, port uint16) (Target, error) {
	if port == 0 {
		return Target{}, errPort
	}
	if strings.Contains(host, ":") || endsInNumber(host) {
		addr, err := netip.ParseAddr(host)
		if err != nil || addr.Zone() != "" {
			return Target{}, errLiteral
		}
		return Target{Addr: addr.Unmap(), Port: port}, nil
	}
	name, ok := canonicalName(host)
	if !ok {
		return Target{}, errHost
	}
	return Target{Name: name, Port: port}, nil
}

// FromAddrPort takes an address in binary, as in SOCKS5's address forms.
func FromAddrPort(ap netip.AddrPort) (Target, error) {
	switch {
	case ap.Port() == 0:
		return Target{}, errPort
	case !ap.Addr().IsValid(), ap.Addr().Zone() != "":
		return Target{}, errHost
	}
	return Target{Addr: ap.Addr().Unmap(), Port: ap.Port()}, nil
}

// String returns "host:port", which Parse reads as t again.
func (t Target) String() string { return string(t.append(nil)) }

// Text is String, and said itself when that says the same.
func (t Target) Text(said string) string {
	var b [300]byte
	if canonical := t.append(b[:0]); string(canonical) != said {
		return string(canonical)
	}
	return said
}

func (t Target) append(b []byte) []byte {
	if t.Addr.IsValid() {
		return netip.AddrPortFrom(t.Addr, t.Port).AppendTo(b)
	}
	b = append(append(b, t.Name...), ':')
	return strconv.AppendUint(b, uint64(t.Port), 10)
}

// Host returns the name or the address, without brackets and port. It is what
// "per target" means wherever sources take turns by target.
func (t Target) Host() string {
	if t.Addr.IsValid() {
		return t.Addr.String()
	}
	return t.Name
}

// parsePort reads a port in decimal. Not strconv or net: both take a sign or leading
// zeros, and net takes 4294967739 as 443.
func parsePort(s string) (port uint16, ok bool) {
	if len(s) < 1 || len(s) > 5 || s[0] == '0' {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return uint16(n), n <= 65535
}

// Limits of RFC 1035, section 2.3.4, on names in text without the trailing dot.
const (
	maxName  = 253
	maxLabel = 63
)

// canonicalName returns host in lower case and without its trailing dot, if every
// label is of letters, digits, hyphens and underscores. Whether the name exists,
// and whether an A-label decodes, is for DNS to say.
func canonicalName(host string) (name string, ok bool) {
	name = strings.TrimSuffix(host, ".")
	if name == "" || len(name) > maxName {
		return "", false
	}
	label := 0 // its length so far
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label = 0
		case isLetter(c), isDigit(c), c == '-', c == '_':
			if label++; label > maxLabel {
				return "", false
			}
		default:
			return "", false
		}
	}
	if label == 0 { // it ended in two dots
		return "", false
	}
	return strings.ToLower(name), true
}

// endsInNumber reports whether the last label of host is a number, decimal or
// hexadecimal. inet_aton takes such a host as an IPv4 address ("0x7f.1"), so it is
// one in dotted quads or nothing. See "ends in a number" in the WHATWG URL standard.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	digits, is := last, isDigit
	if len(last) >= 2 && last[0] == '0' && (last[1] == 'x' || last[1] == 'X') {
		digits, is = last[2:], isHex
	}
	for i := range len(digits) {
		if !is(digits[i]) {
			return false
		}
	}
	return last != ""
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isHex(c byte) bool    { return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
