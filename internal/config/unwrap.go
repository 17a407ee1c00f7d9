package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"swivel/internal/target"
)

// Unwrap is what a listener of mode unwrap has beside what all have.
type Unwrap struct {
	From         []netip.Prefix   // who may send a PROXY header; never empty
	To           []netip.AddrPort // at most one of a family; port 0 is the one that the client came to; none means the header's destination
	Source       string           // keep-port, any-port or own; default keep-port
	UDPHeader    string           // every, first, first-v1 or simple; default every
	AllowSources []netip.Prefix   // claimed sources that are refused otherwise
}

const toDestination = "destination"

var (
	parseLeave     = choice([]string{"keep-port", "any-port", "own"})
	parseUDPHeader = choice([]string{"every", "first", "first-v1", "simple"})
)

var errNobody = errors.New("nobody could send a PROXY header (name the load balancer's addresses)")

// unwrap makes l a listener of mode unwrap, with the defaults of that. Every port is
// where a header's destination may lead: it is no choice of the client's, but where
// the load balancer was found.
func (l *Listener) unwrap() {
	l.Unwrap = &Unwrap{Source: "keep-port", UDPHeader: "every"}
	l.Destinations.Ports = []target.PortRange{{From: 1, To: 65535}}
}

// unwrapKeys are what mode unwrap adds to the keys of every listener.
func (l *Listener) unwrapKeys() []field {
	u := cmp.Or(l.Unwrap, new(Unwrap)) // a listener of another mode is refused these keys
	return []field{
		required("from", "who may send a PROXY header, such as 10.0.0.0/8", u.readFrom),
		required("to", "such as 127.0.0.1:22, or destination", u.readTo),
		key("source", value(&u.Source, parseLeave)),
		key("udp_header", value(&u.UDPHeader, parseUDPHeader)),
		key("allow_sources", list(&u.AllowSources, parseClients)),
	}
}

func (l *Listener) readIPv4InTCP6(n node) {
	var s string
	value(&s, parseSwitch)(n)
	l.IPv4InTCP6 = s == "on"
}

func (u *Unwrap) readFrom(n node) {
	if n.kind() == kindList && len(n.yaml.Content) == 0 {
		n.errorf("an empty list: %v", errNobody)
		return
	}
	oneOrMore(&u.From, parseClients)(n)
}

func (u *Unwrap) readTo(n node) {
	switch {
	case n.yaml.Value == toDestination:
		return
	case n.kind() == kindList && len(n.yaml.Content) == 0:
		n.errorf("an empty list (name a target, or write to: %s)", toDestination)
		return
	}
	var to []netip.AddrPort
	oneOrMore(&to, parseTo)(n)
	items := n.items()
	for i, t := range to {
		if err := u.add(t); err != nil {
			items[i].errorf("%v", err)
		}
	}
}

// checkUnwrap notes keys that mean nothing to a listener of mode unwrap.
func (l *Listener) checkUnwrap(n node) {
	if n.has("pool") {
		n.child("pool").refuse("mode unwrap leaves by the client's address (leave the key out)")
	}
	if n.has("accept_proxy") {
		n.child("accept_proxy").refuse("in mode unwrap that is from (leave the key out)")
	}
	if n.has("destinations") && len(l.Unwrap.To) > 0 {
		n.child("destinations").refuse("to names the only destination (write to: %s, or leave the key out)", toDestination)
	}
}

// unwrap makes of the flags a listener of mode unwrap.
func (b *builder) unwrap(l *Listener) {
	l.unwrap()
	l.Name, l.Pool = modeUnwrap, ""
	for _, need := range []struct{ name, value, example string }{
		{"listen", b.Listen, ":2222"},
		{"from", b.From, "10.0.0.0/8, who may send a PROXY header"},
		{"to", b.To, "127.0.0.1:22"},
	} {
		if need.value == "" && b.given[need.name] == "" {
			b.errorf("-%s: missing in mode unwrap (such as %s)", need.name, need.example)
		}
	}
	many(b, "from", &l.Unwrap.From, b.From, parseClients)
	if b.To == toDestination {
		return
	}
	var to []netip.AddrPort
	many(b, "to", &to, b.To, parseTo)
	for _, t := range to {
		if err := l.Unwrap.add(t); err != nil {
			b.errorf("%s: %w", b.given["to"], err)
		}
	}
	for _, name := range []string{"allow", "deny", "ports"} {
		if given := b.given[name]; given != "" {
			b.errorf("%s: -to names the only destination (write -to %s, or leave it out)", given, toDestination)
		}
	}
}

// add adds a target, of which there is one in each family.
func (u *Unwrap) add(to netip.AddrPort) error {
	for _, t := range u.To {
		if to.IsValid() && t.IsValid() && t.Addr().Is4() == to.Addr().Is4() {
			return fmt.Errorf("%q: %v is of the same family (one target for IPv4 and one for IPv6)", showTo(to), showTo(t))
		}
	}
	u.To = append(u.To, to)
	return nil
}

// anyPort stands, in a target, for the port that the client came to.
const anyPort = "*"

// parseTo reads a target. Its port is 0 where it is the one that the client came to.
func parseTo(s string) (netip.AddrPort, error) {
	bare, same := strings.CutSuffix(s, ":"+anyPort)
	if same {
		bare += ":0"
	}
	if port, ok := strings.CutPrefix(bare, "localhost:"); ok {
		bare = "127.0.0.1:" + port
	}
	ap, err := netip.ParseAddrPort(bare)
	addr := ap.Addr().Unmap()
	switch {
	case err != nil && s == toDestination:
		return ap, fmt.Errorf("%q: stands alone (write to: %s)", s, s)
	case err != nil:
		return ap, fmt.Errorf("%q: %s", shorten(s), toHint(s))
	case addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() || addr == broadcast:
		return ap, fmt.Errorf("%q: not the address of a server", shorten(s))
	case ap.Port() == 0 && !same, !isPort(bare[strings.LastIndexByte(bare, ':')+1:]):
		return ap, fmt.Errorf("%q: a port is 1 to 65535, or %s for the one that the client came to", shorten(s), anyPort)
	}
	return netip.AddrPortFrom(addr, ap.Port()), nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func toHint(s string) string {
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		host := addr.String()
		if addr.Is6() {
			host = "[" + host + "]"
		}
		return fmt.Sprintf("no port (write %s:22, or %[1]s:%s for the port that the client came to)", host, anyPort)
	}
	return "not an address and port (write it as 127.0.0.1:22, [::1]:22, 127.0.0.1:" + anyPort + ", or " + toDestination + ")"
}

func showTo(to netip.AddrPort) string {
	if to.Port() != 0 {
		return to.String()
	}
	return strings.TrimSuffix(to.String(), strconv.Itoa(0)) + anyPort
}
