package geo

import (
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// put replaces the file at path, and makes it look as old as it is to be.
func put(t *testing.T, path string, data []byte, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(path+".new", at, at); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

var (
	german   = netip.MustParseAddr("203.0.113.5")
	austrian = netip.MustParseAddr("2001:db8:1::5")
	french   = netip.MustParseAddr("198.51.100.7") // only registered there
	nowhere  = netip.MustParseAddr("10.0.0.1")
	all      = []netip.Addr{german, austrian, french, nowhere}
)

func check(t *testing.T, got map[netip.Addr]string, want ...string) {
	t.Helper()
	for i, w := range want {
		if got[all[i]] != w {
			t.Errorf("%s: got %q, want %q", all[i], got[all[i]], w)
		}
	}
}

func TestCountries(t *testing.T) {
	netlab.Leaks(t)
	for _, kind := range []string{"GeoLite2-Country", "GeoLite2-City"} {
		path := filepath.Join(t.TempDir(), "geo.mmdb")
		first := map[string]string{"203.0.113.0/24": "DE", "2001:db8:1::/48": "AT", "198.51.100.0/24": ""}
		put(t, path, netlab.Countries(t, kind, first), time.Hour)
		c, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Of(all[:1])
		if err != nil {
			t.Fatal(err)
		}
		check(t, got, "DE")
		if got, err = c.Of(all); err != nil {
			t.Fatal(err)
		}
		check(t, got, "DE", "AT", "FR", "")
		if c.Changed() {
			t.Error("changed, although it has not")
		}

		put(t, path, netlab.Countries(t, kind, map[string]string{"203.0.113.0/24": "CH"}), 2*time.Hour)
		if !c.Changed() {
			t.Error("not changed, although it has")
		}
		if got, err = c.Of(all); err != nil {
			t.Fatal(err)
		}
		check(t, got, "CH", "", "", "")
	}
}

// TestBrokenFile: what was known stays, until the file is whole again.
func TestBrokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "geo.mmdb")
	whole := netlab.Countries(t, "GeoLite2-Country", map[string]string{"203.0.113.0/24": "DE"})
	put(t, path, whole, time.Hour)
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	c.Of(all)
	for name, data := range map[string][]byte{"half": whole[:len(whole)/2], "empty": nil, "text": []byte("log: {}\n"), "its end": whole[len(whole)/2:]} {
		put(t, path, data, time.Hour)
		got, err := c.Of(all)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		check(t, got, "DE")
		if _, err := Open(path); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	os.Remove(path)
	if c.Changed() {
		t.Error("a file that is gone has nothing to say")
	}
	put(t, path, netlab.Countries(t, "GeoLite2-Country", map[string]string{"203.0.113.0/24": "LI"}), 0)
	got, err := c.Of(all)
	if err != nil {
		t.Error(err)
	}
	check(t, got, "LI")
	if !c.Changed() {
		t.Error("a file this young may change within its time of modification")
	}
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("opened a folder")
	}
}

// TestOverwrittenInPlace: a file that shrinks while it is mapped faults, and ends
// nothing.
func TestOverwrittenInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "geo.mmdb")
	countries := map[string]string{}
	for i := range 256 {
		countries[netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, byte(i), 0}), 24).String()] = string(rune('A'+i%26)) + "X"
	}
	whole := netlab.Countries(t, "GeoLite2-Country", countries)
	put(t, path, whole, 0)
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var many []netip.Addr
	for i := range 1000 {
		many = append(many, netip.AddrFrom4([4]byte{203, 0, byte(i), 5}))
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				os.Truncate(path, 0)
				os.WriteFile(path, whole, 0o600)
			}
		}
	})
	for range 300 {
		c.Of(many)
	}
	close(stop)
	writer.Wait()
	if got, err := c.Of(many); err != nil || got[netip.MustParseAddr("203.0.1.5")] != "BX" {
		t.Errorf("got %q, %v", got[netip.MustParseAddr("203.0.1.5")], err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("\xab\xcd\xefMaxMind.com"))
	f.Add(netlab.Countries(f, "GeoLite2-Country", map[string]string{"203.0.113.0/24": "DE"}))
	path := filepath.Join(f.TempDir(), "geo.mmdb")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := Open(path); err == nil {
			c.Of(all) // does not panic
		}
	})
}
