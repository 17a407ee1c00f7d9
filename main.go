//go:build linux

// Command swivel relays TCP and chooses the address it leaves by.
//
//	main.go     commands, flags, exit codes
//	run.go      from a configuration to listening sockets; signals, reload, drain
//	wiring.go   what is built from a configuration, before it takes effect
//	mode_*.go   the front door of each mode
//	datagrams.go UDP, of mode unwrap
//	admin.go    the admin address, and what it shows
//	follow.go   the pools, as the host changes
//	prefix.go   sources that are prefixes
//	sources.go  the pools' sources, from the configuration and the host's state
//	upstream.go sources that are other proxies; services.go the DNS that tells of them
//	region.go   countries, and which sources are for whom
//	check.go    swivel check, with check_exits.go
//	rules.go    swivel rules, and in check_rules.go whether they are in place;
//	            check_unwrap.go proves that servers' answers come back
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"swivel/internal/config"
)

const usage = `swivel relays TCP and chooses the address it leaves by.

A proxy for this host (CONNECT, plain HTTP and SOCKS5 on one port), each of whose
connections leaves by the next of this host's addresses:

	swivel
	curl -x localhost:8080 https://example.com/

The same for others, with a password, through the addresses of one interface:

	swivel -listen :8080 -users users.htpasswd -pool eth0

A router, whose clients know nothing of it: TLS and plain HTTP by server name, here
all of it to where it was going, which is a line in the log:

	swivel rules -mode sni -listen :8443 -transparent redirect -capture 443,80 | nft -f -
	swivel -mode sni -listen :8443 -transparent redirect -capture 443,80

Everything else is in a file:

	swivel -config swivel.yaml

Commands (the first argument; run when there is none), each with the same flags:

	run       serve until SIGTERM; SIGHUP reads file, users and certificates again
	check     judge the configuration and this host; status 1 if anything is missing
	rules     print the nftables or iptables rules that transparent listeners need
	sources   list the pools as they are now
	version   print the version

Flags, each also a variable (-log-level is SWIVEL_LOG_LEVEL):

`

func main() {
	os.Exit(command(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// command runs the command that args name and returns the exit status.
func command(args, environ []string, stdout, stderr *os.File) int {
	name := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	var run func(load loader, stdout *os.File) error
	own := func(*flag.FlagSet) {} // registers flags of the command alone
	switch name {
	case "run":
		run = serve
	case "check":
		run = check
	case "sources":
		run = sources
	case "rules":
		r := new(rulesCommand)
		run, own = r.run, r.register
	case "version":
		fmt.Fprintln(stdout, version())
		return 0
	case "help":
		printUsage(stdout)
		return 0
	default:
		return fail(stderr, fmt.Errorf("%s: no such command (run, check, rules, sources or version; swivel help)", name))
	}
	load, err := parse(args, environ, own)
	switch {
	case errors.Is(err, flag.ErrHelp):
		printUsage(stdout)
		return 0
	case err == nil:
		err = run(load, stdout)
	}
	if err != nil {
		return fail(stderr, err)
	}
	return 0
}

// loader reads the configuration, again each time that it is called.
type loader func() (*config.Config, error)

func parse(args, environ []string, own func(*flag.FlagSet)) (loader, error) {
	var f config.Flags
	fs := newFlagSet(&f)
	own(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%s: not a flag (swivel help)", fs.Arg(0))
	}
	return func() (*config.Config, error) { return f.Build(fs, environ) }, nil
}

func newFlagSet(f *config.Flags) *flag.FlagSet {
	fs := flag.NewFlagSet("swivel", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	f.Register(fs)
	return fs
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, usage)
	shown := flag.NewFlagSet("swivel", flag.ContinueOnError)
	shown.SetOutput(w)
	new(config.Flags).Register(shown)
	shown.PrintDefaults()
	fmt.Fprint(w, "\nFlags of swivel rules alone:\n\n")
	own := flag.NewFlagSet("swivel rules", flag.ContinueOnError)
	own.SetOutput(w)
	new(rulesCommand).register(own)
	own.PrintDefaults()
}

// errStopped ends a command with status 1 without a word: all has been said.
var errStopped = errors.New("stopped")

func fail(stderr io.Writer, err error) int {
	if !errors.Is(err, errStopped) {
		fmt.Fprintf(stderr, "swivel: %v\n", err)
	}
	return 1
}

func version() string {
	v := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		v = info.Main.Version
	}
	return fmt.Sprintf("swivel %s (%s %s/%s)", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
