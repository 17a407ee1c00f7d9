//go:build linux

package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"swivel/internal/netlab"
)

// putCountries replaces the database at path, all at once for who reads it.
func putCountries(t testing.TB, path string, countries map[string]string) {
	t.Helper()
	write(t, path, string(netlab.Countries(t, "GeoLite2-Country", countries)))
}

// TestRegions: sources have countries, by a database or by hand, and listeners,
// users and destinations have them too.
func TestRegions(t *testing.T) {
	path := config(t, fmt.Sprintf(`
admin: {listen: "127.0.0.1:0"}
geo: {database: countries.mmdb}
pools:
  main:
    sources:
      - address: 127.0.0.2
      - address: 127.0.0.3
      - {address: 127.0.0.4, labels: {Country: fr}}
      - address: 127.0.0.5
      - prefix: 127.9.0.0/24
listeners:
  - name: egress
    listen: 127.0.0.1:0
    users: %s
    labels: {country: [de, at, FR]}
    select:
      - {names: [at.localhost], labels: {country: at}}
      - {names: ["*.fr.localhost"], labels: {country: fr}}
      - {names: [us.localhost], labels: {country: us}}
      - {users: [bob], labels: {country: [de, us]}}
    destinations: {allow: [127.0.0.0/8], ports: [1-65535]}
`, usersFile(t, "alice", "bob")))
	database := filepath.Join(filepath.Dir(path), "countries.mmdb")
	putCountries(t, database, map[string]string{"127.0.0.2/32": "DE", "127.0.0.3/32": "AT", "127.0.0.4/32": "US", "127.9.0.0/16": "CA"})
	s := start(t, "-config", path)
	_, port, _ := strings.Cut(newEcho(t, nil), ":")

	// ask returns the last byte of the source, or the status and error.
	ask := func(user, host string) string {
		t.Helper()
		c := dial(t, s.addr("egress"))
		defer c.Close()
		head, err := connect(c, host+":"+port, "Proxy-Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+user+"-secret")))
		if err != nil {
			t.Fatalf("%s: %q, %v", host, head, err)
		}
		if source, ok := strings.CutPrefix(field(head, "Swivel-Source"), "127.0.0."); ok {
			return source
		}
		return reply{head: head}.status()
	}
	const none = "503 proxy_configuration_error"
	check := func(user, host string, want ...string) {
		t.Helper()
		for _, w := range want {
			if got := ask(user, host); got != w {
				t.Errorf("%s to %s: got %s, want %s", user, host, got, w)
			}
		}
	}
	check("alice", "127.0.0.1", "2", "3", "4", "2")
	check("alice", "at.localhost", "3", "3")
	check("alice", "shop.fr.localhost", "4", "4")
	check("alice", "us.localhost", none)
	check("bob", "127.0.0.1", "2", "2")
	check("bob", "at.localhost", none)
	if _, body := get(t, s.addr("admin"), "/api/sources"); !strings.Contains(body, `"source":"127.9.0.0/24","state":"ready","weight":1,"labels":{"country":"CA"}`) {
		t.Errorf("the prefix is nowhere: %s", body)
	}

	n := len(s.lines())
	whole, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	write(t, database, string(whole[:len(whole)/2]))
	s.lineAfter(n, message("reading countries, the old ones stay"))
	if e := s.reload(); !strings.Contains(e.text("error"), "countries.mmdb") {
		t.Errorf("got %v, want the reload to be refused", e)
	}
	check("bob", "127.0.0.1", "2", "2")

	putCountries(t, database, map[string]string{"127.0.0.2/32": "CH", "127.0.0.5/32": "DE"})
	eventually(t, "the new countries are not there", func() bool {
		_, body := get(t, s.addr("admin"), "/api/sources")
		return strings.Contains(body, `"source":"127.0.0.2","state":"ready","weight":1,"labels":{"country":"CH"}`)
	})
	check("bob", "127.0.0.1", "5", "5")
	check("alice", "at.localhost", none)

	r := finish(t, command(t, "sources", "-config", path))
	if !strings.Contains(r.stdout, "country=CH") || !strings.Contains(r.stdout, "Country=fr") {
		t.Errorf("swivel sources: %+v", r)
	}
	r = finish(t, command(t, "check", "-config", path))
	if !strings.Contains(r.stdout, "source 127.0.0.3: no country is known") || strings.Contains(r.stdout, "source 127.0.0.4") {
		t.Errorf("swivel check: %+v", r)
	}
	s.stop()

	os.Remove(database)
	r = finish(t, command(t, "-config", path))
	if r.status != 1 || !strings.Contains(r.stderr, "geo: stat "+database) {
		t.Errorf("without the database: %+v", r)
	}
}
