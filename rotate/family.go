package rotate

import (
	"net/netip"
	"slices"
)

// family is the sources that a race uses for one address family.
type family struct {
	turn  *Turn   // of the source that the next attempt leaves by; nil: it is to be taken
	spent []*Turn // of sources that were given up; an attempt from one may still connect

	failed      map[route]bool
	exhausted   int
	exits       int
	unreachable int
}

// route is a source and what could not be reached by it. The zero dst is everything:
// the source is gone.
type route struct {
	src ID
	dst netip.AddrPort
}

// source returns the source for an attempt to reach dst: the one that others of its
// family leave by, unless that has failed for dst.
func (f *family) source(p *Pool, r *Request, dst netip.AddrPort) (Source, error) {
	if f.turn != nil && !f.hasFailed(f.turn.ID(), dst) {
		return f.turn.Source, nil
	}
	var skip func(ID) bool
	if f.failed != nil {
		skip = func(src ID) bool { return f.hasFailed(src, dst) }
	}
	t, err := p.Next(r, dst.Addr(), skip)
	if err != nil {
		return Source{}, err
	}
	if f.turn != nil {
		f.spent = append(f.spent, f.turn)
	}
	f.turn = t
	return t.Source, nil
}

func (f *family) hasFailed(src ID, dst netip.AddrPort) bool {
	return f.failed[route{src, dst}] || f.failed[route{src: src}]
}

// blame notes that an attempt failed because of its source, when why says so, and
// reports whether another source is worth a try.
func (f *family) blame(r route, why fault) bool {
	switch why {
	case faultGone:
		r.dst = netip.AddrPort{}
	case faultDown, faultRefused, faultSilent:
		if f.exits++; f.exits >= maxExits {
			return false
		}
		if why == faultDown {
			r.dst = netip.AddrPort{}
		}
	case faultExhausted:
		if f.exhausted++; f.exhausted >= maxExhausted {
			return false
		}
	case faultUnreachable:
		if f.unreachable++; f.unreachable >= maxUnreachable {
			return false
		}
	default:
		return false
	}
	if f.failed == nil {
		f.failed = make(map[route]bool)
	}
	f.failed[r] = true
	return true
}

// turnOf returns the turn of src.
func (f *family) turnOf(src ID) *Turn {
	if f.turn != nil && f.turn.ID() == src {
		return f.turn
	}
	// It is one that a concurrent attempt gave up meanwhile.
	i := slices.IndexFunc(f.spent, func(t *Turn) bool { return t.ID() == src })
	return f.spent[i]
}

// take returns the turn of src, which is then no longer f's.
func (f *family) take(src ID) *Turn {
	turn := f.turnOf(src)
	if turn == f.turn {
		f.turn = nil
	} else {
		f.spent = slices.DeleteFunc(f.spent, func(t *Turn) bool { return t == turn })
	}
	return turn
}

// giveBack ends the turns that f has left when the race was won. That nothing came
// of f.turn is not its source's doing.
func (f *family) giveBack() {
	if f.turn != nil {
		f.turn.Return()
		f.turn = nil
	}
	f.end()
}

// end ends the turns that f has: each was used, if in vain.
func (f *family) end() {
	if f.turn != nil {
		f.turn.Done()
	}
	for _, t := range f.spent {
		t.Done()
	}
}
