package config

import (
	"math"
	"slices"
	"strings"

	"swivel/internal/target"
)

func (c *Config) readListeners(n node) {
	some(func(n node) {
		n.each(func(n node) {
			l := defaultListener()
			l.read(n)
			c.Listeners = append(c.Listeners, l)
		})
	})(n)
}

func (l *Listener) read(n node) {
	if n.has("mode") {
		l.Mode = "" // until it is found to be valid
	}
	n.fields(
		key("name", text(&l.Name)),
		required("listen", "such as 127.0.0.1:8080", oneOrMore(&l.Listen, parseListen)),
		key("mode", value(&l.Mode, parseMode)),
		key("pool", text(&l.Pool)),
		key("users", text(&l.Users)),
		key("clients", some(list(&l.Clients, parseClients))),
		key("tls", l.readTLS),
		key("destinations", l.Destinations.read),
		later("verify_name", "off"),
		later("transparent", "off"),
		later("routes"),
		later("otherwise"),
		later("opaque"),
		later("capture"),
		key("mark", number(&l.Mark, 0, math.MaxUint32)),
		later("from"),
		later("to"),
		later("source"),
		later("udp_header"),
		later("allow_sources"),
	)
	l.Users = n.file.beside(l.Users)
	if l.Name == "" && len(l.Listen) > 0 {
		l.Name = l.Listen[0]
	}
	if at := exposed(l.Listen); at != "" && !n.has("users") && !n.has("clients") && l.Mode == modeConnect {
		n.errorf("an open proxy: whoever reaches %s could use it (add users or clients, or listen on 127.0.0.1)", at)
	}
}

func (l *Listener) readTLS(n node) {
	var t TLS
	n.fields(
		required("certificate", "path of a PEM file", text(&t.Certificate)),
		required("key", "path of a PEM file", text(&t.Key)),
	)
	l.TLS = &TLS{Certificate: n.file.beside(t.Certificate), Key: n.file.beside(t.Key)}
}

func (d *Destinations) read(n node) {
	var ports []target.PortRange
	n.fields(
		key("allow", list(&d.Allow, target.ParseRule)),
		key("deny", list(&d.Deny, target.ParseRule)),
		key("ports", some(list(&ports, target.ParsePorts))),
	)
	if len(ports) > 0 {
		d.Ports = ports
	}
}

// findPools gives every listener its pool, and makes one where the file has none.
// n is the list of listeners.
func (c *Config) findPools(n node) {
	var names []string
	for _, p := range c.Pools {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		c.Pools = []Pool{defaultPool(poolDefault)}
	}
	items := n.items()
	for i := range c.Listeners {
		l, at := &c.Listeners[i], items[i]
		switch {
		case l.Pool != "" && !slices.Contains(names, l.Pool):
			at.child("pool").errorf("%q: no such pool (%s)", shorten(l.Pool), poolHint(l.Pool, names))
		case at.has("pool"):
		case len(names) > 1:
			at.errorf("which pool? (add pool: and one of %s)", shorten(strings.Join(names, ", ")))
		default:
			l.Pool = c.Pools[0].Name
		}
	}
}

func poolHint(name string, names []string) string {
	if near := nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	if len(names) == 0 {
		return "the file has no pools; leave the key out to leave by this host's addresses"
	}
	return "there are " + shorten(strings.Join(names, ", "))
}

// findTwins notes names and addresses that two listeners want. n is the list of
// listeners.
func (c *Config) findTwins(n node) {
	names, addrs := make(map[string]node), make(map[string]node)
	items := n.items()
	for i := range c.Listeners {
		l, at := &c.Listeners[i], items[i]
		if at.has("name") {
			findTwin(names, l.Name, at.child("name"))
		}
		for j, item := range at.child("listen").items() {
			if j < len(l.Listen) && !strings.HasSuffix(l.Listen[j], ":0") {
				findTwin(addrs, l.Listen[j], item)
			}
		}
	}
}

func findTwin(seen map[string]node, s string, n node) {
	if first, ok := seen[s]; ok && s != "" {
		n.errorf("%q: %s is that already", shorten(s), first.path)
		return
	}
	seen[s] = n
}
