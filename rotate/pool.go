// Package rotate chooses the address that a connection leaves by, and connects
// from it.
//
// A Pool holds sources and gives them out in turn; a Dialer connects from a socket
// bound to the source that the Pool gave, moves on to the next one when a source
// turns out to be gone or exhausted, and races IPv6 against IPv4.
//
//	pool.go    the pool, and how it chooses
//	source.go  what a source is
//	span.go    sources that are the parts of a prefix
//	ring.go    the sources of one family, and their order
//	view.go    those of them that are as a request wants them
//	search.go  one decision
//	hash.go    the strategy hash: rendezvous hashing
//	load.go    the strategy least-used: a heap
//	site.go    what is remembered of a target: whose turn it is, who was there
//	index.go   who was there, when they are many
//	wait.go    a client that waits until a source may be used again for its target
//	line.go    those that wait for the same target, and who is next
//	session.go sessions, which keep to one source
//	cooldown.go sources that fail are left alone for a while
//	turn.go    a source that was taken
//	dial.go    Dialer; race.go its attempts, family.go what they leave by, connect.go one of them
//	exit.go    an attempt that goes through another proxy
//
// The package does not know which addresses this host has: whoever does calls
// Pool.Set. It resolves no names but those of other proxies, and judges no destination.
package rotate

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoSource means that the pool has no source address that could be used.
var ErrNoSource = errors.New("rotate: no source address")

// ErrNoMatch means that it has some, but none as it was asked for.
var ErrNoMatch = fmt.Errorf("%w as it was asked for", ErrNoSource)

// Strategy is the way in which a Pool chooses.
type Strategy string

const (
	RoundRobin Strategy = "round-robin" // each in turn, as often as its weight
	Random     Strategy = "random"      // any, with a chance in proportion to its weight
	LeastUsed  Strategy = "least-used"  // the one with the fewest open connections for its weight
	PerTarget  Strategy = "per-target"  // each in turn, with turns of its own for every target
	Hash       Strategy = "hash"        // always the same for the same client, user, session or target
)

// HashBy is what the strategy Hash keeps to one source.
type HashBy string

const (
	ByClient  HashBy = "client"
	ByUser    HashBy = "user"    // the client, when nobody logged in
	BySession HashBy = "session" // the user, when there is no session
	ByTarget  HashBy = "target"
)

// Config is how a Pool chooses. The zero Config takes turns.
type Config struct {
	Strategy Strategy // empty means RoundRobin
	HashBy   HashBy   // empty means BySession

	// Spacing keeps a source from being used for the same target again within that
	// time: the one that was not for longest is taken. RoundRobin then has turns
	// of its own for every target too. Zero means that there is no such time.
	Spacing time.Duration

	// Wait is how long a client waits when every source was used too recently for
	// its target. Zero means not at all.
	Wait time.Duration

	Cooldown Cooldown

	// Age and Bytes are how long, and for how much, a connection may be used. Zero
	// means that there is no limit. They are for who relays: see Upstream.Bound.
	Age   time.Duration
	Bytes int64
}

// Pool is a set of sources of both families. The zero Pool is empty and takes
// turns. Its methods may be called by several goroutines at once.
type Pool struct {
	mu sync.Mutex
	// guards
	config  Config
	epoch   time.Time // of instant
	known   map[ID]*member
	names   bool    // see Names
	standby int     // the highest of the sources
	round   uint64  // of Set
	rings   [2]ring // by family
	sites   sites
	pinned  sessions
	waiting int // clients, for all targets
	uses    uint64

	health   map[place]*health // of sources that have failed, or are told to cool
	troubled int               // how many there are, also of targets
	ails     atomic.Bool       // that there are some; may be read by anyone
	swept    instant           // when the old ones were looked for
}

// The families, as indexes.
const (
	ipv4 = iota
	ipv6
)

func familyOf(a netip.Addr) int {
	if a.Unmap().Is4() {
		return ipv4
	}
	return ipv6
}

// Set replaces the sources, and how they are chosen. Turns go on behind the source
// that was used last; connections that are open count on.
func (p *Pool) Set(c Config, sources []Source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch.IsZero() {
		p.epoch = time.Now()
		p.known = make(map[ID]*member)
		p.health = make(map[place]*health)
	}
	p.config = c
	p.round++
	p.names, p.standby = len(sources) > 0, 0
	var lists [2][]*member
	var changed [2]bool
	for _, s := range sources {
		p.names = p.names && s.Exit != nil && s.Exit.Names
		p.standby = max(p.standby, s.Standby)
		m, news := p.admit(s)
		if m == nil {
			continue // listed twice: the first entry counts
		}
		for _, f := range m.families() {
			lists[f] = append(lists[f], m)
			changed[f] = changed[f] || news
		}
	}
	p.dismiss()
	for f := range p.rings {
		p.rings[f].set(f, c.Strategy, lists[f], changed[f])
	}
	p.attendAll()
}

// admit returns the member that s is, and whether it is not as it was before; nil
// when it was admitted in this round.
func (p *Pool) admit(s Source) (m *member, news bool) {
	s.Addr, s.Weight = s.Addr.Unmap(), max(1, s.Weight)
	if s.Prefix.IsValid() {
		s.Spread = max(s.Spread, s.Prefix.Bits())
	}
	id := s.ID()
	m = p.known[id]
	switch {
	case m == nil:
		m = &member{id: id, hash: hashText(id.String()), slot: [2]int{-1, -1}}
		p.known[id] = m
		news = true
	case m.round == p.round:
		return nil, false
	default:
		news = m.Weight != s.Weight || m.Spread != s.Spread || !maps.Equal(m.Labels, s.Labels)
	}
	m.Source, m.round, m.live = s, p.round, true
	if s.Prefix.IsValid() {
		m.span = newSpan(s.Prefix, s.Spread)
	}
	return m, news
}

// remembered is how long a source is remembered that has left: when it comes back
// soon, what it was used for counts.
const remembered = 10 * time.Minute

// dismiss takes leave of the members that were not admitted in this round.
func (p *Pool) dismiss() {
	now := p.now()
	for id, m := range p.known {
		switch {
		case m.round == p.round:
		case m.live:
			m.live, m.left, m.slot = false, now, [2]int{-1, -1}
		case m.open == 0 && now-m.left > remembered:
			delete(p.known, id)
			p.forget(p.health, place{m, 0})
		}
	}
}

// Next takes a source for r of dst's family, other than those that skip (may be
// nil) says true of. Its error wraps ErrNoSource, or is a *Busy, a
// *Cooling or ErrSessionGone.
//
// Each family takes its own turns: with one counter for both, clients that
// alternate families would see half of the pool.
func (p *Pool) Next(r *Request, dst netip.Addr, skip func(ID) bool) (*Turn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := search{pool: p, request: r, skip: skip}
	return s.take(familyOf(dst))
}

// settle is called when the load of m has changed.
func (p *Pool) settle(m *member) {
	for f := range p.rings {
		p.rings[f].settle(m)
	}
}

// Has reports whether there is any source of dst's family.
func (p *Pool) Has(dst netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.rings[familyOf(dst)].members) > 0
}

// Names reports whether every source is a proxy that is asked for names, so that
// nobody here needs to look them up: a Request may then have a Target and, in place of
// its address, an unspecified one.
func (p *Pool) Names() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.names
}

// Empty reports whether there is no source at all.
func (p *Pool) Empty() bool {
	return !p.Has(netip.IPv4Unspecified()) && !p.Has(netip.IPv6Unspecified())
}

// Use is a source as the pool has it.
type Use struct {
	Source
	Open int    // connections
	Uses uint64 // connections so far, also of those that came to nothing

	// Cooling is for how long it is not used for any target; zero means that it is
	// ready. Of a prefix it is zero, and Parts is how many of its parts are cooling.
	Cooling time.Duration
	Parts   int
}

// Sources lists the sources in the order of Set, IPv4 first.
func (p *Pool) Sources() []Use {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := make(map[*member]int)
	uses := make([]Use, 0, len(p.rings[ipv4].members)+len(p.rings[ipv6].members))
	for f := range p.rings {
		for _, m := range p.rings[f].members {
			if f == ipv6 && m.slot[ipv4] >= 0 {
				continue // a proxy, which has been listed
			}
			uses = append(uses, Use{Source: m.Source, Open: m.open, Uses: m.uses})
			at[m] = len(uses) - 1
		}
	}
	now := p.now()
	for place, h := range p.health {
		i, ok := at[place.member]
		switch {
		case !ok || h.until <= now:
		case place.member.Prefix.IsValid():
			uses[i].Parts++
		default:
			uses[i].Cooling = h.until - now
		}
	}
	return uses
}

// instant is a time as it is kept of many uses: since epoch, by the monotonic clock.
type instant = time.Duration

func (p *Pool) now() instant { return time.Since(p.epoch) }
