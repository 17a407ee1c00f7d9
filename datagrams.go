//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"swivel/internal/config"
	"swivel/internal/sockopt"
	"swivel/listener/unwrap"
	"swivel/relay"
)

// datagrams is what a proxy has for UDP.
type datagrams struct {
	flows   *relay.Flows                 // nil until a configuration listens on UDP
	sockets map[string]*relay.FlowSocket // by generation.key's key; also closed ones, that have flows left
	ports   unwrap.Ports

	listening atomic.Pointer[listening]
}

// datagramGeneration is what a generation has for UDP.
type datagramGeneration struct {
	fronts  map[string]*unwrap.Datagrams // by the key of their socket
	sockets map[string]*relay.FlowSocket // by key
	opened  []*relay.FlowSocket          // those that were not there before
	revived []*relay.FlowSocket          // those that had been closed
}

func newDatagramGeneration() datagramGeneration {
	return datagramGeneration{fronts: make(map[string]*unwrap.Datagrams), sockets: make(map[string]*relay.FlowSocket)}
}

// isUDP reports whether an entry of listen is about datagrams, and returns its address.
func isUDP(listen string) (address string, ok bool) { return strings.CutPrefix(listen, "udp/") }

// networkOf is which network an entry of listen is for.
func networkOf(listen string) string {
	if _, ok := isUDP(listen); ok {
		return "udp"
	}
	return "tcp"
}

// addDatagrams builds the front of a listener's datagrams, and opens those of its
// sockets that p has not.
func (g *generation) addDatagrams(p *proxy, lc config.Listener, door *unwrap.Door) error {
	d := *door
	d.Loop = p.answersUDP
	if d.Policy != nil {
		d.Policy = p.policy(lc.Destinations)
		d.Policy.Loop = p.answersUDP
	}
	front := &unwrap.Datagrams{
		Name:    lc.Name,
		From:    lc.Unwrap.From,
		Clients: lc.Clients,
		Form:    unwrap.Header(lc.Unwrap.UDPHeader),

		IPv4InTCP6: lc.IPv4InTCP6,

		Door:  &d,
		Ports: &p.udp.ports,
		Gate:  p.gate,
		Log:   p.log,
	}
	if lc.Mark != 0 {
		front.Options = []sockopt.Option{sockopt.Mark(lc.Mark)}
	}
	for _, entry := range lc.Listen {
		address, ok := isUDP(entry)
		if !ok {
			continue
		}
		key := g.key(entry)
		if err := g.listenDatagrams(p, key, address); err != nil {
			return err
		}
		g.udp.fronts[key] = front
	}
	return nil
}

func (g *generation) listenDatagrams(p *proxy, key, address string) error {
	if s := p.udp.sockets[key]; s != nil {
		here, again := s.Hold()
		if again && here {
			g.udp.revived = append(g.udp.revived, s)
		}
		if here {
			g.udp.sockets[key] = s
			return nil
		}
	}
	if p.udp.flows == nil {
		flows, err := relay.NewFlows()
		if err != nil {
			return err
		}
		p.udp.flows = flows
		p.serving.Go(flows.Run) // until drain, and its last flow has ended
	}
	c, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", address)
	if err != nil {
		return explainListen("udp/"+address, err)
	}
	s, err := p.udp.flows.Listen(c.(*net.UDPConn))
	if err != nil {
		return fmt.Errorf("listen udp/%s: %w", address, err)
	}
	g.udp.sockets[key], g.udp.opened = s, append(g.udp.opened, s)
	return nil
}

// useDatagrams puts the UDP of g into effect.
func (p *proxy) useDatagrams(g *generation) {
	if p.udp.flows == nil {
		return
	}
	p.udp.flows.Idle(g.config.Limits.UDPIdle)
	ports := make(listening)
	for _, s := range g.udp.sockets {
		ports.note(s.Addr())
	}
	p.udp.listening.Store(&ports)
	for key, s := range g.udp.sockets {
		if p.udp.sockets[key] != s {
			p.log.Info().Str("listener", g.udp.fronts[key].Name).Str("address", "udp/"+s.Addr().String()).Msg("listening")
		}
		p.udp.sockets[key] = s
		s.Use(g.udp.fronts[key])
	}
	for key, s := range p.udp.sockets {
		if g.udp.sockets[key] == nil && s.Close() {
			p.log.Info().Str("address", "udp/"+s.Addr().String()).Msg("listener closed")
		}
	}
}

// discardDatagrams undoes what was done for a generation that is not used.
func (g *generation) discardDatagrams() {
	for _, s := range append(g.udp.opened, g.udp.revived...) {
		s.Close()
	}
}

// drainDatagrams lets no more flows begin. A socket stays open for those that are
// there: it is what they answer from.
func (p *proxy) drainDatagrams() {
	if p.udp.flows != nil {
		p.udp.flows.Stop()
	}
}

func (p *proxy) endDatagrams() {
	if p.udp.flows != nil {
		p.udp.flows.End(relay.Drained)
	}
}

// here is how many clients are here, by connection or datagrams.
func (p *proxy) here() int {
	n := p.table.Len()
	if p.udp.flows != nil {
		n += p.udp.flows.Len()
	}
	return n
}

// answersUDP is answers for datagrams.
func (p *proxy) answersUDP(ap netip.AddrPort) bool { return p.udp.listening.Load().answers(ap) }
