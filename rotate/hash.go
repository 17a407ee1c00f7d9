package rotate

import "math"

// ranks is what a view remembers for Hash.
type ranks struct {
	classes []class
	known   map[uint64]*member // by hash, who it fell to
}

// class is the members of one weight.
type class struct {
	weight  int
	members []*member
	hashes  []uint64 // of members
}

const (
	maxKnown     = 100_000
	worthKnowing = 256 // members; of fewer the search is as cheap
)

// byHash is rendezvous hashing: of all sources, the one that comes out highest when
// it is hashed together with the key. When a source leaves, its own keys alone fall
// to others; another swivel with the same sources chooses the same.
func (s *search) byHash() *member {
	key := s.pool.hashOf(s.request)
	k := &s.view.ranks
	if m := k.known[key]; m != nil && s.may(m) {
		return m
	}
	if k.classes == nil {
		k.classify(s.view.members)
	}
	best, high := s.highest(key)
	if best == nil || len(s.view.members) < worthKnowing || high {
		return best
	}
	if len(k.known) >= maxKnown {
		clear(k.known)
	}
	if k.known == nil {
		k.known = make(map[uint64]*member)
	}
	k.known[key] = best
	return best
}

// highest also reports whether one that may not be used came out higher still.
func (s *search) highest(key uint64) (best *member, passed bool) {
	least := math.Inf(1)
	for _, c := range s.view.ranks.classes {
		m, h, p := s.highestOf(c, key)
		passed = passed || p
		if m == nil {
			continue
		}
		// The time at which an exponential clock of rate weight rings: the first one
		// wins, and does so in proportion to its weight.
		if t := -math.Log((float64(h>>11)+0.5)/(1<<53)) / float64(c.weight); t < least {
			best, least = m, t
		}
	}
	return best, passed
}

func (s *search) highestOf(c class, key uint64) (best *member, high uint64, passed bool) {
	for i, h := range c.hashes {
		if h = mix(h ^ key); h < high || best != nil && h == high {
			continue
		}
		if m := c.members[i]; s.may(m) {
			best, high = m, h
		} else {
			passed = true
		}
	}
	return best, high, passed
}

func (k *ranks) classify(members []*member) {
	at := make(map[int]int)
	for _, m := range members {
		i, ok := at[m.Weight]
		if !ok {
			i = len(k.classes)
			at[m.Weight] = i
			k.classes = append(k.classes, class{weight: m.Weight})
		}
		c := &k.classes[i]
		c.members = append(c.members, m)
		c.hashes = append(c.hashes, m.hash)
	}
}

// hashOf is the hash of what a request is told apart by.
func (p *Pool) hashOf(r *Request) uint64 {
	switch p.config.HashBy {
	case ByTarget:
		return hashText(r.target())
	case BySession, "":
		if r.Session.ID != "" {
			return hashText(r.User + "\x00" + r.Session.ID)
		}
		fallthrough
	case ByUser:
		if r.User != "" {
			return hashText(r.User)
		}
	}
	a := r.network().As16()
	return hashText(string(a[:]))
}

// hashText is FNV-1a, mixed once more. It is the same in every process.
func hashText(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
