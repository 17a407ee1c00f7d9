//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"swivel/iface"
	"swivel/internal/config"
	"swivel/rotate"
)

// found is what one entry of a pool stands for at the moment.
type found struct {
	config.Source
	sources []rotate.Source
	missing string // why there are none, and what to do; "" when there are some
}

// find looks a pool's sources up in the state of the host.
func find(p config.Pool, h *iface.Host, x *exits) []found {
	if len(p.Sources) == 0 {
		f := found{Source: config.Source{Weight: 1}}
		f.add(h.Default(), false)
		if len(f.sources) == 0 {
			f.missing = "this host has no address to leave by (ip address; ip route)"
		}
		return []found{f}
	}
	all := make([]found, len(p.Sources))
	for i, s := range p.Sources {
		all[i] = found{Source: s}
		all[i].look(h, x)
	}
	return all
}

func (f *found) look(h *iface.Host, x *exits) {
	switch {
	case f.Upstream != nil:
		f.lookUpstream(x)
		return
	case f.Prefix.IsValid():
		f.lookPrefix()
		return
	case f.Address.IsValid():
		f.lookAddress(h)
		return
	case f.Interface != "":
		addrs, err := h.Interface(f.Interface)
		f.add(addrs, false)
		if err != nil {
			f.missing = "no such interface (ip link)"
		}
	default:
		addrs, err := h.MAC(f.MAC)
		f.add(addrs, false)
		if err != nil {
			f.missing = "no interface has this MAC (ip link)"
		}
	}
	if f.missing == "" && len(f.sources) == 0 {
		f.missing = "the interface has no usable address (ip address)"
	}
}

func (f *found) lookAddress(h *iface.Host) {
	local := h.Has(f.Address)
	if !local {
		// When the kernel cannot be asked, because there are no descriptors left, that
		// is no reason to do without the address.
		if routed, err := iface.LocalRoute(f.Address); err == nil && !routed {
			f.missing = fmt.Sprintf("this host does not have it (ip address add %s/%d dev …)", f.Address, f.Address.BitLen())
			return
		}
	}
	f.add([]netip.Addr{f.Address}, !local)
}

func (f *found) add(addrs []netip.Addr, free bool) {
	for _, a := range addrs {
		f.sources = append(f.sources, rotate.Source{Addr: a, Weight: f.Weight, Labels: f.Labels, Free: free})
	}
}

// name is how the entry is written in the configuration.
func (f *found) name() string {
	switch {
	case f.Prefix.IsValid():
		return f.Prefix.String()
	case f.Address.IsValid():
		return f.Address.String()
	case f.Interface != "":
		return f.Interface
	case f.MAC != nil:
		return f.MAC.String()
	case f.Upstream != nil && f.Upstream.SRV != "":
		return f.Upstream.SRV
	case f.Upstream != nil:
		return net.JoinHostPort(f.Upstream.Host, strconv.Itoa(int(f.Upstream.Port)))
	}
	return "default"
}

func allSources(entries []found) (sources []rotate.Source) {
	for _, f := range entries {
		sources = append(sources, f.sources...)
	}
	return sources
}

// sources implements the command of that name.
func sources(load loader, stdout *os.File) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	h, err := iface.Read()
	if err != nil {
		return err
	}
	countries, err := countriesOf(cfg.Geo)
	if err != nil {
		return fmt.Errorf("geo: %w", err)
	}
	x, err := newExits(cfg.Pools)
	if err != nil {
		return err
	}
	x.find(context.Background(), newResolver(cfg.Resolver), cfg.Pools)
	all, err := findAll(cfg.Pools, h, countries, x)
	if err != nil {
		return fmt.Errorf("geo: %w", err)
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "POOL\tSOURCE\tINTERFACE\tWEIGHT\tLABELS\tSTATE")
	for i, p := range cfg.Pools {
		for _, f := range all[i] {
			if f.missing != "" {
				fmt.Fprintf(w, "%s\t%s\t-\t%d\t%s\tmissing: %s\n", p.Name, f.name(), f.Weight, labels(f.Labels), f.missing)
			}
			for _, s := range f.sources {
				via := h.InterfaceOf(s.Addr)
				switch {
				case s.Exit != nil:
					via = "(" + s.Exit.Scheme + ")"
				case s.Free:
					via = "(routed)"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\tready\n", p.Name, &s, via, s.Weight, labels(s.Labels))
			}
		}
	}
	return w.Flush()
}

func labels(m map[string]string) string {
	if len(m) == 0 {
		return "-"
	}
	var l []string
	for k, v := range m {
		l = append(l, k+"="+v)
	}
	slices.Sort(l)
	return strings.Join(l, ",")
}
