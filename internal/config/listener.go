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
		value(&l.Mode, parseMode)(n.child("mode"))
	}
	switch l.Mode {
	case modeSNI:
		l.sni(passesAll(n))
	case modeUnwrap:
		l.unwrap()
	}
	n.fields(l.keys(l.Mode)...)
	l.Users = n.file.beside(l.Users)
	switch l.Mode {
	case modeSNI:
		l.checkSNI(n)
	case modeUnwrap:
		l.checkUnwrap(n)
	}
	if n.has("ipv4_in_tcp6") && !n.has("accept_proxy") && l.Mode != modeUnwrap {
		n.child("ipv4_in_tcp6").refuse("is about PROXY headers, which are taken of nobody (accept_proxy says of whom)")
	}
	if at := exposed(l.Listen); at != "" && !n.has("users") && !n.has("clients") && l.Mode == modeConnect {
		n.errorf("an open proxy: whoever reaches %s could use it (add users or clients, or listen on 127.0.0.1)", at)
	}
}

// keys are those of a listener of this mode. Those of other modes are known, to be
// refused by their name; of a mode that is not known none are.
func (l *Listener) keys(mode string) []field {
	all := []field{
		key("name", text(&l.Name)),
		required("listen", "such as 127.0.0.1:8080", l.readListen),
		key("mode", func(node) {}), // read before all others
		key("pool", text(&l.Pool)),
		key("clients", some(list(&l.Clients, parseClients))),
		key("accept_proxy", some(list(&l.AcceptProxy, parseClients))),
		key("ipv4_in_tcp6", l.readIPv4InTCP6),
		key("destinations", l.Destinations.read),
		key("mark", number(&l.Mark, 0, math.MaxUint32)),
	}
	var own, others []field
	modes := make(map[string][]string) // that have a key
	for _, m := range []struct {
		mode string
		keys []field
	}{
		{modeConnect, l.connectKeys()},
		{modeSNI, l.sniKeys()},
		{modeUnwrap, l.unwrapKeys()},
	} {
		for _, k := range m.keys {
			modes[k.key] = append(modes[k.key], m.mode)
			switch {
			case m.mode == mode:
				own = append(own, k)
				continue
			case mode == "":
				k.required = false
			}
			others = append(others, k)
		}
	}
	if mode != "" {
		for i, k := range others {
			others[i] = foreign(k.key, strings.Join(modes[k.key], " and "), mode)
		}
	}
	return slices.Concat(all, own, others) // a key of several modes is the listener's own
}

// foreign is a key of another mode than the listener's.
func foreign(name, its, mode string) field {
	return field{key: name, foreign: true, read: func(n node) {
		n.refuse("a key of mode %s (this listener's mode is %s)", its, mode)
	}}
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

// findPools gives every listener its pool, and makes one where the file has none and one
// is needed.
// n is the list of listeners.
func (c *Config) findPools(n node) {
	var names []string
	for _, p := range c.Pools {
		names = append(names, p.Name)
	}
	items := n.items()
	for i := range c.Listeners {
		l, at := &c.Listeners[i], items[i]
		if l.SNI != nil {
			routes := at.child("routes").items()
			for j, r := range l.SNI.Routes {
				findPool(r.Pool, names, routes[j].child("pool"))
			}
		}
		l.findRightsPools(at, names)
		switch {
		case l.Mode == modeUnwrap:
			l.Pool = ""
		case l.Pool != "":
			findPool(l.Pool, names, at.child("pool"))
		case at.has("pool"), l.Mode == modeSNI:
		case len(names) > 1:
			at.errorf("which pool? (add pool: and one of %s)", shorten(strings.Join(names, ", ")))
		default:
			if len(c.Pools) == 0 {
				c.Pools = []Pool{defaultPool(poolDefault)}
			}
			l.Pool = c.Pools[0].Name
		}
	}
}

// findPool notes that there is no pool of this name.
func findPool(name string, names []string, n node) {
	if name != "" && !slices.Contains(names, name) {
		n.errorf("%q: no such pool (%s)", shorten(name), poolHint(name, names))
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

// findTwins notes names and addresses that two want. n is the whole file.
func (c *Config) findTwins(n node) {
	if n.file.sockets > maxSockets {
		return // which has been said
	}
	names, addrs := make(map[string]node), make(map[string]node)
	if n.has("admin") && !strings.HasSuffix(c.Admin.Listen, ":0") {
		findTwin(addrs, c.Admin.Listen, n.child("admin").child("listen"))
	}
	items := n.child("listeners").items()
	for i := range c.Listeners {
		l, at := &c.Listeners[i], items[i]
		if at.has("name") {
			findTwin(names, l.Name, at.child("name"))
		}
		for _, item := range at.child("listen").items() {
			if s, err := parseListen(item.yaml.Value); err == nil {
				findTwinPort(addrs, s, item)
			}
		}
	}
}

// findTwin reports whether s is in seen, and notes so.
func findTwin(seen map[string]node, s string, n node) bool {
	if first, ok := seen[s]; ok && s != "" {
		n.errorf("%q: %s is that already", shorten(s), first.path)
		return true
	}
	seen[s] = n
	return false
}

func findTwinPort(seen map[string]node, s sockets, n node) {
	if s.from == 0 {
		return // the kernel chooses another each time
	}
	for one := range s.each() {
		if findTwin(seen, one.String(), n) {
			return
		}
	}
}
