package auth

import (
	"net/netip"
	"testing"
	"time"
)

func TestFailuresClient(t *testing.T) {
	for _, tt := range []struct {
		name, a, b string
		want       bool // one client
	}{
		{"an address", "192.0.2.1", "192.0.2.1", true},
		{"its neighbor", "192.0.2.1", "192.0.2.0", false},
		{"IPv4-mapped", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"a /64", "2001:db8:0:1::1", "2001:db8:0:1:ffff::", true},
		{"the next /64", "2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"a zone", "fe80::1%eth0", "fe80::2%eth1", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f failures
			now := time.Now()
			for range maxFailures {
				f.add(netip.MustParseAddr(tt.a), now)
			}
			if got := f.tooMany(netip.MustParseAddr(tt.b), now); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
}

func TestFailuresWindow(t *testing.T) {
	var f failures
	now := time.Now()
	f.add(client, now)
	now = now.Add(window - 1)
	for range maxFailures - 2 {
		f.add(client, now)
	}
	if f.tooMany(client, now) {
		t.Errorf("throttled after %d failures", maxFailures-1)
	}
	f.add(client, now)
	if !f.tooMany(client, now) {
		t.Errorf("not throttled after %d failures", maxFailures)
	}
	now = now.Add(1)
	if f.tooMany(client, now) {
		t.Error("throttled when the window had passed")
	}
	f.add(client, now)
	if f.tooMany(client, now) {
		t.Error("a new window began with the failures of the one before")
	}
}

func TestFailuresAreBounded(t *testing.T) {
	var f failures
	now := time.Now()
	addr := netip.MustParseAddr("10.0.0.0")
	first, last := addr, addr
	for range maxClients + 1 {
		for range maxFailures {
			f.add(addr, now)
		}
		last, addr = addr, addr.Next()
	}
	if got := len(f.clients); got != maxClients || f.oldest.Len() != got {
		t.Errorf("%d clients, %d windows, want %d of both", got, f.oldest.Len(), maxClients)
	}
	if f.tooMany(first, now) {
		t.Error("the oldest was not forgotten")
	}
	if !f.tooMany(first.Next(), now) || !f.tooMany(last, now) {
		t.Error("another than the oldest was forgotten")
	}
	f.add(client, now.Add(window))
	if got := len(f.clients); got != 1 {
		t.Errorf("%d clients after their windows, want 1", got)
	}
}
