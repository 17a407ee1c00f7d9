package target

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Rule is one entry of an allow or deny list. It matches addresses by prefix, or
// names, on every port or on one. The zero Rule matches nothing.
type Rule struct {
	prefix netip.Prefix // valid: the rule is by address
	name   string       // the rule is by this name,
	sub    bool         // or by those below it; below "" is every name
	port   uint16       // zero: every port
}

// ParseRule reads a rule of a configuration:
//
//	10.0.0.0/8       addresses, by prefix
//	10.1.2.3         one address
//	example.com      one name
//	*.example.com    the names below it at any depth, not itself
//	*                every name; a client that gives an address gives no name
//
// Each may end in a port (10.0.0.0/8:443, example.com:8443), for which IPv6 needs
// brackets ([fd00::/8]:443).
func ParseRule(s string) (Rule, error) {
	host, port, err := splitRule(s)
	if err != nil {
		return Rule{}, fmt.Errorf("rule %q: %w", s, err)
	}
	r := Rule{port: port}
	if strings.ContainsAny(host, ":/") || endsInNumber(host) {
		r.prefix, err = parsePrefix(host)
	} else {
		r.name, r.sub, err = parseNames(host)
	}
	if err != nil {
		return Rule{}, fmt.Errorf("rule %q: %w", s, err)
	}
	return r, nil
}

// splitRule cuts the port off a rule, and the brackets that come with one.
func splitRule(s string) (host string, port uint16, err error) {
	var text string
	inner, bracketed := strings.CutPrefix(s, "[")
	switch {
	case bracketed:
		host, text, _ = strings.Cut(inner, "]")
		var hasPort bool
		if text, hasPort = strings.CutPrefix(text, ":"); !hasPort || !strings.Contains(host, ":") {
			return "", 0, errors.New("brackets are for IPv6 with a port, as in [fd00::/8]:443")
		}
	case strings.Count(s, ":") == 1:
		host, text, _ = strings.Cut(s, ":")
	default:
		return s, 0, nil // no colon, or IPv6
	}
	port, ok := parsePort(text)
	if !ok {
		return "", 0, errors.New("a port is 1 to 65535")
	}
	return host, port, nil
}

// parsePrefix reads a prefix, or an address as the prefix that holds it alone.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, errors.New("not an address")
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, errors.New("not a prefix")
	case p.Addr().Is4In6():
		return netip.Prefix{}, errors.New("an IPv4-mapped prefix matches nothing; write it as IPv4")
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("bits are set behind the prefix; %v was meant?", p.Masked())
	}
	return p, nil
}

func parseNames(s string) (name string, sub bool, err error) {
	if s == "*" {
		return "", true, nil
	}
	s, sub = strings.CutPrefix(s, "*.")
	name, ok := canonicalName(s)
	if !ok || endsInNumber(s) {
		return "", false, errors.New("not a name")
	}
	return name, sub, nil
}

// Match reports whether r holds t as it was asked for: by its name, or by its
// address when it has no name.
func (r *Rule) Match(t Target) bool {
	if t.Name != "" {
		return r.matchName(t)
	}
	return r.matchAddr(netip.AddrPortFrom(t.Addr, t.Port))
}

// matchAddr reports whether r is a rule by address that holds ap.
func (r *Rule) matchAddr(ap netip.AddrPort) bool {
	return r.prefix.Contains(ap.Addr()) && r.matchPort(ap.Port())
}

// matchName reports whether r is a rule by name that holds t.
func (r *Rule) matchName(t Target) bool {
	if r.prefix.IsValid() || t.Name == "" || !r.matchPort(t.Port) {
		return false
	}
	if !r.sub {
		return r.name == t.Name
	}
	above, ok := strings.CutSuffix(t.Name, r.name)
	return ok && (r.name == "" || strings.HasSuffix(above, "."))
}

func (r *Rule) matchPort(port uint16) bool { return r.port == 0 || r.port == port }

// PortRange is the ports From to To, both included.
type PortRange struct{ From, To uint16 }

// ParsePorts reads "443" or "8000-8999".
func ParsePorts(s string) (PortRange, error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	var r PortRange
	var ok, ok2 bool
	r.From, ok = parsePort(from)
	r.To, ok2 = parsePort(to)
	if !ok || !ok2 || r.From > r.To {
		return PortRange{}, fmt.Errorf("ports %q: want 443, or 8000-8999, within 1 to 65535", s)
	}
	return r, nil
}
