//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// fleet is a gateway whose pool is three other swivels, each with two addresses of
// its own in its country.
//
//	┌ gate ─────────────────┐   ┌ de ──────────────────────────┐   ┌ far ─────────┐
//	│ lo  swivel, clients   ├───┤ in 10.5.1.1   out 10.6.1.1 .2├───┤              │
//	│                       │   └──────────────────────────────┘   │ lo  10.2.0.1 │
//	│                       ├───┤ at: 10.5.2.1      10.6.2.1 .2├───┤     :443     │
//	│ 10.5.N.254            ├───┤ ch: 10.5.3.1      10.6.3.1 .2├───┤  10.6.N.254  │
//	└───────────────────────┘   └──────────────────────────────┘   └──────────────┘
//
// The origin tells each client its address, and then sends back what it gets.
type fleet struct {
	t     *testing.T
	gate  *netlab.Namespace
	exits []*netlab.Namespace
	runs  []*swivel
	s     *swivel // the gateway
}

var countries = []string{"de", "at", "ch"}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	lab := netlab.New(t)
	f := &fleet{t: t, gate: lab.Namespace("gate")}
	far := lab.Namespace("far")
	far.Addr("lo", "10.2.0.1/32")
	sources := ""
	for i, country := range countries {
		ns, n := lab.Namespace(country), i+1
		gateIf, farIf := "to-"+country, "from-"+country
		lab.Join(f.gate, ns, gateIf, "in")
		lab.Join(ns, far, "out", farIf)
		f.gate.Addr(gateIf, fmt.Sprintf("10.5.%d.254/24", n))
		ns.Addr("in", fmt.Sprintf("10.5.%d.1/24", n))
		ns.Addr("out", fmt.Sprintf("10.6.%d.1/24", n), fmt.Sprintf("10.6.%d.2/24", n))
		far.Addr(farIf, fmt.Sprintf("10.6.%d.254/24", n))
		ns.IP("route", "add", "default", "via", fmt.Sprintf("10.6.%d.254", n))
		f.exits = append(f.exits, ns)
		f.runs = append(f.runs, f.startExit(i))
		sources += fmt.Sprintf("      - {upstream: 'http://gate:secret@10.5.%d.1:8080', labels: {country: %s}, forward_session: on}\n", n, country)
	}
	(&network{t: t, far: far}).serve(origin4)
	f.s = startIn(t, f.gate, "-config", config(t, fmt.Sprintf(`
admin: {listen: 127.0.0.1:9080}
limits: {dial: 20s}
pools:
  fleet:
    cooldown: {after: 3, for: 200ms, most: 1s}
    sources:
%slisteners:
  - {name: egress, listen: %q, destinations: {allow: [10.2.0.0/16]}}
`, sources, proxyAddr)))
	return f
}

func (f *fleet) startExit(i int) *swivel {
	return startIn(f.t, f.exits[i], "-listen", fmt.Sprintf("10.5.%d.1:8080", i+1), "-clients", "10.5.0.0/16", "-pool", "out", "-allow", "10.2.0.0/16")
}

// ask opens a tunnel to the origin as a user, and closes it. It returns the address
// that the origin saw. It may be called by any goroutine.
func (f *fleet) ask(user string) (from string, err error) {
	c, err := f.gate.Dial(f.t.Context(), "tcp", proxyAddr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	head, err := connect(c, origin4, basic(user, "any"))
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		return "", fmt.Errorf("CONNECT as %s: %q, %w", user, head, err)
	}
	from, err = bufio.NewReader(c).ReadString('\n')
	from = strings.TrimSpace(from)
	if err == nil && field(head, "Swivel-Source") != from {
		err = fmt.Errorf("Swivel-Source is %s, the origin saw %s", field(head, "Swivel-Source"), from)
	}
	return from, err
}

// exitOf is the country of an address that the origin saw.
func exitOf(from string) string {
	for i, country := range countries {
		if strings.HasPrefix(from, fmt.Sprintf("10.6.%d.", i+1)) {
			return country
		}
	}
	return from
}

// asked returns the exits that so many requests go through.
func (f *fleet) asked(user string, n int) (through []string) {
	f.t.Helper()
	for range n {
		from, err := f.ask(user)
		if err != nil {
			f.t.Fatal(err)
		}
		through = append(through, exitOf(from))
	}
	return through
}

// client asks again and again, until done. Nothing may go wrong, and a session has
// one address.
func (f *fleet) client(user string, done <-chan struct{}) {
	first := ""
	for !isClosed(done) {
		from, err := f.ask(user)
		switch {
		case err != nil:
			f.t.Errorf("%s: %v", user, err)
			return
		case first == "" || !strings.Contains(user, "-session-"):
			first = from
		case from != first:
			f.t.Errorf("%s was moved from %s to %s", user, first, from)
			return
		}
	}
}

// TestFleet is the recipe of the README, run for real.
func TestFleet(t *testing.T) {
	f := newFleet(t)
	if got := f.asked("any", 6); !slices.Equal(got, []string{"de", "at", "ch", "de", "at", "ch"}) {
		t.Errorf("in turn: %v", got)
	}
	for _, country := range countries {
		if got := f.asked("any-country-"+country, 3); !slices.Equal(got, []string{country, country, country}) {
			t.Errorf("-country-%s: %v", country, got)
		}
	}
	if _, err := f.ask("any-country-us"); err == nil || !strings.Contains(err.Error(), "503 proxy_configuration_error") {
		t.Errorf("-country-us: %v, want a 503", err)
	}

	for name, cut := range map[string]func() (mend func()){
		"killed": func() func() {
			f.runs[0].signal(syscall.SIGKILL)
			<-f.runs[0].exited
			return func() { f.runs[0] = f.startExit(0) }
		},
		"unreachable": func() func() {
			f.exits[0].IP("link", "set", "in", "down")
			return func() { f.exits[0].IP("link", "set", "in", "up") }
		},
	} {
		t.Run("an exit is "+name, func(t *testing.T) {
			sub := *f
			sub.t = t
			sub.breaks(name, cut)
		})
	}
	f.s.stop()
}

// breaks breaks the first exit under load: requests move on to others, sessions on
// these stay where they are, and one that was on it moves. The exit is used again by
// itself when it is mended.
func (f *fleet) breaks(session string, cut func() (mend func())) {
	if got := f.asked("any-session-"+session+"-country-de", 1); got[0] != "de" {
		f.t.Errorf("a session in de goes through %s", got[0])
	}
	moves := "any-session-" + session + "m"
	for i := 0; ; i++ {
		if f.asked(fmt.Sprint(moves, i), 1)[0] == "de" {
			moves = fmt.Sprint(moves, i)
			break
		}
	}
	var clients sync.WaitGroup
	done := make(chan struct{})
	stop := sync.OnceFunc(func() {
		close(done)
		clients.Wait()
	})
	defer stop()
	for _, user := range []string{"a", "b", "c", "any-session-" + session + "at-country-at", "any-session-" + session + "ch-country-ch"} {
		clients.Go(func() { f.client(user, done) })
	}
	mend := cut()
	for range 4 {
		if got := f.asked("any", 1); got[0] == "de" {
			f.t.Error("the exit is used, which is gone")
		}
	}
	if got := f.asked(moves, 2); got[0] == "de" || got[0] != got[1] {
		f.t.Errorf("a session of the exit that is gone goes through %v", got)
	}
	mend()
	eventually(f.t, "the exit is not used again", func() bool {
		from, err := f.ask("any")
		return err == nil && exitOf(from) == "de"
	})
	stop()
}
