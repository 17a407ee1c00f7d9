package relay

// evict ends the flow that may go first.
func (f *Flows) evict() bool {
	fl := f.fresh.last()
	if fl == nil {
		fl = f.steady.last()
	}
	if fl == nil {
		return false
	}
	f.close(fl, Evicted)
	return true
}

func (f *Flows) close(fl *flow, why Reason) {
	f.remove(fl.fd)
	fl.fd = -1
	fl.unlink()
	delete(f.table, fl.key)
	delete(fl.socket.open, fl)
	if fl.socket.closing {
		f.retire(fl.socket)
	}
	fl.end.Reason = why
	fl.closed(fl.end)
}

// touch notes that fl is in use.
func (f *Flows) touch(fl *flow) {
	fl.active = f.now
	l := &f.fresh
	if fl.steady {
		l = &f.steady
	}
	if l.first() != fl {
		fl.unlink()
		l.push(fl)
	}
}

// flowList is flows in the order of their use, in a ring with a flow that is none.
type flowList struct{ ring flow }

func (l *flowList) init() { l.ring.newer, l.ring.older = &l.ring, &l.ring }

func (l *flowList) first() *flow { return l.ring.older }

// last is the one that has been idle for longest, nil if there is none.
func (l *flowList) last() *flow {
	if l.ring.newer == &l.ring {
		return nil
	}
	return l.ring.newer
}

func (l *flowList) push(fl *flow) {
	fl.newer, fl.older = &l.ring, l.ring.older
	fl.older.newer = fl
	l.ring.older = fl
}

func (fl *flow) unlink() {
	fl.newer.older, fl.older.newer = fl.older, fl.newer
	fl.newer, fl.older = nil, nil
}
