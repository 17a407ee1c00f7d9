package rules

import (
	"fmt"
	"slices"
	"strings"

	"swivel/internal/target"
)

// iptablesRemove removes all that IPTables loads, for any set.
const iptablesRemove = "for i in iptables ip6tables; do for t in nat mangle; do for c in PREROUTING OUTPUT; do " +
	"$i -w -t $t -D $c -j SWIVEL_$c; $i -w -t $t -F SWIVEL_$c; $i -w -t $t -X SWIVEL_$c; done; done; done 2>/dev/null"

// chain is a chain of ours and its rules. It is called from the built-in one that it
// is named after.
type chain struct {
	table, builtin string
	rules          []string
}

func (c chain) name() string { return "SWIVEL_" + c.builtin }

// IPTables returns s as a script for sh(1), with iptables and ip6tables. The rules of
// each table take effect at once; what other sets left behind is removed after that.
func (s *Set) IPTables() (string, error) {
	if err := s.Validate(); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("#!/bin/sh\n")
	b.WriteString(s.comments("sh", iptablesRemove))
	b.WriteString("set -e\n")
	for _, f := range []struct {
		program string
		v4      bool
	}{{"iptables", true}, {"ip6tables", false}} {
		s.writeFamily(&b, f.program, s.chains(f.v4))
	}
	return b.String(), nil
}

func (s *Set) writeFamily(b *strings.Builder, program string, chains []chain) {
	fmt.Fprintf(b, "\n%s-restore -w --noflush <<'END'\n", program)
	for _, table := range []string{"nat", "mangle"} {
		body := ""
		for _, c := range chains {
			if c.table == table {
				body += fmt.Sprintf(":%s -\n", c.name()) // makes it, or empties it
				for _, r := range c.rules {
					body += fmt.Sprintf("-A %s %s\n", c.name(), r)
				}
			}
		}
		if body != "" {
			fmt.Fprintf(b, "*%s\n%sCOMMIT\n", table, body)
		}
	}
	b.WriteString("END\n")
	for _, table := range []string{"nat", "mangle"} {
		for _, builtin := range []string{"PREROUTING", "OUTPUT"} {
			run := fmt.Sprintf("%s -w -t %s", program, table)
			jump := fmt.Sprintf("%s -j SWIVEL_%[1]s", builtin)
			if slices.ContainsFunc(chains, func(c chain) bool { return c.table == table && c.builtin == builtin }) {
				fmt.Fprintf(b, "%s -C %s 2>/dev/null || %[1]s -A %s\n", run, jump)
				continue
			}
			fmt.Fprintf(b, "{ %s -D %s && %[1]s -F SWIVEL_%[3]s && %[1]s -X SWIVEL_%[3]s; } 2>/dev/null || true\n", run, jump, builtin)
		}
	}
}

// chains returns the chains of one family.
func (s *Set) chains(v4 bool) []chain {
	chains := s.captureChains(v4)
	output, prerouting := s.iptablesUnwrap(v4)
	for _, c := range []chain{{"mangle", "OUTPUT", output}, {"mangle", "PREROUTING", prerouting}} {
		i := slices.IndexFunc(chains, func(o chain) bool { return o.name() == c.name() && o.table == c.table })
		switch {
		case len(c.rules) == 0:
		case i < 0:
			chains = append(chains, c)
		default:
			chains[i].rules = append(c.rules, chains[i].rules...)
		}
	}
	return chains
}

// captureChains are those that s.Captures need.
func (s *Set) captureChains(v4 bool) (chains []chain) {
	const own = "-m addrtype --dst-type LOCAL -j RETURN"
	redirect := s.iptablesRules(false, v4, s.iptablesRedirect)
	tproxy := s.iptablesRules(true, v4, s.iptablesTProxy)
	if !s.local() {
		if len(redirect) > 0 {
			chains = append(chains, chain{"nat", "PREROUTING", append([]string{own}, redirect...)})
		}
		if len(tproxy) > 0 {
			chains = append(chains, chain{"mangle", "PREROUTING", append([]string{own}, tproxy...)})
		}
		return chains
	}
	if len(redirect) > 0 {
		chains = append(chains, chain{"nat", "OUTPUT", append([]string{s.iptablesExclude(), own}, redirect...)})
	}
	if len(tproxy) > 0 { // see NFT
		marks := s.iptablesRules(true, v4, func(Capture, bool) string { return fmt.Sprintf("-j MARK --set-mark %#x", Mark) })
		chains = append(chains,
			chain{"mangle", "OUTPUT", append([]string{s.iptablesExclude(), own, "-m conntrack --ctdir REPLY -j RETURN"}, marks...)},
			chain{"mangle", "PREROUTING", append([]string{"! -i lo -j RETURN", fmt.Sprintf("-m mark ! --mark %#x -j RETURN", Mark)}, tproxy...)})
	}
	return chains
}

func (s *Set) iptablesExclude() string {
	if s.Exclude.By == "uid" {
		return fmt.Sprintf("-m owner --uid-owner %d -j RETURN", s.Exclude.Value)
	}
	return fmt.Sprintf("-m mark --mark %#x -j RETURN", s.Exclude.Value)
}

// maxPorts is how many ports fit into one match, of which a range takes two.
const maxPorts = 15

func (s *Set) iptablesRules(tproxy, v4 bool, verdict func(c Capture, v4 bool) string) (rules []string) {
	for _, c := range s.Captures {
		if _, ok := s.to(c, v4); !ok || c.TProxy != tproxy {
			continue
		}
		tail := fmt.Sprintf("-m comment --comment %q %s", c.comment(), verdict(c, v4))
		if all(c.Ports) {
			rules = append(rules, "-p tcp "+tail)
			continue
		}
		for _, ports := range chunks(c.Ports) {
			rules = append(rules, fmt.Sprintf("-p tcp -m multiport --dports %s %s", strings.Join(portList(ports, ":"), ","), tail))
		}
	}
	return rules
}

func chunks(ports []target.PortRange) (list [][]target.PortRange) {
	size := maxPorts
	for _, p := range ports {
		n := 1
		if p.To != p.From {
			n = 2
		}
		if size+n > maxPorts {
			list, size = append(list, nil), 0
		}
		list[len(list)-1] = append(list[len(list)-1], p)
		size += n
	}
	return list
}

func (s *Set) iptablesRedirect(c Capture, v4 bool) string {
	to, _ := s.to(c, v4)
	if to.Addr().IsUnspecified() {
		return fmt.Sprintf("-j REDIRECT --to-ports %d", to.Port())
	}
	return "-j DNAT --to-destination " + to.String()
}

func (s *Set) iptablesTProxy(c Capture, v4 bool) string {
	to, _ := s.to(c, v4)
	where := fmt.Sprintf("--on-port %d", to.Port())
	if !to.Addr().IsUnspecified() {
		where += " --on-ip " + to.Addr().String()
	}
	return fmt.Sprintf("-j TPROXY %s --tproxy-mark %#x", where, Mark)
}
