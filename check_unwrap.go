//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"swivel/iface"
	"swivel/internal/config"
	"swivel/internal/rules"
	"swivel/internal/sockopt"
	"swivel/internal/target"
)

// waysBack is what the kernel is to do for a listener of mode unwrap, whose servers
// answer to addresses that this host does not have.
func waysBack(l config.Listener) (list []rules.Unwrap) {
	if l.SNI != nil && l.SNI.Source == config.SourceClient {
		return routerWaysBack(l)
	}
	if l.Unwrap == nil || l.Unwrap.Source == "own" {
		return nil
	}
	for _, network := range networksOf(l.Listen) {
		list = append(list, waysBackOf(l, network)...)
	}
	return list
}

func waysBackOf(l config.Listener, network string) (list []rules.Unwrap) {
	add := func(to netip.Prefix, ports []target.PortRange) {
		list = append(list, rules.Unwrap{Name: l.Name, UDP: network == "udp", To: to, Ports: ports})
	}
	for _, to := range l.Unwrap.To {
		ports := []target.PortRange{{From: to.Port(), To: to.Port()}}
		if to.Port() == 0 {
			ports = portsOf(l.Listen, network)
		}
		add(netip.PrefixFrom(to.Addr(), to.Addr().BitLen()), ports)
	}
	if len(l.Unwrap.To) > 0 {
		return list
	}
	for _, to := range []string{"0.0.0.0/0", "::/0"} {
		add(netip.MustParsePrefix(to), l.Destinations.Ports)
	}
	for _, to := range []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")} {
		if ports := allowed(l.Destinations, to.Addr()); len(ports) > 0 {
			add(to.Masked(), ports)
		}
	}
	return list
}

// networksOf are those that a listener is for: tcp, udp, or both.
func networksOf(listen []string) (list []string) {
	for _, network := range []string{"tcp", "udp"} {
		if slices.ContainsFunc(listen, func(s string) bool { return networkOf(s) == network }) {
			list = append(list, network)
		}
	}
	return list
}

// allowed are the ports of d that are open at a.
func allowed(d config.Destinations, a netip.Addr) (list []target.PortRange) {
	p := target.Policy{Allow: d.Allow, Deny: d.Deny, Ports: d.Ports}
	for _, r := range d.Ports {
		if _, err := p.Resolve(context.Background(), target.Target{Addr: a, Port: r.From}, nil); err == nil {
			list = append(list, r)
		}
	}
	return list
}

// portsOf are the ports of those addresses that are of a network, in order and without
// gaps where there are none.
func portsOf(addresses []string, network string) (list []target.PortRange) {
	var ports []uint16
	for _, address := range addresses {
		if networkOf(address) == network {
			ports = append(ports, listensAt(address)[0].Port())
		}
	}
	slices.Sort(ports)
	for _, p := range slices.Compact(ports) {
		if n := len(list); n > 0 && list[n-1].To+1 == p {
			list[n-1].To = p
			continue
		}
		list = append(list, target.PortRange{From: p, To: p})
	}
	return list
}

// Those who speak from here are nobody: RFC 5737, RFC 3849.
var (
	nobody4 = netip.MustParseAddr("192.0.2.1")
	nobody6 = netip.MustParseAddr("2001:db8::1")
)

// probeLimit is how long a server on this host, or near it, may take to answer.
const probeLimit = time.Second

// waysBack judges whether what the servers of a listener answer to its clients comes
// back to this host.
func (r *report) waysBack(cfg *config.Config, l config.Listener) {
	for _, u := range waysBack(l) {
		commands := u.Routes()
		if set := (rules.Set{Unwraps: []rules.Unwrap{u}}); len(set.Marked()) > 0 {
			commands = append(commands, "swivel rules "+sameFlags(cfg)+" | nft -f -")
		}
		mend := strings.Join(commands, "; ")
		if !u.To.IsSingleIP() {
			r.routeBack(l, u, mend)
			continue
		}
		to := netip.AddrPortFrom(u.To.Addr(), u.Ports[0].From)
		switch {
		case listensOn(cfg, to, u.UDP):
			r.miss("listen on one address that is not the target's", "listener %s: %s is swivel itself", l.Name, to)
		case u.UDP:
			r.wayBackUDP(l, u, to, mend)
		default:
			r.wayBack(l, to, mend)
		}
	}
}

// listensOn reports whether a listener of cfg would answer at to.
func listensOn(cfg *config.Config, to netip.AddrPort, udp bool) bool {
	ports := make(listening)
	for _, l := range cfg.Listeners {
		for _, address := range l.Listen {
			if (networkOf(address) == "udp") == udp {
				for _, at := range listensAt(address) {
					ports.note(at)
				}
			}
		}
	}
	return ports.answers(to)
}

// wayBack proves it, by a connection from nobody's address.
func (r *report) wayBack(l config.Listener, to netip.AddrPort, mend string) {
	from := nobody4
	if to.Addr().Is6() {
		from = nobody6
	}
	switch err := probe(l, from, to); {
	case err == nil:
		r.ok("listener %s: what %s answers to %s comes back", l.Name, to, from)
	case errors.Is(err, syscall.ECONNREFUSED): // which came back
		r.ok("listener %s: what %s answers to %s comes back", l.Name, to, from)
		r.note("start it, or change to:", "listener %s: no server listens on %s", l.Name, to)
	case errors.Is(err, syscall.EPERM): // has been said
	case !isTimeout(err):
		r.miss("ip route get "+to.Addr().String(), "listener %s: %v", l.Name, err)
	default:
		if err := probe(l, netip.Addr{}, to); err != nil && isTimeout(err) {
			r.miss("start it, or change to:", "listener %s: %s does not answer, not even to this host", l.Name, to)
			return
		}
		r.miss(mend, "listener %s: what %s answers to %s does not come back", l.Name, to, from)
	}
}

// wayBackUDP judges it by what the kernel knows: no server has to answer a datagram.
func (r *report) wayBackUDP(l config.Listener, u rules.Unwrap, to netip.AddrPort, mend string) {
	if !to.Addr().IsLoopback() {
		r.routeBack(l, u, mend)
		return
	}
	from := nobody4
	if to.Addr().Is6() {
		from = nobody6
	}
	switch local, err := iface.AnswerRoute(from, to); {
	case err != nil:
		r.miss(mend, "listener %s: route: %v", l.Name, err)
	case !local:
		r.miss(mend, "listener %s: what udp/%s answers to %s does not come back", l.Name, to, from)
	default:
		r.ok("listener %s: what udp/%s answers to %s comes back", l.Name, to, from)
	}
}

// routeBack judges it by what the kernel knows, where there are too many servers to
// ask any.
func (r *report) routeBack(l config.Listener, u rules.Unwrap, mend string) {
	from := nobody4
	if u.To.Addr().Is6() {
		from = nobody6
	}
	local, err := iface.MarkedRoute(from, rules.Mark)
	switch {
	case u.To.Addr().IsLoopback():
		r.note(mend, "listener %s: whether what servers in %s answer comes back is not known", l.Name, u.To)
	case err != nil:
		r.miss(mend, "listener %s: route: %v", l.Name, err)
	case !local:
		r.miss(mend, "listener %s: what is marked %#x for %s leaves this host", l.Name, rules.Mark, from)
	case !loaded(u):
		r.miss(mend, "listener %s: no rules mark the connections to %s", l.Name, u.To)
	default:
		r.ok("listener %s: what servers in %s answer comes back", l.Name, u.To)
	}
}

func loaded(u rules.Unwrap) bool {
	l := listRules()
	return u.Loaded(l.nft) || u.Loaded(l.ip4) || u.Loaded(l.ip6)
}

// probe connects to a server from an address of nobody, or from one of this host if
// from is not valid.
func probe(l config.Listener, from netip.Addr, to netip.AddrPort) error {
	var opts []sockopt.Option
	if from.IsValid() {
		opts = append(opts, sockopt.Transparent, sockopt.BindLater)
	}
	if l.Mark != 0 {
		opts = append(opts, sockopt.Mark(l.Mark))
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeLimit)
	defer cancel()
	d := net.Dialer{Control: sockopt.Control(opts...)}
	c, err := d.DialTCP(ctx, "tcp", netip.AddrPortFrom(from, 0), to)
	if err != nil {
		return fmt.Errorf("a connection from %v: %w", from, err)
	}
	return c.Close()
}

func isTimeout(err error) bool {
	var nerr net.Error
	return errors.As(err, &nerr) && nerr.Timeout()
}
