package config

import (
	"slices"
	"time"
)

// Sessions is what becomes of the sessions that clients ask for in their user names.
type Sessions struct {
	Time   time.Duration // of one that does not say; zero means 10m
	Idle   time.Duration // ends one that was not used for so long; default zero, which means no limit
	OnGone string        // when its source has gone: replace or refuse; "" means replace
}

// Rights is what users may ask for in their user names.
type Rights struct {
	Users []string // none means everyone
	Ask   []string // session, country, label, pool, source; none means nothing
	Pools []string // names of Config.Pools; none means each
}

var (
	parseOnGone = choice([]string{"replace", "refuse"})
	parseAsk    = choice([]string{"session", "country", "label", "pool", "source"})
)

func (l *Listener) readSessions(n node) {
	n.fields(
		key("time", value(&l.Sessions.Time, parseDuration(time.Second, 24*time.Hour))),
		key("idle", duration(&l.Sessions.Idle, 0)),
		key("on_gone", value(&l.Sessions.OnGone, parseOnGone)),
	)
}

func (l *Listener) readRights(n node) {
	n.each(func(n node) {
		var r Rights
		n.fields(
			key("users", some(list(&r.Users, parseText))),
			required("ask", "such as [session, country], or []", list(&r.Ask, parseAsk)),
			key("pools", some(list(&r.Pools, parseText))),
		)
		if n.has("pools") && !slices.Contains(r.Ask, "pool") {
			n.child("pools").errorf("pool is not among what they may ask for (add it to ask)")
		}
		l.Rights = append(l.Rights, r)
	})
}

// findRightsPools looks up the pools that users may ask for. n is a listener.
func (l *Listener) findRightsPools(n node, names []string) {
	items := n.child("users_may").items()
	for i, r := range l.Rights {
		at := items[i].child("pools").items()
		for j, name := range r.Pools {
			findPool(name, names, at[j])
		}
	}
}
