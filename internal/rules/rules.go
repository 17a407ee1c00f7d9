// Package rules writes what the kernel is told to do for transparent listeners and for
// those that connect from the addresses of their clients: a set for nft(8), or a script with sets for iptables-restore(8).
//
// What is written is complete, holds both families, may be loaded again and again,
// and says how it is loaded and removed. Each rule that brings connections to a
// listener has a comment of its own, by which Loaded finds it again.
//
// The package is pure: it writes text, and loads nothing.
package rules

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"swivel/internal/target"
)

// Set is what the kernel is to do for the listeners of one process. Each mode that
// needs the kernel has its own part of it.
type Set struct {
	Captures []Capture
	Exclude  Exclude
	Unwraps  []Unwrap
}

// Capture is the connections of others that the kernel sends to a listener. They are
// those that this host forwards, or those that it makes when Set.Exclude is not zero.
// What is for an address of this host is left alone in either case: it was not on
// its way to somewhere else.
type Capture struct {
	Name   string             // the listener's
	TProxy bool               // by TPROXY, not by REDIRECT or DNAT
	Ports  []target.PortRange // of the destination
	To     []netip.AddrPort   // where the listener listens; the unspecified address is all of its family
}

// Exclude tells the traffic of the process itself, which must not come back to it.
// The zero Exclude is that of a router, whose own traffic is none that it forwards.
type Exclude struct {
	By    string // uid, mark or ""
	Value uint32
}

// ParseExclude reads "uid:1000" or "mark:7".
func ParseExclude(s string) (Exclude, error) {
	by, text, _ := strings.Cut(s, ":")
	var e Exclude
	_, err := fmt.Sscanf(text, "%v", &e.Value)
	if by != "uid" && by != "mark" || err != nil || fmt.Sprint(e.Value) != text && fmt.Sprintf("%#x", e.Value) != text {
		return Exclude{}, fmt.Errorf("%q: write it as uid:1000, the user that swivel runs as, or mark:7, the mark of its listeners", s)
	}
	e.By = by
	if by == "mark" && e.Value == 0 {
		return Exclude{}, fmt.Errorf("%q: everything has mark 0", s)
	}
	return e, nil
}

// Mark is of packets that TPROXY has given to a listener, and Table is the routing
// table that makes them stay here.
const (
	Mark  = 0x5357
	Table = 5357
)

var errNothing = errors.New("no listener needs rules of the kernel (transparent: redirect or tproxy, or mode unwrap)")

// Validate reports what no rules could do.
func (s *Set) Validate() error {
	if len(s.Captures) == 0 && len(s.Unwraps) == 0 {
		return errNothing
	}
	for _, u := range s.Unwraps {
		if err := u.validate(); err != nil {
			return fmt.Errorf("listener %s: %w", u.Name, err)
		}
	}
	if s.Exclude == (Exclude{"mark", Mark}) {
		return fmt.Errorf("mark %#x: is used by the rules themselves", Mark)
	}
	for i := range s.Captures {
		c := &s.Captures[i]
		if err := s.validate(c); err != nil {
			return fmt.Errorf("listener %s: %w", c.Name, err)
		}
		for _, d := range s.Captures[:i] {
			if p, both := overlap(c.Ports, d.Ports); both {
				return fmt.Errorf("listeners %s and %s: both capture port %d", d.Name, c.Name, p)
			}
		}
	}
	return nil
}

func (s *Set) validate(c *Capture) error {
	if len(c.Ports) == 0 {
		return errors.New("it captures no port")
	}
	reachable := false
	for _, to := range c.To {
		if to.Port() == 0 {
			return errors.New("port 0 is another each time (give it a port)")
		}
		reachable = reachable || s.reachable(*c, to)
	}
	if !reachable {
		return fmt.Errorf("nothing that is forwarded can be sent to %v (listen on :%d)", c.To[0].Addr(), c.To[0].Port())
	}
	return nil
}

// reachable reports whether rules can send connections to an address of c. What is
// forwarded and gets another destination cannot get to ::1, for which there is no
// route_localnet.
func (s *Set) reachable(c Capture, to netip.AddrPort) bool {
	return s.local() || c.TProxy || to.Addr() != netip.IPv6Loopback()
}

// local reports whether s is for the connections that this host makes.
func (s *Set) local() bool { return s.Exclude.By != "" }

// LocalNet reports whether forwarded connections are sent to 127.0.0.0/8, for which
// the sysctl net.ipv4.conf.all.route_localnet must be set.
func (s *Set) LocalNet() bool {
	for _, c := range s.Captures {
		if to, ok := s.to(c, true); ok && !s.local() && !c.TProxy && to.Addr().IsLoopback() {
			return true
		}
	}
	return false
}

// to returns where the connections of one family are sent, if anywhere.
func (s *Set) to(c Capture, v4 bool) (to netip.AddrPort, ok bool) {
	for _, to := range c.To {
		if to.Addr().Is4() == v4 && s.reachable(c, to) {
			return to, true
		}
	}
	return netip.AddrPort{}, false
}

// has reports whether any capture of s is for this family and way.
func (s *Set) has(tproxy, v4 bool) bool {
	for _, c := range s.Captures {
		if _, ok := s.to(c, v4); ok && c.TProxy == tproxy {
			return true
		}
	}
	return false
}

// comment returns the comment of c's rules. It changes with all that they depend on
// but Exclude, which the running process does not know.
func (c Capture) comment() string {
	return comment(c.Name, fmt.Sprintf("%q %t %v %v", c.Name, c.TProxy, c.Ports, c.To))
}

func comment(name, what string) string {
	h := fnv.New32a()
	h.Write([]byte(what))
	name = strings.Map(func(r rune) rune {
		if r > ' ' && r <= '~' && !strings.ContainsRune("\"'`$\\#;", r) {
			return r
		}
		return '_'
	}, name)
	return fmt.Sprintf("swivel %.60s %08x", name, h.Sum32())
}

// Loaded reports whether a list of rules, as nft or iptables-save print it, holds
// those of c.
func (c Capture) Loaded(list string) bool { return strings.Contains(list, c.comment()) }

// overlap returns the first port that is in both.
func overlap(a, b []target.PortRange) (port uint16, ok bool) {
	for _, x := range a {
		for _, y := range b {
			if from := max(x.From, y.From); from <= min(x.To, y.To) {
				return from, true
			}
		}
	}
	return 0, false
}

// all reports whether ports are those that there are.
func all(ports []target.PortRange) bool {
	return len(ports) == 1 && ports[0] == target.PortRange{From: 1, To: 65535}
}

// portList writes ports with a dash or colon between the ends of a range.
func portList(ports []target.PortRange, dash string) (list []string) {
	for _, p := range ports {
		s := fmt.Sprint(p.From)
		if p.To != p.From {
			s += dash + fmt.Sprint(p.To)
		}
		list = append(list, s)
	}
	return list
}

// comments are the first lines of what is written.
func (s *Set) comments(load, remove string) string {
	what := "Brings to swivel the connections that this host forwards"
	switch {
	case len(s.Captures) == 0:
		what = "Keeps on this host what servers answer to clients, as whom swivel connects to them"
	case s.local():
		what = "Brings to swivel " + fmt.Sprintf("the connections that this host makes, but for those of %s %d", s.Exclude.By, s.Exclude.Value)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s.\n#\n#   load, or load again:  swivel rules … | %s\n#   remove:               %s\n", what, load, remove)
	taken := s.Routes()
	answers := slices.DeleteFunc(s.UnwrapRoutes(), func(line string) bool { return slices.Contains(taken, line) })
	for _, need := range []struct {
		what  string
		lines []string
	}{{"what TPROXY takes", taken}, {"what servers answer to clients", answers}} {
		if len(need.lines) > 0 {
			fmt.Fprintf(&b, "#\n# Also needed, so that %s stays on this host:\n#\n", need.what)
		}
		for _, line := range need.lines {
			b.WriteString("#   " + line + "\n")
		}
	}
	if s.LocalNet() {
		b.WriteString("#\n# Also needed, for a listener on 127.0.0.0/8:\n#\n#   " + LocalNetCommand + "\n")
	}
	return b.String()
}

// LocalNetCommand is what LocalNet needs.
const LocalNetCommand = "sysctl -w net.ipv4.conf.all.route_localnet=1"

// Routes returns the commands for the routes that TPROXY needs. The first of a
// family fails when it was run before, and does no harm.
func (s *Set) Routes() (lines []string) {
	for _, f := range []struct {
		flag string
		v4   bool
	}{{"-4", true}, {"-6", false}} {
		if s.has(true, f.v4) {
			lines = append(lines, ruleByMark(f.flag), localTable(f.flag))
		}
	}
	return lines
}

// UnwrapRoutes is Routes for what s.Unwraps need, each command once.
func (s *Set) UnwrapRoutes() (lines []string) {
	for _, u := range s.Unwraps {
		for _, line := range u.Routes() {
			if !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}
