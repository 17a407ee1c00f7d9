package listener

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"swivel/internal/proxyproto"
)

// A flow takes one descriptor, where a connection takes two, and counts for the limits
// by the client that its header names.
func TestFlowLimits(t *testing.T) {
	g := NewGate(1000)
	g.Limit(10000, 3)
	peer := netip.MustParseAddrPort("10.0.0.1:1")
	flow := func(i int) (*Flow, error) {
		src := netip.MustParseAddrPort(fmt.Sprintf("198.51.%d.%d:5001", i/250, i%250))
		return NewFlow(g, "game", peer, proxyproto.Header{UDP: true, Src: src, Dst: peer})
	}
	var flows []*Flow
	for i := 0; ; i++ {
		f, err := flow(i)
		if err != nil {
			if !errors.Is(err, ErrConnections) {
				t.Fatal(err)
			}
			break
		}
		if f.Addr == peer || f.Peer != peer {
			t.Fatalf("got %+v", f)
		}
		flows = append(flows, f)
	}
	if want := 2 * Capacity(1000); len(flows) != want {
		t.Errorf("%d flows, want %d", len(flows), want)
	}
	flows[0].Abandon()
	f, err := flow(0)
	if err != nil {
		t.Fatalf("for one that went: %v", err)
	}
	f.Abandon()
	for _, f := range flows[1:] {
		f.Abandon()
	}
	var same []*Flow
	for range 3 {
		f, err := flow(1)
		if err != nil {
			t.Fatal(err)
		}
		same = append(same, f)
	}
	if _, err := flow(1); !errors.Is(err, ErrPerClient) {
		t.Errorf("got %v, want %v", err, ErrPerClient)
	}
	for _, f := range same {
		f.Abandon()
	}
	if g.flows != 0 || g.open != 0 || len(g.clients) != 0 || len(g.slots) != 0 {
		t.Errorf("left behind: %d, %d, %v, %d", g.flows, g.open, g.clients, len(g.slots))
	}
}
