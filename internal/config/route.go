package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"swivel/internal/target"
)

func (s *SNI) readRoutes(n node) {
	n.each(func(n node) {
		r := defaultRoute()
		r.read(n)
		s.Routes = append(s.Routes, r)
	})
}

func defaultRoute() Route { return Route{Balance: "round-robin", SendProxy: "off"} }

func (r *Route) read(n node) {
	n.fields(
		required("names", `such as ["*.example.com"]`, oneOrMore(&r.Names, parseRouteName)),
		key("alpn", oneOrMore(&r.ALPN, parseALPN)),
		key("to", r.To.read),
		key("balance", value(&r.Balance, parseBalance)),
		key("send_proxy", value(&r.SendProxy, parseSendProxy)),
		key("check", duration(&r.Check, 100*time.Millisecond)),
		key("pool", text(&r.Pool)),
	)
	backends := []string{"balance", "check"}
	upstream := []string{"send_proxy", "pool"}
	for _, key := range slices.Concat(backends, upstream) {
		switch kind := r.To.Kind; {
		case !n.has(key) || kind == "":
		case kind == ToClose, kind != ToBackends && slices.Contains(backends, key):
			n.child(key).errorf("means nothing for  to: %s", kind)
		}
	}
}

// read reads a word or backends. Which words there are depends on where it stands
// and on what the listener is; see node.original.
func (to *To) read(n node) {
	if n.kind() != kindList {
		switch n.yaml.Value {
		case ToClose, ToOriginal, ToName:
			to.Kind = n.yaml.Value
			return
		}
	}
	var backends []target.Target
	oneOrMore(&backends, parseBackend)(n)
	*to = To{Kind: ToBackends, Backends: backends}
	seen := make(map[target.Target]bool)
	for i, b := range backends {
		if seen[b] && b.Port != 0 {
			n.items()[i].errorf("%q: the same backend again", b)
		}
		seen[b] = true
	}
}

// parseRouteName reads a server name, or a pattern of some.
func parseRouteName(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	host, sub := strings.CutPrefix(s, "*.")
	t, err := target.ParseHost(host, 1)
	switch {
	case err == nil && t.Name == "", err != nil && strings.Contains(host, ":"):
		return "", fmt.Errorf("%q: not a name (clients send no address as a server name)", shorten(s))
	case strings.Contains(host, "*"):
		return "", fmt.Errorf("%q: a * stands alone or for the first label, as in *.example.com", shorten(s))
	case err != nil && strings.ContainsFunc(host, func(r rune) bool { return r > '~' }):
		return "", fmt.Errorf("%q: not a name as clients send it (write it in ASCII, as xn--…)", shorten(s))
	case err != nil:
		return "", fmt.Errorf("%q: not a name", shorten(s))
	case sub:
		return "*." + t.Name, nil
	}
	return t.Name, nil
}

// parseALPN reads the name of a protocol; its length is that of RFC 7301, section 3.1.
func parseALPN(s string) (string, error) {
	if _, err := parseText(s); err != nil || len(s) > 255 {
		return "", fmt.Errorf("%q: not a protocol (write it as h2 or http/1.1)", shorten(s))
	}
	return s, nil
}

func parseBackend(s string) (target.Target, error) {
	t, err := target.Parse(s)
	if err == nil && (!t.Addr.IsValid() || !t.Addr.IsUnspecified() && !t.Addr.IsMulticast()) {
		return t, nil
	}
	hint := "write it as 192.0.2.7:443, [2001:db8::7]:443 or name:443"
	if !strings.ContainsAny(s, ".:") {
		hint = "use close, original, name or a list such as [192.0.2.7:443]"
	}
	return t, fmt.Errorf("%q: not a backend (%s)", shorten(s), hint)
}

// findTwins notes names that two routes want of the same clients. n is the list of
// routes.
func (s *SNI) findTwins(n node) {
	type client struct{ name, protocol string } // protocol "" is whoever no other route of the name is for
	seen := make(map[client]node)
	items := n.items()
	for i, r := range s.Routes {
		names := items[i].child("names").items()
		for j, name := range r.Names {
			protocols := r.ALPN
			if len(protocols) == 0 {
				protocols = []string{""}
			}
			for _, p := range protocols {
				first, twice := seen[client{name, p}]
				if twice && name != "" {
					names[j].errorf("%q: %s is that already%s", shorten(name), first.path, ofProtocol(p))
					break
				}
				seen[client{name, p}] = names[j]
			}
		}
	}
}

func ofProtocol(p string) string {
	if p == "" {
		return ""
	}
	return fmt.Sprintf(", for %q too", shorten(p))
}
