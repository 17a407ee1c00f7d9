package auth

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

const (
	maxFailures = 10          // of one client within a window
	window      = time.Minute // begins with the first of them
	maxClients  = 10000       // counted at once
)

// failures counts the wrong passwords of each client. The zero value is ready.
type failures struct {
	mu      sync.Mutex // guards what follows
	clients map[netip.Prefix]*list.Element
	oldest  list.List // of *tally: windows in the order of their beginning
}

type tally struct {
	client netip.Prefix
	since  time.Time
	n      int
}

// tooMany reports whether client has used up its window.
func (f *failures) tooMany(client netip.Addr, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.clients[network(client)]
	if e == nil {
		return false
	}
	t := e.Value.(*tally)
	return t.n >= maxFailures && now.Sub(t.since) < window
}

// add counts one wrong password. When there are too many clients to count, the one
// that began first is forgotten.
func (f *failures) add(client netip.Addr, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for e := f.oldest.Front(); e != nil && now.Sub(e.Value.(*tally).since) >= window; e = f.oldest.Front() {
		f.forget(e)
	}
	key := network(client)
	if e := f.clients[key]; e != nil {
		e.Value.(*tally).n++
		return
	}
	if f.clients == nil {
		f.clients = make(map[netip.Prefix]*list.Element)
	}
	if len(f.clients) >= maxClients {
		f.forget(f.oldest.Front())
	}
	f.clients[key] = f.oldest.PushBack(&tally{client: key, since: now, n: 1})
}

func (f *failures) forget(e *list.Element) {
	delete(f.clients, e.Value.(*tally).client)
	f.oldest.Remove(e)
}

// network is what counts as one client: an address, or a /64 of IPv6, which is what
// one host gets.
func network(client netip.Addr) netip.Prefix {
	client = client.Unmap().WithZone("")
	bits := client.BitLen()
	if client.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(client, bits).Masked()
}
