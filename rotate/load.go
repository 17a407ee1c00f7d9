package rotate

// heapify makes the heap of LeastUsed anew: on top is who has the fewest open
// connections for its weight, and of several the one that was not taken for longest.
func (r *ring) heapify() {
	if r.strategy != LeastUsed {
		r.heap = nil
		return
	}
	r.heap = append(r.heap[:0], r.members...)
	for i, m := range r.heap {
		m.leaf[r.family] = i
	}
	for i := len(r.heap)/2 - 1; i >= 0; i-- {
		r.down(i)
	}
}

// settle puts m where it belongs after its load has changed.
func (r *ring) settle(m *member) {
	if r.strategy == LeastUsed && m.slot[r.family] >= 0 {
		r.up(m.leaf[r.family])
		r.down(m.leaf[r.family])
	}
}

func (r *ring) less(m, o *member) bool {
	switch a, b := m.open*o.Weight, o.open*m.Weight; {
	case a != b:
		return a < b
	case m.last != o.last:
		return m.last < o.last
	}
	return m.slot[r.family] < o.slot[r.family]
}

func (r *ring) up(i int) {
	for i > 0 && r.less(r.heap[i], r.heap[(i-1)/2]) {
		r.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (r *ring) down(i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(r.heap) && r.less(r.heap[child], r.heap[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		r.swap(i, least)
		i = least
	}
}

func (r *ring) swap(i, j int) {
	r.heap[i], r.heap[j] = r.heap[j], r.heap[i]
	r.heap[i].leaf[r.family], r.heap[j].leaf[r.family] = i, j
}

// leastUsed is the least in the heap of those that may be used. What stands below
// one that may is not looked at, nor what is not less than the best so far.
func (s *search) leastUsed() *member { return s.leastBelow(0, nil) }

func (s *search) leastBelow(i int, best *member) *member {
	if i >= len(s.ring.heap) {
		return best
	}
	m := s.ring.heap[i]
	if best != nil && !s.ring.less(m, best) {
		return best
	}
	if s.inView(m) && s.may(m) {
		return m
	}
	return s.leastBelow(2*i+2, s.leastBelow(2*i+1, best))
}

func (s *search) inView(m *member) bool {
	slot := m.slot[s.ring.family]
	return s.view.in == nil || s.view.in[slot/64]&(1<<(slot%64)) != 0
}
