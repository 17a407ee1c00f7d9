package resolver

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"swivel/internal/netlab"
)

func TestSystemChanges(t *testing.T) {
	netlab.Leaks(t)
	old := netlab.NewDNS(t, map[string][]netip.Addr{"a.example": {a1}})
	pc, err := net.ListenPacket("udp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), old.AddrPort().Port()).String())
	if err != nil {
		t.Skip(err)
	}
	netlab.ListenDNS(t, pc, nil, map[string][]netip.Addr{"a.example": {a2}})

	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		next := path + ".new"
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	r := patient(Config{})
	r.now = func() time.Time { return now }
	r.system = &system{path: path, port: old.AddrPort().Port()}

	for _, tt := range []struct {
		id     string
		change func()
		after  time.Duration
		want   netip.Addr
	}{
		{"D3 first", func() { write("nameserver 127.0.0.1\n") }, 0, a1},
		{"D3 replaced, not noticed yet", func() { write("nameserver 127.0.0.2\n") }, recheck - 1, a1},
		{"D3 replaced", func() {}, 1, a2},
		{"D3 half written", func() { write("# nameserver") }, recheck, a2},
		{"D3 gone", func() { os.Remove(path) }, recheck, a2},
		{"D3 back", func() { write("nameserver 127.0.0.1\n") }, recheck, a1},
	} {
		t.Run(tt.id, func(t *testing.T) {
			tt.change()
			now = now.Add(tt.after)
			checkLookup(t, r, "a.example", []netip.Addr{tt.want}, nil)
		})
	}
}

func TestSystemServers(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"several", "nameserver 192.0.2.1\nnameserver 2001:db8::1", "192.0.2.1:53 [2001:db8::1]:53"},
		{"no more than three", strings.Repeat("nameserver 192.0.2.1\n", 4), "192.0.2.1:53 192.0.2.1:53 192.0.2.1:53"},
		{"zone", "nameserver fe80::1%eth0", "[fe80::1%eth0]:53"},
		{"tabs and more fields", "nameserver\t192.0.2.1 # the router\r\n", "192.0.2.1:53"},
		{"other lines", "# nameserver 192.0.2.1\n;nameserver 192.0.2.1\nsearch a.example\noptions timeout:1\nnameserver\nnameserver router\nnameservers 192.0.2.1\n", "127.0.0.1:53 [::1]:53"},
		{"empty", "", "127.0.0.1:53 [::1]:53"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := &system{path: path, port: 53}
			var got []string
			for _, ap := range s.get(time.Now()) {
				got = append(got, ap.String())
			}
			if want := strings.Fields(tt.want); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
