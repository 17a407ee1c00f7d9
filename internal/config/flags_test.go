package config

import (
	"flag"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"swivel/internal/target"
)

// build parses a command line, words separated by spaces, and builds.
func build(t *testing.T, line string, environ ...string) (*Config, error) {
	t.Helper()
	var f Flags
	fs := flag.NewFlagSet("swivel", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	f.Register(fs)
	if err := fs.Parse(strings.Fields(line)); err != nil {
		return nil, err
	}
	return f.Build(fs, environ)
}

func mustBuild(t *testing.T, line string, environ ...string) *Config {
	t.Helper()
	c, err := build(t, line, environ...)
	if err != nil {
		t.Fatalf("swivel %s: %v", line, err)
	}
	return c
}

func TestBuildDefaults(t *testing.T) {
	equal(t, mustBuild(t, ""), &Config{
		Log:      Log{"info", "json"},
		Limits:   wantLimits(),
		Resolver: Resolver{Timeout: 5 * time.Second, Cache: 5 * time.Second, Prefer: "any"},
		Pools:    []Pool{{Name: "default", Strategy: "round-robin", HashBy: "session", Cooldown: defaultCooldown(), Refresh: 30 * time.Minute}},
		Listeners: []Listener{{
			Name:         "egress",
			Listen:       []string{"127.0.0.1:8080"},
			Mode:         "connect",
			Pool:         "default",
			Destinations: Destinations{Ports: []target.PortRange{{From: 443, To: 443}, {From: 80, To: 80}}},
		}},
	})
}

func TestBuild(t *testing.T) {
	c := mustBuild(t, "-listen :8080,[::1]:8081 -mode connect -pool eth0,5e:88:52:b0:f7:5b,192.0.2.1,2001:db8::1,2:0:5e:10:0:0:0:1,2001:db8:1::/48"+
		" -strategy random -users f -clients 10.0.0.0/8,192.0.2.1 -allow 127.0.0.0/8,*.example.com -deny a.example.com"+
		" -ports 443,8443,8000-8999 -cert c.pem -key k.pem -mark 0x10 -log-level debug -log-format console")
	equal(t, c.Log, Log{"debug", "console"})
	equal(t, c.Pools, []Pool{{Name: "main", Strategy: "random", HashBy: "session", Cooldown: defaultCooldown(), Refresh: 30 * time.Minute, Sources: []Source{
		{Interface: "eth0", Weight: 1},
		{MAC: net.HardwareAddr{0x5e, 0x88, 0x52, 0xb0, 0xf7, 0x5b}, Weight: 1},
		{Address: netip.MustParseAddr("192.0.2.1"), Weight: 1},
		{Address: netip.MustParseAddr("2001:db8::1"), Weight: 1},
		{Address: netip.MustParseAddr("2:0:5e:10::1"), Weight: 1},
		{Prefix: netip.MustParsePrefix("2001:db8:1::/48"), Spread: 64, Weight: 1},
	}}})
	equal(t, c.Listeners, []Listener{{
		Name:    "egress",
		Listen:  []string{":8080", "[::1]:8081"},
		Mode:    "connect",
		Pool:    "main",
		Users:   "f",
		Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")},
		TLS:     &TLS{"c.pem", "k.pem"},
		Destinations: Destinations{
			Allow: rules(t, "127.0.0.0/8", "*.example.com"),
			Deny:  rules(t, "a.example.com"),
			Ports: []target.PortRange{{From: 443, To: 443}, {From: 8443, To: 8443}, {From: 8000, To: 8999}},
		},
		Mark: 16,
	}})
}

func TestBuildFromVariables(t *testing.T) {
	want := mustBuild(t, "-listen :8080 -pool eth0,eth1 -users f -mark 7 -log-level warn -log-format console")
	environ := []string{"HOME=/", "SWIVEL_LISTEN=:8080", "SWIVEL_POOL=eth0, eth1", "SWIVEL_USERS=f", "SWIVEL_MARK=7", "SWIVEL_LOG_LEVEL=warn", "SWIVEL_LOG_FORMAT=console", "swivel_x=1", "SWIVEL=1"}
	equal(t, mustBuild(t, "", environ...), want)
	equal(t, mustBuild(t, "-listen :81 -mark 8", environ...).Listeners[0].Listen, []string{":81"})
	equal(t, mustBuild(t, "-listen :81 -mark 8", environ...).Listeners[0].Mark, 8)
}

// What is not valid, nor of use, does no harm behind a flag that wins.
func TestBuildAgain(t *testing.T) {
	var f Flags
	fs := flag.NewFlagSet("swivel", flag.ContinueOnError)
	f.Register(fs)
	if err := fs.Parse([]string{"-listen", ":81"}); err != nil {
		t.Fatal(err)
	}
	for _, clients := range []string{"10.0.0.0/8", "192.0.2.0/24"} { // as on SIGHUP
		c, err := f.Build(fs, []string{"SWIVEL_CLIENTS=" + clients, "SWIVEL_LISTEN=nonsense"})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, c.Listeners[0].Clients, []netip.Prefix{netip.MustParsePrefix(clients)})
	}
}

// A Service called swivel puts such variables into every container beside it.
func TestBuildIgnoresServiceLinks(t *testing.T) {
	mustBuild(t, "", "SWIVEL_SERVICE_HOST=10.0.0.1", "SWIVEL_SERVICE_PORT=8080", "SWIVEL_SERVICE_PORT_PROXY=8080", "SWIVEL_PORT=tcp://10.0.0.1:8080",
		"SWIVEL_PORT_8080_TCP=tcp://10.0.0.1:8080", "SWIVEL_PORT_8080_TCP_PROTO=tcp", "SWIVEL_PORT_8080_TCP_PORT=8080", "SWIVEL_PORT_8080_TCP_ADDR=10.0.0.1",
		"SWIVEL_POOL_SERVICE_HOST=10.0.0.1", "SWIVEL_POOL_PORT=udp://10.0.0.1:53")
}

func TestBuildFromFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "swivel.yaml")
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, mustBuild(t, "-config "+path), want)
	equal(t, mustBuild(t, "", "SWIVEL_CONFIG="+path), want)
	want.Log = Log{"debug", "console"}
	equal(t, mustBuild(t, "-log-level debug -config "+path, "SWIVEL_LOG_FORMAT=console"), want)
}

func TestBuildRefuses(t *testing.T) {
	for _, tt := range []struct{ name, line, environ, want string }{
		{"an open proxy", "-listen 127.0.0.1:80,:8080", "", "-listen: an open proxy: whoever reaches :8080 could use it (add -users or -clients, or listen on 127.0.0.1)"},
		{"an open proxy by variable", "", "SWIVEL_LISTEN=:80", "SWIVEL_LISTEN: an open proxy: whoever reaches :80 could use it (add -users or -clients, or listen on 127.0.0.1)"},
		{"an address", "-listen 8080", "", `-listen: "8080": no address (write :8080 for every address, 127.0.0.1:8080 for this host alone)`},
		{"an address by variable", "", "SWIVEL_LISTEN=8080", `SWIVEL_LISTEN: "8080": no address (write :8080 for every address, 127.0.0.1:8080 for this host alone)`},
		{"an address twice", "-listen 127.0.0.1:80,localhost:80", "", `-listen: "127.0.0.1:80" comes twice`},
		{"nothing", "-users= -listen :80", "", "-users: empty (leave it out, or give it a value)"},
		{"nothing by variable", "-listen :80", "SWIVEL_USERS=", "SWIVEL_USERS: empty (leave it out, or give it a value)"},
		{"nothing between commas", "-pool eth0,,eth1", "", `-pool: "eth0,,eth1": nothing between two commas`},
		{"another proxy", "-pool eth0,http://u:secret@a", "", `-pool: no port (write it as http://user:password@node2.example:8080)`},
		{"a MAC of 8 bytes", "-pool 02-00-5e-10-00-00-00-01", "", `-pool: "02-00-5e-10-00-00-00-01": not a MAC address (write it as 5e:88:52:b0:f7:5b)`},
		{"half a MAC", "-pool 5e:88:52", "", `-pool: "5e:88:52": neither a MAC address nor IPv6`},
		{"an interface", "-pool abcdefghijklmnop", "", `-pool: "abcdefghijklmnop": not the name of an interface`},
		{"half a certificate", "-cert c.pem", "", "-cert: needs the other one of -cert and -key"},
		{"a mark", "", "SWIVEL_MARK=x", `SWIVEL_MARK: "x": want a whole number, 0 to 4294967295`},
		{"several", "-strategy rr -ports 0 -deny a..b -clients x -log-level y", "",
			"-log-level: \"y\": use debug, info, warn or error\n" +
				"-strategy: \"rr\": use round-robin, random, least-used, per-target or hash\n" +
				"-clients: \"x\": not an address or prefix (write it as 192.0.2.0/24 or 2001:db8::/32)\n" +
				"-deny: rule \"a..b\": not a name\n" +
				"-ports: ports \"0\": want 443, or 8000-8999, within 1 to 65535"},

		{"an unknown variable", "", "SWIVEL_POOLS=eth0", "SWIVEL_POOLS: unknown variable (did you mean SWIVEL_POOL?)"},
		{"an unknown variable like no other", "", "SWIVEL_TEMPERATURE=1", "SWIVEL_TEMPERATURE: unknown variable (there are SWIVEL_CONFIG, SWIVEL_LISTEN, SWIVEL_MODE, " +
			"SWIVEL_POOL, SWIVEL_STRATEGY, SWIVEL_USERS, SWIVEL_CLIENTS, SWIVEL_ALLOW, SWIVEL_DENY, SWIVEL_PORTS, SWIVEL_CERT, SWIVEL_KEY, SWIVEL_TRANSPARENT, SWIVEL_CAPTURE, SWIVEL_FROM, SWIVEL_TO, SWIVEL_MARK, SWIVEL_LOG_LEVEL, SWIVEL_LOG_FORMAT)"},
		{"not a service link", "", "SWIVEL_PORT=443", "SWIVEL_PORT: unknown variable (did you mean SWIVEL_PORTS?)"},
		{"a variable in small letters", "", "SWIVEL_pool=eth0", "SWIVEL_pool: unknown variable (there are SWIVEL_CONFIG, SWIVEL_LISTEN, SWIVEL_MODE, " +
			"SWIVEL_POOL, SWIVEL_STRATEGY, SWIVEL_USERS, SWIVEL_CLIENTS, SWIVEL_ALLOW, SWIVEL_DENY, SWIVEL_PORTS, SWIVEL_CERT, SWIVEL_KEY, SWIVEL_TRANSPARENT, SWIVEL_CAPTURE, SWIVEL_FROM, SWIVEL_TO, SWIVEL_MARK, SWIVEL_LOG_LEVEL, SWIVEL_LOG_FORMAT)"},

		{"a file and flags", "-config f.yaml -listen :80 -log-level info", "SWIVEL_USERS=u",
			"-listen: does not go with -config (write it into f.yaml)\nSWIVEL_USERS: does not go with -config (write it into f.yaml)"},
		{"a file by variable, and flags", "-pool eth0", "SWIVEL_CONFIG=f.yaml", "-pool: does not go with SWIVEL_CONFIG (write it into f.yaml)"},
		{"no file", "-config /nowhere/f.yaml", "", "open /nowhere/f.yaml: no such file or directory"},
		{"no name of a file", "-config=", "", "-config: empty (leave it out, or give it a value)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := build(t, tt.line, strings.Fields(tt.environ)...)
			if err == nil || c != nil {
				t.Fatalf("accepted: %+v", c)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
