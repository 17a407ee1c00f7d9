package rotate

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// leave takes a source as r wants it, and returns the last byte of its address.
func leave(p *Pool, r Request) string {
	turn, err := p.Next(&r, dst4, nil)
	if err != nil {
		return err.Error()
	}
	turn.Done()
	return fmt.Sprint(turn.Addr.As4()[3])
}

func TestSession(t *testing.T) {
	three := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}
	in := func(user, id string) Request { return Request{User: user, Session: Session{ID: id}} }

	t.Run("keeps to a source, whatever the strategy", func(t *testing.T) {
		for _, s := range []Strategy{RoundRobin, Random, LeastUsed, PerTarget, Hash} {
			p := poolOf(Config{Strategy: s}, three...)
			first := leave(p, in("ann", "x"))
			for i := range 20 {
				leave(p, Request{Target: fmt.Sprint(i)}) // of somebody else
				r := in("ann", "x")
				r.Target = fmt.Sprint(i)
				if got := leave(p, r); got != first {
					t.Fatalf("%s: got %s, want %s", s, got, first)
				}
			}
		}
	})
	t.Run("is a user's own", func(t *testing.T) {
		p := pool(RoundRobin, three...)
		var got []string
		for _, r := range []Request{in("ann", "x"), in("bob", "x"), in("ann", "y"), in("ann", "x"), in("bob", "x")} {
			got = append(got, leave(p, r))
		}
		if got, want := strings.Join(got, " "), "1 2 3 1 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("has a source of each family", func(t *testing.T) {
		p := pool(RoundRobin, "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2")
		r := in("ann", "x")
		for range 3 {
			a, _ := p.Next(&r, dst4, nil)
			b, _ := p.Next(&r, dst6, nil)
			if a.Addr.String() != "10.0.0.1" || b.Addr.String() != "fd00::1" {
				t.Errorf("got %s and %s", a.Addr, b.Addr)
			}
		}
	})
	t.Run("ends after its time, used or not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pool(RoundRobin, three...)
			r := in("ann", "x")
			r.Session.Time = time.Minute
			leave(p, r)
			time.Sleep(time.Minute - 1)
			if got := leave(p, r); got != "1" {
				t.Errorf("before: got %s", got)
			}
			time.Sleep(time.Nanosecond)
			if got := leave(p, r); got != "2" {
				t.Errorf("after: got %s", got)
			}
		})
	})
	t.Run("ends when it is idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := pool(RoundRobin, three...)
			r := in("ann", "x")
			r.Session.Time, r.Session.Idle = time.Hour, time.Minute
			for range 3 {
				if got := leave(p, r); got != "1" {
					t.Errorf("in use: got %s", got)
				}
				time.Sleep(time.Minute - 1)
			}
			leave(p, r)
			time.Sleep(time.Minute)
			if got := leave(p, r); got != "2" {
				t.Errorf("idle: got %s", got)
			}
		})
	})
	t.Run("has another source when its own has gone", func(t *testing.T) {
		p := pool(RoundRobin, three...)
		leave(p, in("ann", "x"))
		p.Set(Config{}, sourcesOf("10.0.0.2", "10.0.0.3"))
		if got := leave(p, in("ann", "x")) + leave(p, in("ann", "x")); got != "22" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("or none, when that is wished", func(t *testing.T) {
		p := pool(RoundRobin, three...)
		r := in("ann", "x")
		r.Session.Refuse = true
		leave(p, r)
		p.Set(Config{}, sourcesOf("10.0.0.2", "10.0.0.3"))
		if _, err := p.Next(&r, dst4, nil); !errors.Is(err, ErrSessionGone) {
			t.Errorf("got %v", err)
		}
		p.Set(Config{}, sourcesOf(three...))
		if got := leave(p, r); got != "1" {
			t.Errorf("it is back: got %s", got)
		}
	})
	t.Run("does not get round the spacing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := Config{Spacing: time.Second, Wait: time.Minute}
			p := poolOf(c, three...)
			r := in("ann", "x")
			r.Target = "a"
			leave(p, r)
			_, err := p.Next(&r, dst4, nil)
			if busy, ok := errors.AsType[*Busy](err); !ok || busy.After != c.pause() {
				t.Errorf("got %v", err)
			}
			start := time.Now()
			if got, err := ask(p, r); got != "1" || time.Since(start) != c.pause() {
				t.Errorf("got %s, %v after %v", got, err, time.Since(start))
			}
			if got := leave(p, Request{Target: "a"}); got != "2" {
				t.Errorf("somebody else: got %s", got)
			}
		})
	})
	t.Run("is forgotten when there are too many", func(t *testing.T) {
		p := pool(RoundRobin, three...)
		leave(p, in("ann", "old"))
		leave(p, in("ann", "kept"))
		for i := range maxSessions - 1 {
			if i == maxSessions/2 {
				leave(p, in("ann", "kept"))
			}
			leave(p, in("ann", fmt.Sprint(i)))
		}
		if got := len(p.pinned.byKey); got != maxSessions {
			t.Errorf("got %d sessions, want %d", got, maxSessions)
		}
		if p.pinned.byKey[key{"ann", "old"}] != nil || p.pinned.byKey[key{"ann", "kept"}] == nil {
			t.Error("it was not the oldest that went")
		}
	})
}

func TestSourceAskedFor(t *testing.T) {
	p := pool(RoundRobin, "10.0.0.1", "10.0.0.2")
	if got := leave(p, Request{Source: netip.MustParseAddr("10.0.0.2")}); got != "2" {
		t.Errorf("got %s", got)
	}
	for _, r := range []Request{
		{Source: netip.MustParseAddr("10.0.0.3")},
		{Source: netip.MustParseAddr("fd00::1")},
	} {
		if _, err := p.Next(&r, dst4, nil); !errors.Is(err, ErrNoMatch) {
			t.Errorf("%s: got %v", r.Source, err)
		}
	}
}
