package listener

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Why a client is not served.
var (
	ErrClient      = errors.New("client address not allowed")
	ErrPerClient   = errors.New("too many connections from this client")
	ErrConnections = errors.New("too many connections")
)

// Gate bounds how many clients there are, over all listening sockets.
//
// Connections beyond a configured limit are refused, with an answer. Descriptors
// are different: when they run out nothing could be answered, so no more clients
// are accepted until some have gone; they wait in the kernel's backlog meanwhile.
type Gate struct {
	slots chan struct{} // one token for each accepted connection, or for an accept that waits

	mu sync.Mutex
	// guards
	connections int
	perClient   int
	open        int
	flows       int // of the open ones
	refusing    int
	clients     map[netip.Addr]int

	paused every
}

// maxRefusing is how many clients are told at a time that they are refused.
// Beyond it they are closed without a word, so that refusing stays cheap.
const maxRefusing = 256

// NewGate returns a Gate for a process that may have so many descriptors open.
func NewGate(descriptors int) *Gate {
	return &Gate{
		slots:   make(chan struct{}, Capacity(descriptors)),
		clients: make(map[netip.Addr]int),
	}
}

// Capacity is how many connections are accepted with so many descriptors. Each
// may need two. Some are kept for everything else: logs, name servers, the second
// socket of a race, reading the configuration again.
func Capacity(descriptors int) int {
	reserve := min(max(descriptors/8, 24), 256)
	return max(1, (descriptors-reserve)/2)
}

// Limit sets how many clients there may be in all and from one address (for IPv6:
// from one /64). Those already here stay.
func (g *Gate) Limit(connections, perClient int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.connections, g.perClient = connections, perClient
}

// reserve waits until there are descriptors for another connection, and reports
// false when ctx is done first. release gives them back.
func (g *Gate) reserve(ctx context.Context, log zerolog.Logger) bool {
	select {
	case g.slots <- struct{}{}:
		return ctx.Err() == nil
	default:
	}
	if g.sayPaused() {
		log.Warn().Int("connections", cap(g.slots)).
			Msg("out of descriptors, accepting paused")
	}
	select {
	case g.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g *Gate) release() { <-g.slots }

func (g *Gate) sayPaused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused.due(time.Second)
}

// enter counts a client, whoever it is, until leave.
func (g *Gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open >= g.connections {
		return ErrConnections
	}
	g.open++
	return nil
}

func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
}

// name counts a client by its address, until unname.
func (g *Gate) name(a netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := key(a)
	if g.clients[k] >= g.perClient {
		return ErrPerClient
	}
	g.clients[k]++
	return nil
}

func (g *Gate) unname(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(a)
}

// forget is unname by who holds g.mu.
func (g *Gate) forget(a netip.Addr) {
	k := key(a)
	if g.clients[k]--; g.clients[k] == 0 {
		delete(g.clients, k)
	}
}

// enterFlow counts a flow of datagrams until leaveFlow: as a client, by its address,
// and for its descriptor. That is one; a slot is for two.
func (g *Gate) enterFlow(a netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.open >= g.connections:
		return ErrConnections
	case g.clients[key(a)] >= g.perClient:
		return ErrPerClient
	case g.flows%2 == 0:
		select {
		case g.slots <- struct{}{}:
		default:
			return ErrConnections
		}
	}
	g.flows++
	g.open++
	g.clients[key(a)]++
	return nil
}

func (g *Gate) leaveFlow(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flows--
	g.open--
	g.forget(a)
	if g.flows%2 == 0 {
		<-g.slots
	}
}

func (g *Gate) refuse() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refusing >= maxRefusing {
		return false
	}
	g.refusing++
	return true
}

func (g *Gate) refused() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refusing--
}

// key is what counts as one client: an IPv6 user has a whole /64.
func key(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil { // only of an invalid address
		return a
	}
	return p.Addr()
}
