//go:build linux

// Command bench measures swivel beside the relays that a user would pick instead.
//
//	go run ./bench
//	go run ./bench -sni        routers by server name
//
// It builds swivel, starts every relay of relays.go that it finds, drives the same
// work through each over loopback, one after the other in rounds (A B C A B C), and
// prints a table per work: the median of the rounds, half the distance between the
// lowest and the highest, and the ratio to the best peer. README.md says what the
// figures mean and what they do not.
//
// The load is made by this process: one thread polls the client ends, another the
// origin (origin.go). Receivers discard in the kernel (MSG_TRUNC), senders send
// pages of a memory file (sendfile), so that the relay is what costs most. As root
// everything runs in namespaces of its own (isolate.go): without a packet filter or
// anybody else's ports, and nothing outlives the benchmark.
//
// The CPU time of a relay is the kernel's sum over its processes and threads, to
// the nanosecond (usage.go). Beside it stands that of the whole machine, since a
// relay that splices leaves work to the two ends of the connection, and on loopback
// whoever sends does the receiver's TCP as well.
//
// It does not measure DNS, TLS, rotation or more than one machine.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	// The process that isolated starts ends with the thread that started it.
	runtime.LockOSThread()
	if err := command(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	scale
	works  []string
	only   []string // relays; empty for all
	swivel string   // the binary; empty to build it
	json   bool
	sni    bool // routers by server name, not proxies

	isolated bool // in a network namespace of its own
}

func command(args []string) error {
	if len(args) == 3 && args[0] == "relay" {
		return serveBaseline(args[1], args[2])
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if !inside() {
			return isolated()
		}
		if err := furnish(); err != nil {
			return err
		}
		o.isolated = true
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, err := run(ctx, o)
	if err != nil {
		return err
	}
	if o.json {
		return r.writeJSON(os.Stdout)
	}
	return r.write(os.Stdout)
}

func parse(args []string) (*options, error) {
	o := new(options)
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := fs.Bool("quick", false, "fewer cases and rounds: under 3 minutes, not under 20")
	rounds := fs.Int("rounds", 0, "how often each relay has its turn (default 5, 2 with -quick)")
	names := fs.String("work", "", "what to measure (default all, with -sni "+strings.Join(routerWorks, ",")+"): "+strings.Join(workNames(), ","))
	only := fs.String("only", "", "relays to measure (default all that are found): "+strings.Join(relayNames(allRelays("", "")), ","))
	fs.StringVar(&o.swivel, "swivel", "", "`file` to measure as swivel (default built from this module)")
	fs.BoolVar(&o.sni, "sni", false, "measure routers by server name: "+strings.Join(relayNames(routers("")), ","))
	fs.BoolVar(&o.json, "json", false, "print every sample as JSON, not tables")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	o.scale = full
	if *quick {
		o.scale = small
	}
	if *rounds > 0 {
		o.rounds = *rounds
	}
	o.works = strings.Split(cmp.Or(*names, o.defaultWorks()), ",")
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("%s: not a flag (bench -h)", fs.Arg(0))
	case !subset(o.works, workNames()):
		return nil, fmt.Errorf("-work %s: there are %s", *names, strings.Join(workNames(), ","))
	case !subset(o.only, relayNames(o.candidates("", ""))):
		return nil, fmt.Errorf("-only %s: there are %s", *only, strings.Join(relayNames(o.candidates("", "")), ","))
	}
	return o, nil
}

// candidates are the relays that may be measured.
func (o *options) candidates(swivel, self string) []*relay {
	if o.sni {
		return routers(swivel)
	}
	return allRelays(swivel, self)
}

func (o *options) defaultWorks() string {
	if o.sni {
		return strings.Join(routerWorks, ",")
	}
	return strings.Join(workNames(), ",")
}

func subset(list, of []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !slices.Contains(of, s) })
}

// bench is a run of the benchmark.
type bench struct {
	scale
	dir    string // for binaries and configurations; every user may read it
	origin *origin
	relays []*relay
	report *report

	isolated bool // in a network namespace of its own
}

// run does the works that o names, with the relays that it names and finds.
func run(ctx context.Context, o *options) (*report, error) {
	raiseLimit()
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	b := &bench{scale: o.scale, dir: dir, report: newReport(), isolated: o.isolated}
	if b.relays, err = b.find(ctx, o); err != nil {
		return nil, err
	}
	if b.origin, err = newOrigin(); err != nil {
		return nil, err
	}
	for _, w := range works {
		if !slices.Contains(o.works, w.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", w.name)
		b.report.begin(w)
		if err := w.run(ctx, b); err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		if ctx.Err() != nil {
			break // what there is, is printed
		}
	}
	return b.report, nil
}

// find returns the relays to measure, built or found on PATH, and notes those that
// are missing.
func (b *bench) find(ctx context.Context, o *options) (list []*relay, err error) {
	swivel := o.swivel
	if swivel == "" {
		swivel = filepath.Join(b.dir, "swivel")
		if err := goBuild(ctx, swivel); err != nil {
			return nil, err
		}
	}
	self := filepath.Join(b.dir, "bench")
	if err := copySelf(self); err != nil {
		return nil, err
	}
	for _, r := range o.candidates(swivel, self) {
		if len(o.only) > 0 && !slices.Contains(o.only, r.name) {
			continue
		}
		if r.file = lookPath(r.file); r.file == "" {
			b.report.note(r.name, errors.New("not installed"))
			continue
		}
		list = append(list, r)
	}
	return list, nil
}

// raiseLimit raises the limit of descriptors, which relays inherit, to the hard one.
func raiseLimit() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
		l.Cur = l.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	}
}
