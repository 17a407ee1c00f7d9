package rules

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"swivel/internal/target"
)

// Unwrap is servers that a listener connects to from the addresses of its clients. What
// they answer is to stay on this host, or to come back to it.
//
// Servers on loopback are told by their address: nobody but this host can connect to
// them, and the kernel has no route from there to elsewhere that a mark could change.
// Connections to others are marked when they are made, by the one thing that no
// connection of this host has: a source that is not its own. Their answers then have
// the mark of the connection.
type Unwrap struct {
	Name  string // the listener's
	UDP   bool
	To    netip.Prefix
	Ports []target.PortRange // none means every port
}

func (u Unwrap) protocol() string {
	if u.UDP {
		return "udp"
	}
	return "tcp"
}

func (u Unwrap) comment() string {
	return comment(u.Name, fmt.Sprintf("%q %t %v %v", u.Name, u.UDP, u.To, u.Ports))
}

// Loaded is Capture.Loaded. For servers on loopback there is nothing to be loaded.
func (u Unwrap) Loaded(list string) bool {
	return u.onLoopback() || strings.Contains(list, u.comment())
}

func (u Unwrap) onLoopback() bool { return u.To.Addr().IsLoopback() }

func (u Unwrap) validate() error {
	for _, p := range u.Ports {
		if p.From == 0 {
			return errors.New("port 0 is another each time (give it a port)")
		}
	}
	return nil
}

// Routes returns the commands for the routes that u needs. The first fails when it was
// run before, and does no harm.
func (u Unwrap) Routes() (lines []string) {
	flag := "-6"
	if u.To.Addr().Is4() {
		flag = "-4"
	}
	if !u.onLoopback() {
		lines = append(lines, ruleByMark(flag))
	}
	if u.onLoopback() {
		from := fmt.Sprintf("ip %s rule add from %s iif lo ipproto %s", flag, host(u.To), u.protocol())
		tail := fmt.Sprintf(" lookup %d priority %[1]d", Table)
		for _, p := range portList(u.Ports, "-") {
			lines = append(lines, from+" sport "+p+tail)
		}
		if len(u.Ports) == 0 {
			lines = append(lines, from+tail)
		}
	}
	return append(lines, localTable(flag))
}

func ruleByMark(flag string) string {
	return fmt.Sprintf("ip %s rule add fwmark %#x lookup %d priority %[3]d", flag, Mark, Table)
}

func localTable(flag string) string {
	return fmt.Sprintf("ip %s route replace local default dev lo table %d", flag, Table)
}

// Marked are the members of s.Unwraps that are told by a mark.
func (s *Set) Marked() (list []Unwrap) {
	for _, u := range s.Unwraps {
		if !u.onLoopback() {
			list = append(list, u)
		}
	}
	return list
}

// nftUnwrap are the rules that give connections a mark, and that give it to their
// answers.
func (s *Set) nftUnwrap() (output, prerouting []string) {
	marked := s.Marked()
	if len(marked) == 0 {
		return nil, nil
	}
	answers := fmt.Sprintf("ct direction reply ct mark %#x meta mark set %#[1]x", Mark)
	for _, u := range marked {
		match := "meta nfproto ipv6 "
		daddr := "ip6 daddr "
		if u.To.Addr().Is4() {
			match, daddr = "meta nfproto ipv4 ", "ip daddr "
		}
		if u.To.Bits() > 0 {
			match += daddr + host(u.To) + " "
		}
		if len(u.Ports) == 0 || all(u.Ports) {
			match += "meta l4proto " + u.protocol()
		} else {
			match += u.protocol() + " dport { " + strings.Join(portList(u.Ports, "-"), ", ") + " }"
		}
		output = append(output, fmt.Sprintf("ct direction original fib saddr type != local %s ct mark set %#x comment %q", match, Mark, u.comment()))
	}
	return append(output, answers), []string{"iif != lo " + answers}
}

// iptablesUnwrap is nftUnwrap for one family of iptables.
func (s *Set) iptablesUnwrap(v4 bool) (output, prerouting []string) {
	answers := fmt.Sprintf("-m conntrack --ctdir REPLY -m connmark --mark %#x -j ", Mark)
	for _, u := range s.Marked() {
		if u.To.Addr().Is4() != v4 {
			continue
		}
		match := "-m conntrack --ctdir ORIGINAL -m addrtype ! --src-type LOCAL"
		if u.To.Bits() > 0 {
			match += " -d " + host(u.To)
		}
		match += " -p " + u.protocol()
		tail := fmt.Sprintf(" -m comment --comment %q -j CONNMARK --set-mark %#x", u.comment(), Mark)
		if len(u.Ports) == 0 || all(u.Ports) {
			output = append(output, match+tail)
			continue
		}
		for _, ports := range chunks(u.Ports) {
			output = append(output, match+" -m multiport --dports "+strings.Join(portList(ports, ":"), ",")+tail)
		}
	}
	if len(output) == 0 {
		return nil, nil
	}
	back := []string{answers + fmt.Sprintf("MARK --set-mark %#x", Mark), answers + "RETURN"}
	return append(output, back...), []string{"! -i lo " + back[0], "! -i lo " + back[1]}
}

// host is p, without its length when it is one address.
func host(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
