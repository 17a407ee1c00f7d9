//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"swivel/iface"
	"swivel/internal/config"
	"swivel/internal/sockopt"
	"swivel/listener"
	"swivel/listener/unwrap"
)

// unwrap builds the front door of a listener of mode unwrap.
func (g *generation) unwrap(p *proxy, lc config.Listener) (*unwrap.Door, error) {
	u, limits := lc.Unwrap, g.config.Limits
	d := &unwrap.Door{
		To:        u.To,
		Source:    unwrap.Source(u.Source),
		Allow:     u.AllowSources,
		Own:       p.own,
		Loop:      p.answers,
		Options:   g.dialOptions(lc),
		KeepAlive: keepAlive(limits),
		Dial:      limits.Dial,
		Limits:    g.tunnelLimits(),
	}
	if len(u.To) == 0 {
		d.Policy = p.policy(lc.Destinations)
		d.Policy.Loop = p.answers
	}
	if d.Source == unwrap.Own {
		return d, nil
	}
	if err := canBeTransparent(); err != nil {
		return nil, fmt.Errorf("listener %s: %w", lc.Name, err)
	}
	return d, nil
}

// proxied makes svc read the PROXY headers that lc takes.
func (g *generation) proxied(svc *listener.Service, lc config.Listener) {
	svc.Proxies = lc.AcceptProxy
	if lc.Unwrap != nil {
		svc.Proxies, svc.Proxied = lc.Unwrap.From, true
	}
	svc.Head, svc.IPv4InTCP6 = g.config.Limits.Head, lc.IPv4InTCP6
}

// canBeTransparent reports whether this process may leave by addresses of others.
func canBeTransparent() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	return sockopt.Transparent(fd)
}

// answers reports whether one of our listening sockets answers at ap. It says no more
// than that, unlike loops: 127.0.0.1:22 is a target like others for a listener on port
// 22 of another address.
func (p *proxy) answers(ap netip.AddrPort) bool { return p.ports.Load().answers(ap) }

// listening is which ports we listen on, and at which addresses.
type listening map[uint16][]netip.Addr

func (l listening) note(ap netip.AddrPort) { l[ap.Port()] = append(l[ap.Port()], ap.Addr()) }

func (l *listening) answers(ap netip.AddrPort) bool {
	if l == nil {
		return false
	}
	everywhere := false
	for _, a := range (*l)[ap.Port()] {
		if a == ap.Addr() {
			return true
		}
		everywhere = everywhere || a.IsUnspecified()
	}
	if !everywhere {
		return false
	}
	local, err := iface.LocalRoute(ap.Addr())
	return local || err != nil // out of descriptors, say: rather not
}
