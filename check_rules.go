//go:build linux

package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"swivel/iface"
	"swivel/internal/config"
	"swivel/internal/rules"
)

// kernel judges what the kernel does for transparent listeners.
func (r *report) kernel(cfg *config.Config) {
	set := kernelRules(cfg)
	r.validMark(set)
	if len(set.Captures) == 0 {
		return
	}
	if err := set.Validate(); err != nil {
		r.miss("swivel rules has none that would work", "%v", err)
		return
	}
	l := listRules()
	for _, c := range set.Captures {
		r.captured(cfg, c, l)
		if c.TProxy {
			r.transparent(c.Name)
		}
	}
	r.routes(set)
	if set.LocalNet() && !sysctl("net.ipv4.conf.all.route_localnet") {
		r.miss(rules.LocalNetCommand, "net.ipv4.conf.all.route_localnet is 0: nothing that is forwarded gets to 127.0.0.1")
	}
	if strings.Contains(strings.ToLower(l.nft+l.ip4), "_prerouting") && !sysctl("net.ipv4.ip_forward") {
		r.note("sysctl -w net.ipv4.ip_forward=1, if this is their router", "net.ipv4.ip_forward is 0: what clients send to other ports than those captured goes nowhere")
	}
}

// ruleLists is what the kernel's rules are, as far as they can be seen.
type ruleLists struct {
	nft, ip4, ip6 string
	err           string // why they cannot be seen
}

func listRules() (l ruleLists) {
	var seen bool
	var why []string
	for _, q := range []struct {
		dst *string
		cmd []string
	}{
		{&l.nft, []string{"nft", "list", "ruleset"}},
		{&l.ip4, []string{"iptables-save"}},
		{&l.ip6, []string{"ip6tables-save"}},
	} {
		out, err := exec.Command(q.cmd[0], q.cmd[1:]...).Output()
		if *q.dst = string(out); err == nil {
			seen = true
			continue
		}
		why = append(why, err.Error())
	}
	if !seen {
		l.err = strings.Join(why, ", ")
	}
	// What iptables has loaded is among what nft lists.
	_, ours, _ := strings.Cut(l.nft, "table inet swivel {")
	l.nft, _, _ = strings.Cut(ours, "\n}")
	return l
}

// captured judges whether connections are sent to a listener.
func (r *report) captured(cfg *config.Config, c rules.Capture, l ruleLists) {
	if l.err != "" || os.Geteuid() != 0 && l.nft+l.ip4+l.ip6 == "" {
		r.note("run it as root, where nft or iptables is", "listener %s: its rules cannot be seen (%s)", c.Name, cmp.Or(l.err, "not root"))
		return
	}
	families := map[bool]bool{}
	for _, to := range c.To {
		// What a router forwards cannot be redirected to ::1.
		if to.Addr() != netip.IPv6Loopback() || c.TProxy || strings.Contains(l.ip4, "SWIVEL_OUTPUT") {
			families[to.Addr().Is4()] = true
		}
	}
	load := fmt.Sprintf("swivel rules %s | nft -f -  (with -format iptables: | sh; in a sidecar with -exclude)", sameFlags(cfg))
	switch {
	case c.Loaded(l.nft):
		r.ok("listener %s: nftables sends it connections", c.Name)
	case families[true] && !c.Loaded(l.ip4) && families[false] && !c.Loaded(l.ip6):
		r.miss(load, "listener %s: no rules send it connections", c.Name)
	case families[true] && !c.Loaded(l.ip4):
		r.miss(load, "listener %s: no rules send it IPv4 connections", c.Name)
	case families[false] && !c.Loaded(l.ip6):
		r.miss(load, "listener %s: no rules send it IPv6 connections", c.Name)
	default:
		r.ok("listener %s: iptables sends it connections", c.Name)
	}
}

func sameFlags(cfg *config.Config) string {
	if cfg.File != "" {
		return "-config " + cfg.File
	}
	return "[the same flags]"
}

// transparent judges whether a listener may take what is for other addresses.
func (r *report) transparent(name string) {
	if err := canBeTransparent(); err != nil {
		r.miss("setcap cap_net_admin+ep swivel", "listener %s: tproxy: %v", name, err)
		return
	}
	r.ok("listener %s: it may take what is for other addresses", name)
}

// routes judges whether what TPROXY has marked stays on this host.
func (r *report) routes(set *rules.Set) {
	lines := set.Routes()
	for _, f := range []struct{ flag, name, somewhere string }{
		{"-4", "IPv4", "192.0.2.1"}, // RFC 5737
		{"-6", "IPv6", "2001:db8::1"},
	} {
		var commands []string
		for _, line := range lines {
			if strings.HasPrefix(line, "ip "+f.flag+" ") {
				commands = append(commands, line)
			}
		}
		if len(commands) == 0 {
			continue
		}
		local, err := iface.MarkedRoute(netip.MustParseAddr(f.somewhere), rules.Mark)
		switch {
		case err != nil:
			r.miss(strings.Join(commands, "; "), "tproxy: %s route: %v", f.name, err)
		case !local:
			r.miss(strings.Join(commands, "; "), "tproxy: what is marked %#x for %s leaves this host", rules.Mark, f.name)
		default:
			r.ok("tproxy: what is marked %#x for %s stays on this host", rules.Mark, f.name)
		}
	}
}

// validMark judges whether the kernel looks for the way back to who sent a packet by
// the mark of the packet. For one that is marked to stay here that way is lo, and so
// the packet is taken for forged. The switch of an interface counts as well as that
// of all (rp_filter, however strict, does no harm).
func (r *report) validMark(set *rules.Set) {
	if len(set.Routes()) == 0 && len(set.Marked()) == 0 {
		return
	}
	files, _ := filepath.Glob("/proc/sys/net/ipv4/conf/*/src_valid_mark")
	for _, file := range files {
		if dev := filepath.Base(filepath.Dir(file)); dev != "default" && sysctl("net.ipv4.conf."+dev+".src_valid_mark") {
			name := "net.ipv4.conf." + dev + ".src_valid_mark"
			r.miss("sysctl -w "+name+"=0", "%s is 1: the kernel drops what it marks %#x", name, rules.Mark)
		}
	}
}

// sysctl reports whether a switch of the kernel is on.
func sysctl(name string) bool {
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return err == nil && strings.TrimSpace(string(text)) != "0"
}
