package rules

import (
	"fmt"
	"strings"
)

// nftRemove removes all that NFT loads.
const nftRemove = "nft delete table inet swivel"

// NFT returns s for nft(8). It is loaded in one transaction: the set that was there
// before holds until then.
func (s *Set) NFT() (string, error) {
	if err := s.Validate(); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("#!/usr/sbin/nft -f\n")
	b.WriteString(s.comments("nft -f -", nftRemove))
	// "delete" alone is an error where there is no table.
	b.WriteString("\ntable inet swivel\ndelete table inet swivel\ntable inet swivel {\n")
	chains := 0
	chain := func(name, head string, rules []string) {
		if chains++; chains > 1 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype %s; policy accept;\n", name, head)
		for _, r := range rules {
			b.WriteString("\t\t" + r + "\n")
		}
		b.WriteString("\t}\n")
	}
	redirect := s.nftRules(false, s.nftRedirect)
	tproxy := s.nftRules(true, s.nftTProxy)
	switch {
	case !s.local():
		own := []string{"fib daddr type local return"}
		if len(s.Marked()) > 0 {
			own = append(own, "ct direction reply return") // for unwrap_prerouting
		}
		if len(redirect) > 0 {
			chain("redirect_prerouting", "nat hook prerouting priority -100", append(own, redirect...))
		}
		if len(tproxy) > 0 {
			chain("tproxy_prerouting", "filter hook prerouting priority -150", append(own, tproxy...))
		}
	default:
		own := []string{s.nftExclude(), "fib daddr type local return"}
		if len(redirect) > 0 {
			chain("redirect_output", "nat hook output priority -100", append(own, redirect...))
		}
		if len(tproxy) > 0 {
			// TPROXY is only for what comes in. So what goes out is marked, which
			// routes it to lo, where it comes in. The answers of this host's own
			// servers go out as well, and are left alone.
			marks := s.nftRules(true, func(Capture, bool) string { return fmt.Sprintf("meta mark set %#x", Mark) })
			chain("tproxy_output", "route hook output priority -150", append(append(own, "ct direction reply return"), marks...))
			chain("tproxy_prerouting", "filter hook prerouting priority -150",
				append([]string{"iif != lo return", fmt.Sprintf("meta mark != %#x return", Mark)}, tproxy...))
		}
	}
	if output, prerouting := s.nftUnwrap(); len(output) > 0 {
		chain("unwrap_output", "route hook output priority -150", output)
		chain("unwrap_prerouting", "filter hook prerouting priority -150", prerouting)
	}
	b.WriteString("}\n")
	return b.String(), nil
}

func (s *Set) nftExclude() string {
	if s.Exclude.By == "uid" {
		return fmt.Sprintf("meta skuid %d return", s.Exclude.Value)
	}
	return fmt.Sprintf("meta mark %#x return", s.Exclude.Value)
}

// nftRules returns a rule for each capture of one way, or two where the families go
// to different places. verdict is what is done with what matches.
func (s *Set) nftRules(tproxy bool, verdict func(c Capture, v4 bool) string) (rules []string) {
	for _, c := range s.Captures {
		if c.TProxy != tproxy {
			continue
		}
		match := "meta l4proto tcp"
		if !all(c.Ports) {
			match = "tcp dport { " + strings.Join(portList(c.Ports, "-"), ", ") + " }"
		}
		_, is4 := s.to(c, true)
		_, is6 := s.to(c, false)
		comment := fmt.Sprintf(" comment %q", c.comment())
		if is4 && is6 && verdict(c, true) == verdict(c, false) {
			rules = append(rules, match+" "+verdict(c, true)+comment)
			continue
		}
		if is4 {
			rules = append(rules, "meta nfproto ipv4 "+match+" "+verdict(c, true)+comment)
		}
		if is6 {
			rules = append(rules, "meta nfproto ipv6 "+match+" "+verdict(c, false)+comment)
		}
	}
	return rules
}

func (s *Set) nftRedirect(c Capture, v4 bool) string {
	to, _ := s.to(c, v4)
	switch {
	case to.Addr().IsUnspecified():
		return fmt.Sprintf("redirect to :%d", to.Port())
	case v4:
		return "dnat ip to " + to.String()
	default:
		return "dnat ip6 to " + to.String()
	}
}

func (s *Set) nftTProxy(c Capture, v4 bool) string {
	to, _ := s.to(c, v4)
	where := fmt.Sprintf("to :%d", to.Port())
	switch {
	case to.Addr().IsUnspecified():
	case v4:
		where = "ip to " + to.String()
	default:
		where = "ip6 to " + to.String()
	}
	return fmt.Sprintf("meta mark set %#x tproxy %s accept", Mark, where)
}
