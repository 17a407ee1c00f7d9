package listener

import (
	"net/netip"
	"sync"

	"swivel/relay"
)

// Table is the clients that are here, over all listening sockets. The zero Table
// is empty and ready.
type Table struct {
	mu sync.Mutex
	// guards
	clients map[*Client]struct{}
	pairs   map[pair]struct{}      // upstream connections
	locals  map[netip.AddrPort]int // how many of them have this as their own end
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

// EndSource ends the clients that are served through an upstream connection from
// source.
func (t *Table) EndSource(source netip.Addr, why relay.Reason) {
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

func (t *Table) addPair(p pair) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pairs == nil {
		t.pairs = make(map[pair]struct{})
		t.locals = make(map[netip.AddrPort]int)
	}
	t.pairs[p] = struct{}{}
	t.locals[p.local]++
}

func (t *Table) removePair(p pair) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pairs, p)
	if t.locals[p.local]--; t.locals[p.local] == 0 {
		delete(t.locals, p.local)
	}
}

func (t *Table) hasPair(p pair) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.pairs[p]
	return ok
}

// hasLocal is the cheap question before hasPair. Alone it would say too much: the
// kernel gives a port out again for another destination, also to a client that
// runs on this host.
func (t *Table) hasLocal(a netip.AddrPort) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.locals[a] > 0
}
