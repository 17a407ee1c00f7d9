package listener

import (
	"net/netip"
	"slices"
	"sync"

	"swivel/relay"
)

// Table is the clients that are here, over all listening sockets. The zero Table
// is empty and ready.
type Table struct {
	mu sync.Mutex
	// guards
	clients map[*Client]struct{}
	locals  map[netip.AddrPort]int // how many upstream connections have this as their own end
}

// pair is an upstream connection: our own end of it, and the other.
type pair struct{ local, remote netip.AddrPort }

// Len is how many clients are here.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.clients)
}

// End ends every client.
func (t *Table) End(why relay.Reason) {
	for _, c := range t.list() {
		c.End(why)
	}
}

// EndSource ends the clients that are served through an upstream connection from an
// address of source.
func (t *Table) EndSource(source netip.Prefix, why relay.Reason) {
	for _, c := range t.list() {
		if c.leaves(source) {
			c.End(why)
		}
	}
}

func (t *Table) list() []*Client {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*Client, 0, len(t.clients))
	for c := range t.clients {
		list = append(list, c)
	}
	return list
}

func (t *Table) add(c *Client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients == nil {
		t.clients = make(map[*Client]struct{})
	}
	t.clients[c] = struct{}{}
}

func (t *Table) remove(c *Client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.clients, c)
}

func (t *Table) addLocal(a netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.locals == nil {
		t.locals = make(map[netip.AddrPort]int)
	}
	t.locals[a]++
}

func (t *Table) removeLocal(a netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.locals[a]--; t.locals[a] == 0 {
		delete(t.locals, a)
	}
}

// has reports whether p is an upstream connection of one of the clients.
func (t *Table) has(p pair) bool {
	return slices.ContainsFunc(t.list(), func(c *Client) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.leg.by != nil && c.leg.ends() == p
	})
}

// hasLocal is the cheap question before has. Alone it would say too much: the
// kernel gives a port out again for another destination, also to a client that
// runs on this host.
func (t *Table) hasLocal(a netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.locals[a] > 0
}
