package main

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes a copy of this program the baseline relay, as main does.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "relay" {
		serveBaseline(os.Args[2], os.Args[3])
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// tiny is enough to see that everything works. Nothing it yields is a measurement.
var tiny = scale{
	rounds: 1, warm: 20 * time.Millisecond, window: 60 * time.Millisecond,
	flows: []int{2}, sizes: []int{100, 16 << 10}, exchangers: []int{3},
	connections: 40,
	trips:       2, gap: 10 * time.Millisecond,
	idle: []int{20}, idleRounds: 1, idleFor: 40 * time.Millisecond,
	beside: []int{0, 20}, unprivilegedRounds: 1,
	slow:      10,
	datagrams: []datagramCase{{3, 2}},
	held:      5, spike: 20, rest: 20 * time.Millisecond,
}

func TestWorks(t *testing.T) {
	relays := []string{"swivel", "go"}
	r, err := run(t.Context(), &options{scale: tiny, works: workNames(), only: relays})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range r.notes {
		if n.Relay != "strace" && n.Relay != "all" {
			t.Errorf("%s: %s: %s", n.Work, n.Relay, n.Text)
		}
	}
	if len(r.tables) != len(works) {
		t.Fatalf("%d works were done, want %d", len(r.tables), len(works))
	}
	positive := []metric{cpuPerGB, rate, cpuPerTrip, tripRate, percentile99, cpuPerConnection, firstMedian, lastWorst, connectionRate, descriptorsPer, memoryStart}
	for _, table := range r.tables {
		switch {
		case table.work.name == "datagrams": // see TestDatagrams
		case len(table.cases) == 0 && (table.work.name != "unprivileged" || os.Geteuid() == 0):
			t.Errorf("%s: nothing was measured", table.work.name)
		}
		for _, g := range table.cases {
			if len(g.relays) != len(relays) {
				t.Errorf("%s, %s: %d relays, want %d", table.work.name, g.name, len(g.relays), len(relays))
			}
			for key, samples := range g.samples {
				for _, v := range samples {
					if math.IsNaN(v) || math.IsInf(v, 0) {
						t.Errorf("%s, %s: %s of %s is %v", table.work.name, g.name, key.metric.name, key.relay, v)
					}
				}
			}
			for _, m := range positive {
				for _, name := range relays {
					if s := g.samples[sampled{name, m}]; len(s) > 0 && s[0] <= 0 {
						t.Errorf("%s, %s: %s of %s is %v, want it above 0", table.work.name, g.name, m.name, name, s[0])
					}
				}
			}
		}
	}
}

func TestRouterConfigs(t *testing.T) {
	if n := len(paddedHello()); n < helloSize || n > helloSize+100 {
		t.Errorf("a hello of %d bytes, want %d", n, helloSize)
	}
	o, err := parse([]string{"-sni", "-quick", "-work", "connect,idle"})
	if err != nil {
		t.Fatal(err)
	}
	o.scale = tiny
	r, err := run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range r.notes {
		if n.Relay != "strace" && n.Text != "not installed" {
			t.Errorf("%s: %s: %s", n.Work, n.Relay, n.Text)
		}
	}
	for _, table := range r.tables {
		if len(table.cases) == 0 {
			t.Errorf("%s: nothing was measured", table.work.name)
		}
	}
}

// This one is for a network namespace of its own: it changes routes.
func TestDatagrams(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	// Not unlocked: the thread, which is in a namespace of its own, ends with the test.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip(err)
	}
	if err := loopbackUp(); err != nil {
		t.Fatal(err)
	}
	r, err := run(t.Context(), &options{scale: tiny, works: []string{"datagrams"}, only: []string{"swivel-udp"}, isolated: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range r.notes {
		t.Errorf("%+v", n)
	}
	g := r.tables[0].cases[0]
	for _, m := range []metric{cpuPerDatagram, datagramRate, flowRSS} {
		if s := g.samples[sampled{"swivel-udp", m}]; len(s) != 1 || s[0] <= 0 {
			t.Errorf("%s: got %v", m.name, s)
		}
	}
}

func TestRatios(t *testing.T) {
	r := newReport()
	r.begin(work{name: "w", about: "about"})
	for _, add := range []struct {
		relay  *relay
		values []float64
	}{
		{&relay{name: "swivel", kind: ours}, []float64{2, 1, 9}},
		{&relay{name: "good", kind: peer}, []float64{4, 4, 4}},
		{&relay{name: "bad", kind: peer}, []float64{8, 8, 8}},
		{&relay{name: "plain", kind: baseline}, []float64{1, 1, 1}},
	} {
		for _, v := range add.values {
			r.add("case", add.relay, metric{"cost", lower}, v)
			r.add("case", add.relay, metric{"gain", higher}, v)
		}
	}
	want := map[string]float64{
		"swivel cost": 0.5, "good cost": 1, "bad cost": 2, "plain cost": 0.25,
		"swivel gain": 0.25, "good gain": 0.5, "bad gain": 1, "plain gain": 0.125,
	}
	for _, s := range r.tables[0].cases[0].list("w") {
		if w := want[s.Relay+" "+s.Metric]; s.Ratio != w {
			t.Errorf("%s of %s: ratio %v, want %v", s.Metric, s.Relay, s.Ratio, w)
		}
	}
	r.note("gone", errors.New("not installed"))
	var b strings.Builder
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"w: about", "±200%  0.50", "gone: not installed"} {
		if !strings.Contains(b.String(), w) {
			t.Errorf("the table lacks %q:\n%s", w, b.String())
		}
	}
}

// The origin skips a ClientHello, as behind a relay that routes by it.
func TestOriginSkipsHello(t *testing.T) {
	o, err := newOrigin()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{relay: &relay{door: hello}, addr: o.addr}
	c, err := r.tunnel(netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	c.close()
}

func TestTotalCalls(t *testing.T) {
	const table = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100           read
 40.00    0.000400           8        50        12 write
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           6       150        12 total
`
	got, err := totalCalls(table)
	if err != nil || got != 150.0/traced {
		t.Errorf("totalCalls = %v, %v, want %v", got, err, 150.0/traced)
	}
	if _, err := totalCalls("strace: attach: Operation not permitted\n"); err == nil {
		t.Error("totalCalls of no table: no error")
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"-work", "bulk,nothing"}, {"-only", "nobody"}, {"now"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("parse(%q): no error", args)
		}
	}
	o, err := parse([]string{"-quick", "-rounds", "7", "-work", "idle,bulk", "-only", "swivel"})
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 7 || o.slow != small.slow || len(o.works) != 2 || len(o.only) != 1 {
		t.Errorf("parse = %+v", o)
	}
}
