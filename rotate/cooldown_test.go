package rotate

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var cooling = Cooldown{After: 3, For: 30 * time.Second, Most: 100 * time.Second, Keep: 50}

// round has every source of p asked for target once, of which those that broken says
// fail. It returns who was used.
func round(p *Pool, target string, broken ...string) (used string) {
	for range p.Sources() {
		turn, err := p.Next(&Request{Target: target}, dst4, nil)
		if err != nil {
			return used + "-"
		}
		last := fmt.Sprint(turn.Addr.As4()[3])
		used += last
		fails := false
		for _, b := range broken {
			fails = fails || b == last
		}
		if fails {
			turn.failed(target, false)
		} else {
			turn.worked(&Request{Target: target})
		}
		turn.Done()
	}
	return used
}

func cools(p *Pool) (last string) {
	for _, use := range p.Sources() {
		if use.Cooling > 0 {
			last += fmt.Sprint(use.Addr.As4()[3])
		}
	}
	return last
}

func TestCooldown(t *testing.T) {
	four := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}
	run := func(name string, c Config, do func(t *testing.T, p *Pool)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { do(t, poolOf(c, four...)) })
		})
	}
	run("for the target where it fails and others do not", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		for range 3 {
			if got := round(p, "a", "2"); got != "1234" {
				t.Fatalf("before: got %s", got)
			}
		}
		if got := round(p, "a", "2"); got != "1341" {
			t.Errorf("after three failures: got %s", got)
		}
		if got := round(p, "b"); got != "2341" {
			t.Errorf("another target: got %s", got)
		}
		if got := cools(p); got != "" {
			t.Errorf("cooling at all: %s", got)
		}
	})
	run("but not when nobody succeeds", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		for range 10 {
			if got := round(p, "a", "1", "2", "3", "4"); got != "1234" {
				t.Fatalf("got %s", got)
			}
		}
	})
	run("and not when it succeeds in between", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		for i := range 10 {
			broken := "2"
			if i%3 == 2 {
				broken = "0"
			}
			if got := round(p, "a", broken); got != "1234" {
				t.Fatalf("got %s", got)
			}
		}
	})
	run("longer each time, up to a limit", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		round(p, "a", "2")
		round(p, "a", "2")
		round(p, "a", "2")
		for _, want := range []time.Duration{30 * time.Second, 60 * time.Second, 100 * time.Second, 100 * time.Second} {
			time.Sleep(want - 1)
			if got := round(p, "a", "2") + round(p, "a", "2"); len(got) != 8 || contains(got, '2') {
				t.Fatalf("%v is not over: got %s", want, got)
			}
			time.Sleep(time.Nanosecond)
			if got := round(p, "a", "2"); !contains(got, '2') { // fails once, and that is enough
				t.Fatalf("%v is over: got %s", want, got)
			}
			round(p, "a", "2")
		}
	})
	run("until it succeeds, which heals", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		for range 3 {
			round(p, "a", "2")
		}
		time.Sleep(30 * time.Second)
		round(p, "a")
		for range 2 {
			if got := round(p, "a", "2"); !contains(got, '2') {
				t.Fatalf("got %s", got)
			}
		}
		round(p, "a", "2")
		if got := round(p, "a", "2"); contains(got, '2') {
			t.Errorf("three failures more: got %s", got)
		}
		time.Sleep(30 * time.Second)
		if got := round(p, "a"); !contains(got, '2') {
			t.Errorf("it had healed, and cools as long as the first time: got %s", got)
		}
	})
	run("for all targets when it fails at several", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		for _, target := range []string{"a", "b", "c"} {
			round(p, target, "2")
		}
		if got := cools(p); got != "2" {
			t.Errorf("cooling: %q", got)
		}
		if got := round(p, "d"); contains(got, '2') {
			t.Errorf("got %s", got)
		}
	})
	run("but some are kept", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		for i := range 10 {
			round(p, fmt.Sprint(i), "1", "2", "3")
		}
		if got := cools(p); len(got) != 2 {
			t.Errorf("cooling: %q", got)
		}
	})
	run("for an error of its own, whoever else succeeds", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		for range 3 {
			for range 4 {
				turn, _ := p.Next(&Request{}, dst4, nil)
				if turn.Addr.As4()[3] == 3 {
					turn.failed("", true)
				}
				turn.Done()
			}
		}
		if got := cools(p); got != "3" {
			t.Errorf("cooling: %q", got)
		}
	})
	run("in every strategy", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		for _, s := range []Strategy{RoundRobin, Random, LeastUsed, PerTarget, Hash} {
			p := poolOf(Config{Strategy: s, Cooldown: cooling}, four...)
			p.Cool("10.0.0.2", "", time.Hour)
			p.Cool("10.0.0.3", "a", time.Hour)
			for i := range 100 {
				r := &Request{Target: "a", Client: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}
				turn, err := p.Next(r, dst4, nil)
				if err != nil || turn.Addr.As4()[3] == 2 || turn.Addr.As4()[3] == 3 || turn.Cooling {
					t.Fatalf("%s: got %+v, %v", s, turn, err)
				}
			}
		}
	})
	run("which a session does not sit out", Config{Cooldown: cooling}, func(t *testing.T, p *Pool) {
		r := Request{User: "ann", Session: Session{ID: "x"}}
		leave(p, r)
		p.Cool("10.0.0.1", "", time.Hour)
		if got := leave(p, r) + leave(p, r); got != "22" {
			t.Errorf("got %s", got)
		}
		r.Session.Refuse = true
		p.Cool("10.0.0.2", "", time.Hour)
		_, err := p.Next(&r, dst4, nil)
		if c, ok := errors.AsType[*Cooling](err); !ok || c.After != time.Hour {
			t.Errorf("got %v", err)
		}
	})
	run("without being waited for longer than another source takes", Config{Cooldown: cooling, Spacing: time.Second}, func(t *testing.T, p *Pool) {
		p.Cool("10.0.0.1", "", 100*time.Millisecond)
		if got := tries(p, "a a a a"); got != "2 3 4 -" {
			t.Errorf("got %s", got)
		}
	})
}

func contains(s string, b byte) bool {
	for i := range len(s) {
		if s[i] == b {
			return true
		}
	}
	return false
}

func TestAllCool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := poolOf(Config{Cooldown: cooling}, "10.0.0.1", "10.0.0.2", "10.0.0.3")
		p.Cool("10.0.0.1", "", time.Hour)
		p.Cool("10.0.0.2", "", time.Minute)
		p.Cool("10.0.0.3", "", 2*time.Minute)
		turn, err := p.Next(&Request{}, dst4, nil)
		if err != nil || turn.Addr.String() != "10.0.0.2" || !turn.Cooling {
			t.Errorf("the least bad: got %+v, %v", turn, err)
		}
		refuse := cooling
		refuse.Refuse = true
		p.Set(Config{Cooldown: refuse}, sourcesOf("10.0.0.1", "10.0.0.2", "10.0.0.3"))
		_, err = p.Next(&Request{}, dst4, nil)
		if c, ok := errors.AsType[*Cooling](err); !ok || c.After != time.Minute {
			t.Errorf("refused: got %v", err)
		}
		time.Sleep(time.Minute)
		if got := leave(p, Request{}); got != "2" {
			t.Errorf("later: got %s", got)
		}
	})
}

func TestCool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := poolOf(Config{Cooldown: cooling}, "10.0.0.1", "10.0.0.2", "fd00::1")
		for _, source := range []string{"10.0.0.3", "", "x", "10.0.0.0/24"} {
			if err := p.Cool(source, "", time.Hour); !errors.Is(err, ErrNoMatch) {
				t.Errorf("%q: got %v", source, err)
			}
		}
		for _, source := range []string{"::ffff:10.0.0.1", "fd00::1"} {
			if err := p.Cool(source, "", time.Hour); err != nil {
				t.Errorf("%q: got %v", source, err)
			}
		}
		turn, _ := p.Next(&Request{Target: "a", Source: netip.MustParseAddr("10.0.0.1")}, dst4, nil)
		if !turn.Cooling {
			t.Error("who asks for a source by its address gets it, and is told")
		}
		turn.worked(&Request{Target: "a"}) // the site did answer 429, and only the client saw that
		if got := tries(p, "a b"); got != "2 2" {
			t.Errorf("told: got %s", got)
		}
		p.Cool("10.0.0.1", "", 0)
		if got := tries(p, "a b"); got != "1 2" {
			t.Errorf("told that it is over: got %s", got)
		}
		p.Cool("10.0.0.2", "a", time.Hour)
		if got := tries(p, "a b a b"); got != "1 2 1 2" {
			t.Errorf("at one target: got %s", got)
		}
	})
}

// Failures at ever new targets neither grow without bound nor keep others from
// being noticed.
func TestHealthIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := poolOf(Config{Cooldown: cooling}, "10.0.0.1", "10.0.0.2")
		fail := func(target string) {
			turn, _ := p.Next(&Request{Target: target}, dst4, nil)
			turn.failed(target, false)
			turn.Done()
		}
		for i := range maxSites + 10 {
			fail(fmt.Sprint(i))
		}
		if len(p.sites.byTarget) > maxSites || p.troubled > maxTroubled {
			t.Errorf("%d targets, %d healths", len(p.sites.byTarget), p.troubled)
		}
		time.Sleep(remembered + time.Minute)
		for range 3 {
			round(p, "a", "2")
		}
		if got := round(p, "a"); got != "11" {
			t.Errorf("got %s", got)
		}
	})
}
