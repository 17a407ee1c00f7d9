package config

import (
	"strings"
	"testing"
	"time"

	"swivel/internal/target"
)

func backends(list ...string) To {
	to := To{Kind: "backends"}
	for _, s := range list {
		t, err := target.Parse(s)
		if err != nil {
			panic(err)
		}
		to.Backends = append(to.Backends, t)
	}
	return to
}

func ports(list ...uint16) (all []target.PortRange) {
	for _, p := range list {
		all = append(all, target.PortRange{From: p, To: p})
	}
	return all
}

// parseSNI parses a file of one listener of mode sni; keys stand between commas.
func parseSNI(t *testing.T, keys string) Listener {
	t.Helper()
	c, err := Parse("f.yaml", []byte("listeners: [{mode: sni, "+keys+"}]"))
	if err != nil {
		t.Fatalf("%s: %v", keys, err)
	}
	return c.Listeners[0]
}

var (
	original = To{Kind: "original"}
	closed   = To{Kind: "close"}
	passAll  = []Route{{Names: []string{"*"}, To: original, Balance: "round-robin", SendProxy: "off"}}
)

func TestSNIDefaults(t *testing.T) {
	l := parseSNI(t, "listen: ':443', transparent: tproxy")
	equal(t, l, Listener{
		Name: ":443", Listen: []string{":443"}, Mode: "sni",
		Destinations: Destinations{Ports: []target.PortRange{{From: 1, To: 65535}}},
		SNI: &SNI{
			Transparent: "tproxy", Source: "own", Routes: passAll, Capture: ports(443),
			Otherwise: Otherwise{NoRoute: closed, NoName: original, NotTLS: original, Malformed: closed, Timeout: original, TooLarge: closed},
		},
	})
	l = parseSNI(t, "listen: ':443', transparent: redirect, otherwise: {timeout: close}, capture: all")
	equal(t, l.SNI.Otherwise, Otherwise{NoRoute: closed, NoName: original, NotTLS: original, Malformed: closed, Timeout: closed, TooLarge: closed})
	equal(t, l.SNI.Capture, []target.PortRange{{From: 1, To: 65535}})

	// A file with routes closes what it does not name.
	l = parseSNI(t, "listen: ':443', transparent: redirect, routes: [{names: a.example}]")
	equal(t, l.SNI.Routes, []Route{{Names: []string{"a.example"}, To: original, Balance: "round-robin", SendProxy: "off"}})
	equal(t, l.SNI.Otherwise, Otherwise{closed, closed, closed, closed, closed, closed})

	l = parseSNI(t, "listen: ':443', otherwise: {no-name: [a.example:1]}, destinations: {ports: [443]}")
	equal(t, l.SNI, &SNI{Transparent: "off", Source: "own", Otherwise: Otherwise{closed, backends("a.example:1"), closed, closed, closed, closed}})
	equal(t, l.Destinations.Ports, ports(443))
}

func TestSNIRoutes(t *testing.T) {
	l := parseSNI(t, "listen: [':443', ':8443', ':8444', ':0'], transparent: redirect, opaque: [25, 100-200], "+
		"routes: [{names: [A.example., '*.B.example', '*.com', xn--a_.example], to: 'Name.example:443', balance: least, send_proxy: v1}, "+
		"{names: '*', to: ['[::1]:1', '1.2.3.4:5'], check: 100ms, balance: client, alpn: h2}, {names: '*', alpn: [http/1.1]}, {names: '*', to: close}]")
	equal(t, l.SNI.Capture, []target.PortRange{{From: 443, To: 443}, {From: 8443, To: 8444}})
	equal(t, l.SNI.Opaque, []target.PortRange{{From: 25, To: 25}, {From: 100, To: 200}})
	equal(t, l.SNI.Routes, []Route{
		{Names: []string{"a.example", "*.b.example", "*.com", "xn--a_.example"}, To: backends("name.example:443"), Balance: "least", SendProxy: "v1"},
		{Names: []string{"*"}, ALPN: []string{"h2"}, To: backends("[::1]:1", "1.2.3.4:5"), Balance: "client", SendProxy: "off", Check: 100 * time.Millisecond},
		{Names: []string{"*"}, ALPN: []string{"http/1.1"}, To: original, Balance: "round-robin", SendProxy: "off"},
		{Names: []string{"*"}, To: closed, Balance: "round-robin", SendProxy: "off"},
	})
}

func TestSNIRefuses(t *testing.T) {
	const at = "f.yaml:1:"
	for _, tt := range []struct{ name, keys, want string }{
		{"keys of others", "users: u, from: [10.0.0.0/8]",
			at + "25: listeners[0].users: a key of mode connect (this listener's mode is sni)\n" + at + "35: listeners[0].from: a key of mode unwrap (this listener's mode is sni)\n" +
				at + "13: listeners[0]: every connection would be closed (add routes, or  transparent: redirect)"},
		{"nothing to do", "otherwise: {no-name: close}", at + "13: listeners[0]: every connection would be closed (add routes, or  transparent: redirect)"},
		{"no routes", "routes: []", at + "33: listeners[0].routes: an empty list (leave the key out, or name some)"},
		{"a way in", "transparent: on", at + `38: listeners[0].transparent: "on": use off, redirect or tproxy`},
		{"what needs the kernel", "opaque: [25], capture: all, otherwise: {timeout: original}, routes: [{names: a.example, to: original}]",
			at + "25: listeners[0].opaque: needs  transparent: redirect  or tproxy\n" +
				at + "39: listeners[0].capture: needs  transparent: redirect  or tproxy\n" +
				at + "74: listeners[0].otherwise.timeout: \"original\": needs  transparent: redirect  or tproxy\n" +
				at + "117: listeners[0].routes[0].to: \"original\": needs  transparent: redirect  or tproxy"},
		{"a route to nowhere", "routes: [{names: a.example}, {to: close}]",
			at + "34: listeners[0].routes[0]: to: missing (such as [127.0.0.1:8443], name or close)\n" +
				at + "54: listeners[0].routes[1].names: missing (such as [\"*.example.com\"])"},
		{"names", "routes: [{to: close, names: ['', 1.2.3.4, '::1', 'a.*.example', '*a', '**', '*.', a..b, 'ü.example', 'a b', '*.1']}]",
			at + `54: listeners[0].routes[0].names[0]: "": not a name` + "\n" +
				at + `58: listeners[0].routes[0].names[1]: "1.2.3.4": not a name (clients send no address as a server name)` + "\n" +
				at + `67: listeners[0].routes[0].names[2]: "::1": not a name (clients send no address as a server name)` + "\n" +
				at + `74: listeners[0].routes[0].names[3]: "a.*.example": a * stands alone or for the first label, as in *.example.com` + "\n" +
				at + `89: listeners[0].routes[0].names[4]: "*a": a * stands alone or for the first label, as in *.example.com` + "\n" +
				at + `95: listeners[0].routes[0].names[5]: "**": a * stands alone or for the first label, as in *.example.com` + "\n" +
				at + `101: listeners[0].routes[0].names[6]: "*.": not a name` + "\n" +
				at + `107: listeners[0].routes[0].names[7]: "a..b": not a name` + "\n" +
				at + `113: listeners[0].routes[0].names[8]: "ü.example": not a name as clients send it (write it in ASCII, as xn--…)` + "\n" +
				at + `126: listeners[0].routes[0].names[9]: "a b": not a name` + "\n" +
				at + `133: listeners[0].routes[0].names[10]: "*.1": not a name`},
		{"names twice", "routes: [{names: [a.example, '*', A.example.], to: close}, {names: '*', to: close}]",
			at + `59: listeners[0].routes[0].names[2]: "a.example": listeners[0].routes[0].names[0] is that already` + "\n" +
				at + `92: listeners[0].routes[1].names: "*": listeners[0].routes[0].names[1] is that already`},
		{"names twice for a protocol", "routes: [{names: a.example, alpn: [h2, http/1.1], to: close}, {names: a.example, alpn: http/1.1, to: close}]",
			at + `95: listeners[0].routes[1].names: "a.example": listeners[0].routes[0].names is that already, for "http/1.1" too`},
		{"backends", "routes: [{names: a, to: [a, '1.2.3.4', '1.2.3.4:0', '0.0.0.0:1', original, 'b:1', 'B.:1']}, {names: b, to: back}, {names: c, to: []}]",
			at + `50: listeners[0].routes[0].to[0]: "a": not a backend (use close, original, name or a list such as [192.0.2.7:443])` + "\n" +
				at + `53: listeners[0].routes[0].to[1]: "1.2.3.4": not a backend (write it as 192.0.2.7:443, [2001:db8::7]:443 or name:443)` + "\n" +
				at + `64: listeners[0].routes[0].to[2]: "1.2.3.4:0": not a backend (write it as 192.0.2.7:443, [2001:db8::7]:443 or name:443)` + "\n" +
				at + `77: listeners[0].routes[0].to[3]: "0.0.0.0:1": not a backend (write it as 192.0.2.7:443, [2001:db8::7]:443 or name:443)` + "\n" +
				at + `90: listeners[0].routes[0].to[4]: "original": not a backend (use close, original, name or a list such as [192.0.2.7:443])` + "\n" +
				at + `107: listeners[0].routes[0].to[6]: "b:1": the same backend again` + "\n" +
				at + `132: listeners[0].routes[1].to: "back": not a backend (use close, original, name or a list such as [192.0.2.7:443])` + "\n" +
				at + `154: listeners[0].routes[2].to: an empty list (leave the key out, or name some)`},
		{"settings of a route", "routes: [{names: a, to: close, pool: p, send_proxy: v2}, {names: b, to: name, balance: least, check: 5s}, " +
			"{names: c, to: name, balance: fast, check: 1ms, send_proxy: v3, pool: p, alpn: [''], weight: 1}]",
			at + "62: listeners[0].routes[0].pool: means nothing for  to: close\n" +
				at + `62: listeners[0].routes[0].pool: "p": no such pool (the file has no pools; leave the key out to leave by this host's addresses)` + "\n" +
				at + "77: listeners[0].routes[0].send_proxy: means nothing for  to: close\n" +
				at + "112: listeners[0].routes[1].balance: means nothing for  to: name\n" +
				at + "126: listeners[0].routes[1].check: means nothing for  to: name\n" +
				at + "161: listeners[0].routes[2].balance: \"fast\": use round-robin, least or client\n" +
				at + "161: listeners[0].routes[2].balance: means nothing for  to: name\n" +
				at + "174: listeners[0].routes[2].check: \"1ms\": want at least 100ms\n" +
				at + "174: listeners[0].routes[2].check: means nothing for  to: name\n" +
				at + "191: listeners[0].routes[2].send_proxy: \"v3\": use off, v1 or v2\n" +
				at + `201: listeners[0].routes[2].pool: "p": no such pool (the file has no pools; leave the key out to leave by this host's addresses)` + "\n" +
				at + `211: listeners[0].routes[2].alpn[0]: "": not a protocol (write it as h2 or http/1.1)` + "\n" +
				at + "216: listeners[0].routes[2].weight: unknown key (there are names, alpn, to, balance, send_proxy, check, pool)"},
		{"outcomes", "transparent: redirect, otherwise: {no-name: name, not-tls: drop, no_route: close}",
			at + "69: listeners[0].otherwise.no-name: \"name\": there is no name to go by (use close, original or a list of backends)\n" +
				at + "84: listeners[0].otherwise.not-tls: \"drop\": not a backend (use close, original, name or a list such as [192.0.2.7:443])\n" +
				at + "90: listeners[0].otherwise.no_route: unknown key (did you mean no-route?)"},
		{"the client's address", "transparent: redirect, source: client, pool: p, routes: [{names: a.example, pool: q}, {names: b.example}]",
			at + "64: listeners[0].pool: means nothing with  source: client\n" +
				at + `70: listeners[0].pool: "p": no such pool (the file has no pools; leave the key out to leave by this host's addresses)` + "\n" +
				at + "101: listeners[0].routes[0].pool: means nothing with  source: client\n" +
				at + `107: listeners[0].routes[0].pool: "q": no such pool (the file has no pools; leave the key out to leave by this host's addresses)`},
		{"ports", "transparent: redirect, opaque: [0, x], capture: none",
			at + "57: listeners[0].opaque[0]: ports \"0\": want 443, or 8000-8999, within 1 to 65535\n" +
				at + "60: listeners[0].opaque[1]: ports \"x\": want 443, or 8000-8999, within 1 to 65535\n" +
				at + "73: listeners[0].capture: ports \"none\": want 443, or 8000-8999, within 1 to 65535"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse("f.yaml", []byte("listeners: [{mode: sni, "+tt.keys+", listen: ':443'}]"))
			if err == nil || c != nil {
				t.Fatalf("accepted: %+v", c)
			}
			if got := err.Error(); !sameLines(got, tt.want) {
				t.Errorf("%s\ngot  %s\nwant %s", tt.keys, got, tt.want)
			}
		})
	}
}

// sameLines compares two errors of one line of a file, whatever their order.
func sameLines(a, b string) bool {
	count := make(map[string]int)
	for line := range strings.SplitSeq(a, "\n") {
		count[line]++
	}
	for line := range strings.SplitSeq(b, "\n") {
		count[line]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestBuildSNI(t *testing.T) {
	c := mustBuild(t, "-mode sni -listen :8443,:8080 -transparent redirect -mark 7 -deny *.bad.example -ports 443,80 -clients 10.0.0.0/8")
	want := Listener{
		Name: "router", Listen: []string{":8443", ":8080"}, Mode: "sni", Mark: 7,
		Clients:      c.Listeners[0].Clients,
		Destinations: Destinations{Deny: rules(t, "*.bad.example"), Ports: ports(443, 80)},
		SNI: &SNI{
			Transparent: "redirect", Source: "own", Routes: passAll, Capture: ports(8080, 8443),
			Otherwise: Otherwise{NoRoute: closed, NoName: original, NotTLS: original, Malformed: closed, Timeout: original, TooLarge: closed},
		},
	}
	equal(t, c.Listeners, []Listener{want})
	l := mustBuild(t, "-mode sni -listen :8443 -transparent tproxy -pool eth0 -capture 443,8000-8999").Listeners[0]
	equal(t, l.Pool, "main")
	equal(t, l.SNI.Capture, []target.PortRange{{From: 443, To: 443}, {From: 8000, To: 8999}})
	equal(t, mustBuild(t, "-mode sni -capture all", "SWIVEL_LISTEN=:1", "SWIVEL_TRANSPARENT=tproxy").Listeners[0].SNI.Capture, []target.PortRange{{From: 1, To: 65535}})

	for _, tt := range []struct{ name, line, want string }{
		{"nothing else", "-mode sni", "-listen: missing in mode sni (such as :8443)\n-transparent: needs redirect or tproxy (routes for clients that connect themselves are in a file)"},
		{"no way in", "-mode sni -listen :443 -transparent off", "-transparent: needs redirect or tproxy (routes for clients that connect themselves are in a file)"},
		{"a way in", "-mode sni -listen :443 -transparent dnat", `-transparent: "dnat": use off, redirect or tproxy` + "\n-transparent: needs redirect or tproxy (routes for clients that connect themselves are in a file)"},
		{"another mode", "-transparent redirect -capture all", "-transparent: means nothing in mode connect\n-capture: means nothing in mode connect"},
		{"flags of others", "-mode sni -listen :443 -transparent redirect -users u -from 10.0.0.0/8", "-users: means nothing in mode sni\n-from: means nothing in mode sni"},
		{"ports", "-mode sni -listen :443 -transparent redirect -capture 0", "-capture: ports \"0\": want 443, or 8000-8999, within 1 to 65535"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := build(t, tt.line)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v, %+v\nwant %s", err, c, tt.want)
			}
		})
	}
}
