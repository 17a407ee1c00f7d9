//go:build linux

package main

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"swivel/internal/config"
	"swivel/internal/rules"
	"swivel/internal/target"
)

// rulesCommand implements the command rules, with the flags that it alone has.
type rulesCommand struct {
	format, exclude string
}

func (r *rulesCommand) register(fs *flag.FlagSet) {
	fs.StringVar(&r.format, "format", "nft", "`language` of the rules: nft or iptables")
	fs.StringVar(&r.exclude, "exclude", "", "rules for what this host itself sends, but for what swivel does, told by `uid:N or mark:N`")
}

func (r *rulesCommand) run(load loader, stdout *os.File) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	set := kernelRules(cfg)
	if r.exclude != "" {
		if set.Exclude, err = rules.ParseExclude(r.exclude); err != nil {
			return fmt.Errorf("-exclude: %w", err)
		}
	}
	if err := marked(cfg, set.Exclude); err != nil {
		return err
	}
	write := set.NFT
	switch r.format {
	case "nft":
	case "iptables":
		write = set.IPTables
	default:
		return fmt.Errorf("-format: %q: use nft or iptables", r.format)
	}
	text, err := write()
	if err != nil {
		return err
	}
	_, err = stdout.WriteString(text)
	return err
}

// kernelRules is what the kernel is to do for the listeners of cfg.
func kernelRules(cfg *config.Config) *rules.Set {
	set := new(rules.Set)
	for _, l := range cfg.Listeners {
		set.Unwraps = append(set.Unwraps, waysBack(l)...)
		if l.SNI == nil || l.SNI.Transparent == config.TransparentOff {
			continue
		}
		c := rules.Capture{Name: l.Name, TProxy: l.SNI.Transparent == config.TransparentTProxy, Ports: l.SNI.Capture}
		for _, address := range l.Listen {
			c.To = append(c.To, listensAt(address)...)
		}
		set.Captures = append(set.Captures, c)
	}
	return set
}

// routerWaysBack is waysBack for a listener of mode sni that connects from the
// addresses of its clients: to anywhere, and to those backends that are on loopback.
func routerWaysBack(l config.Listener) (list []rules.Unwrap) {
	list = []rules.Unwrap{
		{Name: l.Name, To: netip.MustParsePrefix("0.0.0.0/0")},
		{Name: l.Name, To: netip.MustParsePrefix("::/0")},
	}
	ports := make(map[netip.Addr][]target.PortRange)
	for _, r := range l.SNI.Routes {
		for _, b := range r.To.Backends {
			if port := (target.PortRange{From: b.Port, To: b.Port}); b.Addr.IsLoopback() && !slices.Contains(ports[b.Addr], port) {
				ports[b.Addr] = append(ports[b.Addr], port)
			}
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(ports), netip.Addr.Compare) {
		list = append(list, rules.Unwrap{Name: l.Name, To: netip.PrefixFrom(a, a.BitLen()), Ports: ports[a]})
	}
	return list
}

// listensAt returns where a socket for an address of the configuration listens. For
// package net, every address of one family is every address of both.
func listensAt(address string) []netip.AddrPort {
	address, _ = isUDP(address)
	ap, err := netip.ParseAddrPort(address)
	if err != nil { // :443
		ap, _ = netip.ParseAddrPort("0.0.0.0" + address)
	}
	if !ap.Addr().IsUnspecified() {
		return []netip.AddrPort{ap}
	}
	return []netip.AddrPort{
		netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port()),
		netip.AddrPortFrom(netip.IPv6Unspecified(), ap.Port()),
	}
}

// marked reports a transparent listener whose own connections rules would send back
// to it, because they do not have the mark that is to tell them.
func marked(cfg *config.Config, e rules.Exclude) error {
	if e.By != "mark" {
		return nil
	}
	for _, l := range cfg.Listeners {
		if l.SNI != nil && l.SNI.Transparent != config.TransparentOff && uint32(l.Mark) != e.Value {
			return fmt.Errorf("-exclude: mark:%d: the connections of listener %s have mark %d (set its mark to %[1]d)", e.Value, l.Name, l.Mark)
		}
	}
	return nil
}
