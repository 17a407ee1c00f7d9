package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"swivel/internal/target"
)

// sample has every key there is.
const sample = `
log: {level: info, format: json}          # format: json | console
admin: {listen: 127.0.0.1:9080}
limits:
  connections: 100000                     # all listeners
  per_client: 1000                        # per address (/64 for IPv6)
  head: 10s
  dial: 10s
  idle: 1h
  half_closed: 5m
  lifetime: 0s                            # 0: none
  user_timeout: 30s                       # TCP_USER_TIMEOUT, both legs
  first_byte: 2s
  udp_idle: 60s                           # unwrap: a UDP flow
  drain: 30s
resolver: {servers: [], timeout: 5s, prefer: any, cache: 5s}    # "IP" or "IP:port"; empty: the system's
geo: {database: country.mmdb}

pools:
  main:
    sources:
      - interface: eth0                   # every usable address, live; or  mac: "5e:88:52:b0:f7:5b"
      - address: 203.0.113.5
        labels: {country: DE}
        weight: 2
      - prefix: 2001:db8:1::/48
        spread: 56
      - {prefix: 2001:db8:2::/48}
      - {prefix: 192.0.2.0/24}
      - {prefix: "2001:db8:3::/112"}
    strategy: per-target                  # round-robin | random | least-used | hash
    hash_by: user                         # client | user | session | target
    spacing: 1s
    wait: 2s
    max_tunnel_age: 10m
    max_tunnel_bytes: 2GiB
    cooldown: {after: 5, for: 10s, most: 1h, keep: 75%, when_all_cool: refuse}
    refresh: 30m
  other:
    sources: [{address: 203.0.113.6}]

listeners:
  - name: egress
    listen: 127.0.0.1:8080                # one, or a list
    mode: connect
    pool: main
    users: users.htpasswd
    clients: [127.0.0.0/8, "::1/128"]
    accept_proxy: [10.0.0.0/8]            # peers whose connections begin with a PROXY header
    tls: {certificate: proxy.pem, key: proxy.key}
    destinations:
      allow: [127.0.0.0/8]
      deny: ["*.internal.example"]
      ports: [443, 80, 8000-8999]
    labels: {country: [de, NO]}
    sessions: {time: 30m, idle: 5m, on_gone: refuse}
    users_may:
      - users: [alice]
        ask: [session, country, label, pool, source]
        pools: [main, other]
      - ask: [session]
    select:
      - {users: [alice], labels: {line: a}}
      - {names: [shop.example, "*.shop.example"], labels: {country: no, line: [a, b]}}
    verify_name: off
    mark: 0

  - name: web
    listen: [":443", ":80"]
    mode: sni
    transparent: redirect                 # off (default) | redirect | tproxy
    pool: main                            # optional: source addresses for the upstream leg
    routes:                               # first match by precedence: exact, then longest suffix, then *
      - names: [a.example.com]
        alpn: [h2, http/1.1]              # optional; a route whose alpn matches goes before one without
        to: [127.0.0.1:29401, 127.0.0.1:29402]
        balance: round-robin              # least | client
        send_proxy: v2                    # v1 | v2 | off
        check: 5s
        pool: other
      - names: ["*.wild.example.com"]
        to: name                          # resolve the name; or  to: original
      - names: ["*"]
        to: close
    otherwise:                            # an action for each outcome: close | original | a list of backends
      no-route: close
      no-name: original
      not-tls: original
      malformed: close
      timeout: original
      too-large: [127.0.0.1:29401]
    opaque: [25, 3306]
    capture: [443, 80]                    # ports that the kernel sends here; default: the listen ports; or  all
    mark: 0
    destinations: {allow: [], deny: [], ports: [1-65535]}

  - name: game
    listen: [":25565", "udp/:25565", "udp/:2000-2002"]   # ranges too
    mode: unwrap
    from: [10.0.0.0/8]                    # who may send a PROXY header; empty is an error
    to: ["127.0.0.1:25566", "[::1]:25566"]   # one per family; or  to: destination
    source: keep-port                     # any-port | own
    udp_header: every
    allow_sources: []
`

// The defaults are written out: a change of one is a change of what users see.
func wantLimits() Limits {
	return Limits{
		Connections: 100000, PerClient: 1000,
		Head: 10 * time.Second, Dial: 10 * time.Second,
		Idle: time.Hour, HalfClosed: 5 * time.Minute, Lifetime: 0,
		UserTimeout: 30 * time.Second, UDPIdle: time.Minute, Drain: 30 * time.Second,
	}
}

func TestParseSample(t *testing.T) {
	got, err := Parse("/etc/swivel/swivel.yaml", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	limits := wantLimits()
	limits.FirstByte = 2 * time.Second
	want := &Config{
		File:     "/etc/swivel/swivel.yaml",
		Log:      Log{"info", "json"},
		Admin:    Admin{Listen: "127.0.0.1:9080"},
		Geo:      Geo{Database: "/etc/swivel/country.mmdb"},
		Limits:   limits,
		Resolver: Resolver{Timeout: 5 * time.Second, Cache: 5 * time.Second, Prefer: "any"},
		Pools: []Pool{{
			Name: "main",
			Sources: []Source{
				{Interface: "eth0", Weight: 1},
				{Address: netip.MustParseAddr("203.0.113.5"), Weight: 2, Labels: map[string]string{"country": "DE"}},
				{Prefix: netip.MustParsePrefix("2001:db8:1::/48"), Spread: 56, Weight: 1},
				{Prefix: netip.MustParsePrefix("2001:db8:2::/48"), Spread: 64, Weight: 1},
				{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Spread: 32, Weight: 1},
				{Prefix: netip.MustParsePrefix("2001:db8:3::/112"), Spread: 128, Weight: 1},
			},
			Strategy: "per-target",
			HashBy:   "user",
			Spacing:  time.Second,
			Wait:     2 * time.Second,
			MaxAge:   10 * time.Minute,
			MaxBytes: 2 << 30,
			Cooldown: Cooldown{After: 5, For: 10 * time.Second, Most: time.Hour, Keep: 75, WhenAllCool: "refuse"},
			Refresh:  30 * time.Minute,
		}, {
			Name:     "other",
			Sources:  []Source{{Address: netip.MustParseAddr("203.0.113.6"), Weight: 1}},
			Strategy: "round-robin",
			HashBy:   "session",
			Cooldown: defaultCooldown(),
			Refresh:  30 * time.Minute,
		}},
		Listeners: []Listener{{
			Name:        "egress",
			Listen:      []string{"127.0.0.1:8080"},
			Mode:        "connect",
			Pool:        "main",
			Users:       "/etc/swivel/users.htpasswd",
			Clients:     []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
			AcceptProxy: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			TLS:         &TLS{"/etc/swivel/proxy.pem", "/etc/swivel/proxy.key"},
			Labels:      []Want{{"country", []string{"de", "NO"}}},
			Sessions:    Sessions{Time: 30 * time.Minute, Idle: 5 * time.Minute, OnGone: "refuse"},
			Rights: []Rights{
				{Users: []string{"alice"}, Ask: []string{"session", "country", "label", "pool", "source"}, Pools: []string{"main", "other"}},
				{Ask: []string{"session"}},
			},
			Select: []Selection{
				{Users: []string{"alice"}, Wants: []Want{{"line", []string{"a"}}}},
				{Names: rules(t, "shop.example", "*.shop.example"), Wants: []Want{{"country", []string{"no"}}, {"line", []string{"a", "b"}}}},
			},
			Destinations: Destinations{
				Allow: rules(t, "127.0.0.0/8"),
				Deny:  rules(t, "*.internal.example"),
				Ports: []target.PortRange{{From: 443, To: 443}, {From: 80, To: 80}, {From: 8000, To: 8999}},
			},
		}, {
			Name:         "web",
			Listen:       []string{":443", ":80"},
			Mode:         "sni",
			Pool:         "main",
			Destinations: Destinations{Ports: []target.PortRange{{From: 1, To: 65535}}},
			SNI: &SNI{
				Transparent: "redirect", Source: "own",
				Routes: []Route{
					{Names: []string{"a.example.com"}, ALPN: []string{"h2", "http/1.1"}, To: backends("127.0.0.1:29401", "127.0.0.1:29402"),
						Balance: "round-robin", SendProxy: "v2", Check: 5 * time.Second, Pool: "other"},
					{Names: []string{"*.wild.example.com"}, To: To{Kind: "name"}, Balance: "round-robin", SendProxy: "off"},
					{Names: []string{"*"}, To: To{Kind: "close"}, Balance: "round-robin", SendProxy: "off"},
				},
				Otherwise: Otherwise{
					NoRoute:   To{Kind: "close"},
					NoName:    To{Kind: "original"},
					NotTLS:    To{Kind: "original"},
					Malformed: To{Kind: "close"},
					Timeout:   To{Kind: "original"},
					TooLarge:  backends("127.0.0.1:29401"),
				},
				Opaque:  ports(25, 3306),
				Capture: ports(443, 80),
			},
		}, {
			Name:         "game",
			Listen:       []string{":25565", "udp/:25565", "udp/:2000", "udp/:2001", "udp/:2002"},
			Mode:         "unwrap",
			Destinations: Destinations{Ports: []target.PortRange{{From: 1, To: 65535}}},
			Unwrap: &Unwrap{
				From:      []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
				To:        []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:25566"), netip.MustParseAddrPort("[::1]:25566")},
				Source:    "keep-port",
				UDPHeader: "every",
			},
		}},
	}
	equal(t, got, want)
}

func TestParseDefaults(t *testing.T) {
	got, err := Parse("swivel.yaml", []byte("listeners: [{listen: 'localhost:8080'}]"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, &Config{
		File:     "swivel.yaml",
		Log:      Log{"info", "json"},
		Limits:   wantLimits(),
		Resolver: Resolver{Timeout: 5 * time.Second, Cache: 5 * time.Second, Prefer: "any"},
		Pools:    []Pool{{Name: "default", Strategy: "round-robin", HashBy: "session", Cooldown: defaultCooldown(), Refresh: 30 * time.Minute}},
		Listeners: []Listener{{
			Name:         "127.0.0.1:8080",
			Listen:       []string{"127.0.0.1:8080"},
			Mode:         "connect",
			Pool:         "default",
			Destinations: Destinations{Ports: []target.PortRange{{From: 443, To: 443}, {From: 80, To: 80}}},
		}},
	})
}

// TestParseOther has what the sample has not.
func TestParseOther(t *testing.T) {
	const text = "\ufeff" + `---
listeners:
- {name: a, listen: [":8080", "[::1]:0", "0.0.0.0:0", "[::ffff:127.0.0.1]:81", "[fe80::1%eth0]:82"], pool: two,
   clients: [192.0.2.1, "2001:db8::1", "::ffff:192.0.2.2", 0.0.0.0/0], mark: 0xffffffff, users: /a/b, verify_name: deny}
- {listen: "127.0.0.1:8080", pool: "1"}
log: {level: debug, format: console}
limits: {connections: 1, per_client: 1, head: 1ms, idle: 0, half_closed: 0s, lifetime: 1h30m, drain: 0s}
resolver: {servers: [192.0.2.53, "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353"], prefer: ipv6, cache: 0s, timeout: 1s}
pools:
  two: {strategy: least-used, refresh: 1s, sources: [{mac: 5e-88-52-b0-f7-5b, weight: 1000}, {address: "::ffff:192.0.2.7"}]}
  1: {strategy: random}
`
	c, err := Parse("dir/swivel.yaml", []byte(strings.ReplaceAll(text, "\n", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, c.Log, Log{"debug", "console"})
	equal(t, c.Limits, Limits{Connections: 1, PerClient: 1, Head: time.Millisecond, Dial: 10 * time.Second,
		Lifetime: 90 * time.Minute, UserTimeout: 30 * time.Second, UDPIdle: time.Minute})
	equal(t, c.Resolver, Resolver{
		Servers: []netip.AddrPort{
			netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("192.0.2.53:5353"),
			netip.MustParseAddrPort("[2001:db8::53]:53"), netip.MustParseAddrPort("[2001:db8::53]:5353"),
		},
		Timeout: time.Second, Prefer: "ipv6",
	})
	equal(t, c.Pools, []Pool{
		{Name: "two", Strategy: "least-used", HashBy: "session", Cooldown: defaultCooldown(), Refresh: time.Second, Sources: []Source{
			{MAC: net.HardwareAddr{0x5e, 0x88, 0x52, 0xb0, 0xf7, 0x5b}, Weight: 1000},
			{Address: netip.MustParseAddr("192.0.2.7"), Weight: 1},
		}},
		{Name: "1", Strategy: "random", HashBy: "session", Cooldown: defaultCooldown(), Refresh: 30 * time.Minute},
	})
	a, b := c.Listeners[0], c.Listeners[1]
	equal(t, a.Listen, []string{":8080", "[::1]:0", "0.0.0.0:0", "127.0.0.1:81", "[fe80::1%eth0]:82"})
	equal(t, a.Clients, []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128"),
		netip.MustParsePrefix("192.0.2.2/32"), netip.MustParsePrefix("0.0.0.0/0"),
	})
	equal(t, []any{a.Name, a.Pool, a.Users, a.Mark, a.VerifyName}, []any{"a", "two", "/a/b", 0xffffffff, "deny"})
	equal(t, []any{b.Name, b.Pool, b.Users}, []any{"127.0.0.1:8080", "1", ""})
}

// What has a colon in it needs no quotes, in a list of either style.
func TestParseColons(t *testing.T) {
	const flow = `
resolver: {servers: [10.2.0.1:5353]}
listeners:
- listen: [127.0.0.1:29401, 127.0.0.1:29402]
  destinations: {allow: [10.1.2.3:443, "::1/128"]}
`
	const block = `
resolver:
  servers:
  - 10.2.0.1:5353
listeners:
- listen:
  - 127.0.0.1:29401
  - 127.0.0.1:29402
  destinations:
    allow:
    - 10.1.2.3:443
    - ::1/128
`
	for _, text := range []string{flow, block} {
		c, err := Parse("f.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s\n%v", text, err)
			continue
		}
		equal(t, c.Resolver.Servers, []netip.AddrPort{netip.MustParseAddrPort("10.2.0.1:5353")})
		equal(t, c.Listeners[0].Listen, []string{"127.0.0.1:29401", "127.0.0.1:29402"})
		equal(t, c.Listeners[0].Destinations.Allow, rules(t, "10.1.2.3:443", "::1/128"))
	}
}

// TestParseText has what is text, although some readers of YAML know better.
func TestParseText(t *testing.T) {
	for _, s := range []string{"yes", "no", "on", "off", "y", "n", "2001-01-01", "1:30", "1.2.3", "=", "a b", "'true'", `"0x10"`, "'~'", "'<<'", `"1_000"`} {
		for _, labels := range []string{"{l: " + s + "}", "\n        l: " + s} {
			c, err := Parse("f.yaml", []byte("pools:\n  a:\n    sources:\n    - interface: e\n      labels: "+labels+l))
			if err != nil {
				t.Error(err)
				continue
			}
			equal(t, c.Pools[0].Sources[0].Labels["l"], strings.Trim(s, `'"`))
		}
	}
}

// A mapping with many keys takes a time that is linear in them: were it not, this
// test would take minutes.
func TestParseManyKeys(t *testing.T) {
	const many = 40000
	var flow, block strings.Builder
	for i := range many {
		fmt.Fprintf(&flow, "k%d: v, ", i)
		fmt.Fprintf(&block, "\n        k%d: v", i)
	}
	for _, labels := range []string{"{" + flow.String() + "}", block.String()} {
		c, err := Parse("f.yaml", []byte("pools:\n  a:\n    sources:\n    - interface: e\n      labels: "+labels+l))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(c.Pools[0].Sources[0].Labels); got != many {
			t.Errorf("%d labels, want %d", got, many)
		}
	}
}

func TestParseFillsInTheOnlyPool(t *testing.T) {
	c, err := Parse("f", []byte("pools: {main: {}}\nlisteners: [{listen: ':8080', users: u}]"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, c.Listeners[0].Pool, "main")
	equal(t, len(c.Pools), 1)
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "swivel.yaml")
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing: %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a folder was loaded")
	}
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, c.Listeners[0].Users, filepath.Join(dir, "users.htpasswd"))
	large := append([]byte(sample), make([]byte, maxSize)...)
	if err := os.WriteFile(path, large, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || err.Error() != path+": larger than 1 MiB" {
		t.Errorf("large: %v", err)
	}
}

func rules(t *testing.T, list ...string) []target.Rule {
	t.Helper()
	var all []target.Rule
	for _, s := range list {
		r, err := target.ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
