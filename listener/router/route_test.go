package router

import (
	"slices"
	"testing"

	"swivel/sni"
)

// offers is the ALPN extension of a client.
func offers(protocols ...string) (p sni.Protocols) {
	for _, s := range protocols {
		p = append(append(p, byte(len(s))), s...)
	}
	return p
}

// Which route is found does not depend on the order of the file.
func TestTable(t *testing.T) {
	routes := []Route{
		{Names: []string{"a.example.com", "b.example.com"}},
		{Names: []string{"a.example.com"}, ALPN: []string{"h2", "h3"}},
		{Names: []string{"a.example.com"}, ALPN: []string{"http/1.1"}},
		{Names: []string{"*.example.com"}},
		{Names: []string{"*.b.example.com"}, ALPN: []string{"acme-tls/1"}},
		{Names: []string{"*.com"}},
		{Names: []string{"*"}},
		{Names: []string{"*"}, ALPN: []string{"acme-tls/1"}},
	}
	find := func(r []Route, name string, alpn sni.Protocols) []string {
		table, err := NewTable(r)
		if err != nil {
			t.Fatal(err)
		}
		got := table.Find([]byte(name), alpn)
		return append(slices.Clone(got.Names), got.ALPN...)
	}
	for _, tt := range []struct {
		name string
		alpn sni.Protocols
		want int // of routes
	}{
		{"a.example.com", nil, 0},
		{"a.example.com", offers("spdy/3"), 0},
		{"a.example.com", offers("h2"), 1},
		{"a.example.com", offers("spdy/3", "h3", "http/1.1"), 1},
		{"a.example.com", offers("http/1.1", "h2"), 2},
		{"b.example.com", offers("h2"), 0},
		{"c.example.com", nil, 3},
		{"c.example.com", offers("acme-tls/1"), 3},
		{"a.b.example.com", offers("acme-tls/1"), 4},
		{"a.b.example.com", nil, 6},
		{"b.a.example.com", offers("acme-tls/1"), 7},
		{"example.com", nil, 5},
		{"com", nil, 6},
		{"localhost", offers("acme-tls/1"), 7},
	} {
		want := append(slices.Clone(routes[tt.want].Names), routes[tt.want].ALPN...)
		turned := slices.Clone(routes)
		for range routes {
			turned = append(turned[1:], turned[0])
			if got := find(turned, tt.name, tt.alpn); !slices.Equal(got, want) {
				t.Fatalf("%s %q: got %q, want %q", tt.name, tt.alpn, got, want)
			}
			slices.Reverse(turned)
			if got := find(turned, tt.name, tt.alpn); !slices.Equal(got, want) {
				t.Fatalf("%s %q: got %q, want %q", tt.name, tt.alpn, got, want)
			}
			slices.Reverse(turned)
		}
	}
}

func TestTableOfNothing(t *testing.T) {
	table, err := NewTable(nil)
	if err != nil || table.Find([]byte("a.example.com"), nil) != nil {
		t.Errorf("got a route, %v", err)
	}
	table, _ = NewTable([]Route{{Names: []string{"a.example.com"}, ALPN: []string{"h2"}}})
	if table.Find([]byte("a.example.com"), nil) != nil {
		t.Error("got the route of another protocol")
	}
}

func TestTableRefusesEquals(t *testing.T) {
	for _, routes := range [][]Route{
		{{Names: []string{"a.example.com"}}, {Names: []string{"b.example.com", "a.example.com"}}},
		{{Names: []string{"*.example.com"}}, {Names: []string{"*.example.com"}}},
		{{Names: []string{"*"}}, {Names: []string{"*"}}},
		{{Names: []string{"a"}, ALPN: []string{"h2", "h3"}}, {Names: []string{"a"}, ALPN: []string{"h3"}}},
	} {
		if _, err := NewTable(routes); err == nil {
			t.Errorf("%v: accepted", routes)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	table, err := NewTable([]Route{{Names: []string{"a.example.com"}, ALPN: []string{"h3"}}, {Names: []string{"*.example.com"}}})
	if err != nil {
		b.Fatal(err)
	}
	name, alpn := []byte("a.example.com"), offers("h2", "http/1.1")
	b.ReportAllocs()
	for b.Loop() {
		table.Find(name, alpn)
	}
}
