package rotate

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var (
	web1 = netip.MustParseAddrPort("192.0.2.1:443")
	web2 = netip.MustParseAddrPort("192.0.2.2:443")
)

// sources takes the sources for attempts to reach dst until there is none, each
// attempt failing as why says, and writes down the last byte of each.
func sources(p *Pool, f *family, dst netip.AddrPort, why fault) (got string) {
	for {
		src, err := f.source(p, &Request{}, dst)
		if err != nil {
			return got
		}
		got += string('0' + src.Addr.As4()[3])
		if !f.blame(route{src.ID(), dst}, why) {
			return got
		}
	}
}

func open(p *Pool) (n int) {
	for _, use := range p.Sources() {
		n += use.Open
	}
	return n
}

func TestFamilySource(t *testing.T) {
	for _, tt := range []struct {
		name        string
		why         fault
		first, then string // the sources tried for one address, and then for another
	}{
		{"that is gone is gone for every address", faultGone, "1234", ""},
		{"that is exhausted may serve another address", faultExhausted, "1234", "4123"},
		{"that leads nowhere is replaced twice", faultUnreachable, "123", "3"},
		{"is kept when the destination failed", faultNone, "1", "1"},
		{"is kept when there are no sockets", faultResources, "1", "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := pool(RoundRobin, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
			f := family{}
			if got := sources(p, &f, web1, tt.why); got != tt.first {
				t.Errorf("first address: got %s, want %s", got, tt.first)
			}
			if got := sources(p, &f, web2, tt.why); got != tt.then {
				t.Errorf("second address: got %s, want %s", got, tt.then)
			}
			f.end()
			if got := open(p); got != 0 {
				t.Errorf("at the end: got %d open, want 0", got)
			}
		})
	}
}

// An attempt may connect by a source that another attempt has just given up.
func TestFamilyTake(t *testing.T) {
	for _, tt := range []struct {
		winner string
		next   string // the one that comes first when the race is over
	}{
		{"10.0.0.1", "10.0.0.2"},
		{"10.0.0.2", "10.0.0.3"},
	} {
		t.Run(tt.winner, func(t *testing.T) {
			p := pool(RoundRobin, "10.0.0.1", "10.0.0.2", "10.0.0.3")
			f := family{}
			first, _ := f.source(p, &Request{}, web1)
			f.source(p, &Request{}, web2)
			f.blame(route{first.ID(), web2}, faultExhausted)
			f.source(p, &Request{}, web2)

			turn := f.take(ID{Net: netip.MustParsePrefix(tt.winner + "/32")})
			f.giveBack()
			if got := open(p); turn.Addr.String() != tt.winner || got != 1 {
				t.Errorf("won by %s with %d open, want %s with 1", turn.Addr, got, tt.winner)
			}
			turn.Done()
			if got := open(p); got != 0 {
				t.Errorf("at the end: got %d open, want 0", got)
			}
			if next, _ := p.Next(&Request{}, web1.Addr(), nil); next.Addr.String() != tt.next {
				t.Errorf("next: got %s, want %s", next.Addr, tt.next)
			}
		})
	}
}

// However a race ends, each turn that it took is ended once.
func TestDialEndsItsTurns(t *testing.T) {
	dst4, _ := server(t, "127.0.0.1:0")
	slow6 := silent(t, netip.IPv6Loopback())
	refused4 := closed(t)
	refused6 := netip.AddrPortFrom(netip.IPv6Loopback(), refused4.Port())
	const gone4, gone6 = "203.0.113.77", "2001:db8::77" // on no interface

	p := pool(LeastUsed, "127.0.0.2", "127.0.0.3", gone4, "::1", gone6)
	var dialing sync.WaitGroup
	for i, addrs := range [][]netip.AddrPort{
		{dst4},
		{refused6, dst4},
		{slow6, dst4},
		{refused4, slow6, dst4},
		{refused4, refused6},
		{slow6},
	} {
		for n := range 20 {
			dialing.Go(func() {
				// Some have so little time that they end anywhere.
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i*n)*20*time.Millisecond)
				defer cancel()
				up, err := (&Dialer{Pool: p}).Dial(ctx, Request{Addrs: addrs})
				if err != nil {
					return
				}
				up.Close()
				up.Done()
			})
		}
	}
	dialing.Wait()
	for _, use := range p.Sources() {
		if use.Open != 0 {
			t.Errorf("%s: %d open, want 0", use.Addr, use.Open)
		}
	}
}
