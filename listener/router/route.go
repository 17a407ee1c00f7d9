package router

import (
	"bytes"
	"fmt"
	"strings"

	"swivel/internal/target"
	"swivel/sni"
)

// Kind is the kind of a Target.
type Kind int

const (
	Close    Kind = iota // nowhere: the client is refused
	Original             // where the client was going
	Name                 // what the name resolves to, on the port that the client wanted
	ToBackends
)

// SendProxy is the version of the PROXY header that goes to upstream first.
type SendProxy int

const (
	NoProxy SendProxy = 0 // none does
	V1      SendProxy = 1
	V2      SendProxy = 2
)

// Target is where clients are sent.
type Target struct {
	Kind      Kind
	Backends  *Backends // of ToBackends
	SendProxy SendProxy
	Leave     Leave // nil: the Door's
}

// Otherwise is where clients are sent for whom there is no route. What is missing is
// Close.
type Otherwise map[Outcome]*Target

// Route is the Target of some names.
type Route struct {
	Names []string // a.example.com; *.example.com, which has one label in place of *; or *
	ALPN  []string // protocols, one of which the client must offer; none: any client
	Target
}

// Table finds the Route of a name. In which order it was given the routes does not
// matter.
type Table struct {
	routes []Route
	names  map[string]*choices
	below  map[string]*choices // by what follows "*."
	all    *choices
}

// choices is the routes of one name.
type choices struct {
	alpn  map[string]*Route
	other *Route // for clients that offer nothing of alpn; may be nil
}

// NewTable returns a Table of routes. Two that are for the same clients are an error.
func NewTable(routes []Route) (*Table, error) {
	t := &Table{routes: routes, names: make(map[string]*choices), below: make(map[string]*choices)}
	for i := range routes {
		for _, name := range routes[i].Names {
			if !t.choices(name).add(&routes[i]) {
				return nil, fmt.Errorf("%q: two routes for the same clients", name)
			}
		}
	}
	return t, nil
}

func (t *Table) choices(name string) *choices {
	m, key := t.names, name
	if name == "*" {
		if t.all == nil {
			t.all = new(choices)
		}
		return t.all
	}
	if suffix, ok := strings.CutPrefix(name, "*."); ok {
		m, key = t.below, suffix
	}
	if m[key] == nil {
		m[key] = new(choices)
	}
	return m[key]
}

// add reports whether r is for other clients than those before it.
func (c *choices) add(r *Route) bool {
	if len(r.ALPN) == 0 {
		free := c.other == nil
		c.other = r
		return free
	}
	if c.alpn == nil {
		c.alpn = make(map[string]*Route)
	}
	for _, p := range r.ALPN {
		if c.alpn[p] != nil {
			return false
		}
		c.alpn[p] = r
	}
	return true
}

// Find returns the route for a client that asks for name, which is canonical, and
// offers these protocols: of those for exactly this name, else for the labels behind
// its first, else for every name. Among those, one for a protocol that the client
// offers goes first; of several, that for the protocol it would rather have. Nil
// means that there is none.
func (t *Table) Find(name []byte, alpn sni.Protocols) *Route {
	if r := t.names[string(name)].find(alpn); r != nil {
		return r
	}
	if _, suffix, ok := bytes.Cut(name, []byte(".")); ok {
		if r := t.below[string(suffix)].find(alpn); r != nil {
			return r
		}
	}
	return t.all.find(alpn)
}

func (c *choices) find(alpn sni.Protocols) *Route {
	if c == nil {
		return nil
	}
	if c.alpn != nil {
		for p := range alpn.All() {
			if r := c.alpn[string(p)]; r != nil {
				return r
			}
		}
	}
	return c.other
}

func listed(ports []target.PortRange, port uint16) bool {
	for _, r := range ports {
		if r.From <= port && port <= r.To {
			return true
		}
	}
	return false
}
