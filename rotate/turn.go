package rotate

import "time"

// Turn is a source taken for one connection. Exactly one of Done and Return is to
// be called at its end; further calls do nothing. A Turn belongs to one goroutine.
type Turn struct {
	Source
	Cooling bool // it is cooling, and so is every other one

	pool   *Pool
	member *member
	view   *view
	cursor *cursor // the turns that it was one of; nil when it came about in another way
	site   *site   // where the use is noted; nil when it is not
	use    uint64  // its number there
	part   uint64
	age    time.Duration // Config.Age
	bytes  int64         // Config.Bytes
}

// Done says that the connection has ended.
func (t *Turn) Done() { t.end(false) }

// Return says that no connection was made through the source: its turn is given
// to the next that asks, as if it had not been taken.
func (t *Turn) Return() { t.end(true) }

func (t *Turn) end(unused bool) {
	if t.member == nil {
		return
	}
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	t.member.open--
	t.pool.settle(t.member)
	if unused {
		if t.cursor != nil {
			t.cursor.giveBack(t.view, t.member)
		}
		if t.site != nil {
			t.site.refresh(t.pool, t.pool.now())
			t.site.undo(t.use)
			t.site.attend(t.pool)
		}
	} else if t.site != nil {
		t.settleUse()
	}
	t.member = nil
}

// settleUse has a use that was short count from its end: the target heard of it in
// between, and when is not known. A long one counts from its beginning, as it would
// otherwise cost more than a tenth of what the target allows.
func (t *Turn) settleUse() {
	now := t.pool.now()
	t.site.refresh(t.pool, now)
	if at, ok := t.site.since(t.use); ok && now-at <= t.pool.config.Spacing/10 {
		t.use = t.site.again(t.pool, t.use, now)
	}
}

// connected says that the connection was made only now: what a target counts begins
// here, not when the source was chosen.
func (t *Turn) connected() {
	if t.site == nil {
		return
	}
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	now := t.pool.now()
	t.site.refresh(t.pool, now)
	t.use = t.site.again(t.pool, t.use, now)
}
