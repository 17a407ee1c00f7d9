package resolver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"swivel/internal/netlab"
)

func TestServices(t *testing.T) {
	netlab.Leaks(t)
	dns := netlab.NewDNS(t, map[string][]netip.Addr{"alone.example": {a1}})
	record := func(priority, weight, port uint16, host string) dnsmessage.SRVResource {
		return dnsmessage.SRVResource{Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(host)}
	}
	dns.SetServices("_swivel._tcp.example", record(0, 5, 8080, "One.example."), record(1, 0, 81, "two.example."))
	dns.SetServices("_none._tcp.example", record(0, 0, 0, "."))
	dns.SetServices("_empty._tcp.example")
	var many []dnsmessage.SRVResource
	var wantMany []Service
	for i := range 2000 { // over TCP
		many = append(many, record(0, 1, 80, fmt.Sprintf("n%d.example.", i)))
		wantMany = append(wantMany, Service{fmt.Sprintf("n%d.example", i), 80, 0, 1})
	}
	dns.SetServices("_many._tcp.example", many...)
	r := patient(Config{Servers: []netip.AddrPort{dns.AddrPort()}})
	for _, tt := range []struct {
		name string
		want []Service
		err  error
	}{
		{"_swivel._tcp.example", []Service{{"one.example", 8080, 0, 5}, {"two.example", 81, 1, 0}}, nil},
		{"_SWIVEL._tcp.Example.", []Service{{"one.example", 8080, 0, 5}, {"two.example", 81, 1, 0}}, nil},
		{"_many._tcp.example", wantMany[:maxServices], nil},
		{"_none._tcp.example", nil, ErrNotFound},
		{"_empty._tcp.example", nil, ErrNotFound},
		{"_nowhere._tcp.example", nil, ErrNotFound},
		{"alone.example", nil, ErrNotFound},
	} {
		got, ttl, err := r.Services(t.Context(), tt.name)
		if !errors.Is(err, tt.err) || !slices.Equal(got, tt.want) || err == nil && ttl != time.Minute {
			t.Errorf("%s: got %d %.200v for %v, %v", tt.name, len(got), got, ttl, err)
		}
	}
	dns.Hook(func(netlab.DNSQuery) ([][]byte, bool) { return nil, true })
	r = New(Config{Servers: []netip.AddrPort{dns.AddrPort()}, Timeout: patience})
	if _, _, err := r.Services(t.Context(), "_swivel._tcp.example"); !errors.Is(err, ErrTimeout) {
		t.Errorf("a silent server: got %v", err)
	}
}
