package config

import (
	"net/netip"
	"strings"
	"testing"

	"swivel/internal/target"
)

func TestParseUnwrap(t *testing.T) {
	const text = `
pools: {main: {}, other: {}}
listeners:
- {listen: ":2000-2002", mode: unwrap, from: 10.0.0.1, to: "127.0.0.1:*"}
- {name: b, listen: ["[::1]:22"], mode: unwrap, from: ["10.0.0.0/8", "fd00::/8"], to: ["localhost:22", "[::ffff:127.0.0.2]:22"]}
`
	_, err := Parse("f.yaml", []byte(text))
	if want := "f.yaml:5:104: listeners[1].to[1]: \"127.0.0.2:22\": 127.0.0.1:22 is of the same family (one target for IPv4 and one for IPv6)"; err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	c, err := Parse("f.yaml", []byte(strings.Replace(text, "::ffff:127.0.0.2", "2001:db8::1", 1)+`
- {listen: "127.0.0.1:25", mode: unwrap, from: [10.0.0.1], to: destination, destinations: {allow: [10.0.0.0/8]}, source: any-port, ipv4_in_tcp6: on, udp_header: first, allow_sources: [127.0.0.0/8]}
`))
	if err != nil {
		t.Fatal(err)
	}
	balancer := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
	every := []target.PortRange{{From: 1, To: 65535}}
	equal(t, c.Listeners, []Listener{
		{
			Name: ":2000-2002", Listen: []string{":2000", ":2001", ":2002"}, Mode: "unwrap", Destinations: Destinations{Ports: every},
			Unwrap: &Unwrap{From: balancer, To: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Source: "keep-port", UDPHeader: "every"},
		}, {
			Name: "b", Listen: []string{"[::1]:22"}, Mode: "unwrap", Destinations: Destinations{Ports: every},
			Unwrap: &Unwrap{
				From:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
				To:     []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:22"), netip.MustParseAddrPort("[2001:db8::1]:22")},
				Source: "keep-port", UDPHeader: "every",
			},
		}, {
			Name: "127.0.0.1:25", Listen: []string{"127.0.0.1:25"}, Mode: "unwrap",
			Destinations: Destinations{Allow: rules(t, "10.0.0.0/8"), Ports: every}, IPv4InTCP6: true,
			Unwrap: &Unwrap{From: balancer, Source: "any-port", UDPHeader: "first", AllowSources: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		},
	})
}

func TestParseRefusesUnwrap(t *testing.T) {
	for _, tt := range []struct{ name, listener, want string }{
		{"nothing", "mode: unwrap", "f.yaml:1:13: listeners[0].from: missing (who may send a PROXY header, such as 10.0.0.0/8)\n" +
			"f.yaml:1:13: listeners[0].to: missing (such as 127.0.0.1:22, or destination)"},
		{"an empty list of senders", "mode: unwrap, from: [], to: '[::1]:1'",
			"f.yaml:1:53: listeners[0].from: an empty list: nobody could send a PROXY header (name the load balancer's addresses)"},
		{"no targets", "mode: unwrap, from: ['::1'], to: []", "f.yaml:1:66: listeners[0].to: an empty list (name a target, or write to: destination)"},
		{"targets", "mode: unwrap, from: ['::1'], to: [a:1, '127.0.0.1', '::1', '127.0.0.1:0', '127.0.0.1:01', '127.0.0.1:65536', '[fe80::1%eth0]:1', '0.0.0.0:1', '[ff02::1]:1', destination, '*:1', '']",
			"f.yaml:1:67: listeners[0].to[0]: \"a:1\": not an address and port (write it as 127.0.0.1:22, [::1]:22, 127.0.0.1:*, or destination)\n" +
				"f.yaml:1:72: listeners[0].to[1]: \"127.0.0.1\": no port (write 127.0.0.1:22, or 127.0.0.1:* for the port that the client came to)\n" +
				"f.yaml:1:85: listeners[0].to[2]: \"::1\": no port (write [::1]:22, or [::1]:* for the port that the client came to)\n" +
				"f.yaml:1:92: listeners[0].to[3]: \"127.0.0.1:0\": a port is 1 to 65535, or * for the one that the client came to\n" +
				"f.yaml:1:107: listeners[0].to[4]: \"127.0.0.1:01\": a port is 1 to 65535, or * for the one that the client came to\n" +
				"f.yaml:1:123: listeners[0].to[5]: \"127.0.0.1:65536\": not an address and port (write it as 127.0.0.1:22, [::1]:22, 127.0.0.1:*, or destination)\n" +
				"f.yaml:1:142: listeners[0].to[6]: \"[fe80::1%eth0]:1\": not the address of a server\n" +
				"f.yaml:1:162: listeners[0].to[7]: \"0.0.0.0:1\": not the address of a server\n" +
				"f.yaml:1:175: listeners[0].to[8]: \"[ff02::1]:1\": not the address of a server\n" +
				"f.yaml:1:190: listeners[0].to[9]: \"destination\": stands alone (write to: destination)\n" +
				"f.yaml:1:203: listeners[0].to[10]: \"*:1\": not an address and port (write it as 127.0.0.1:22, [::1]:22, 127.0.0.1:*, or destination)\n" +
				"f.yaml:1:210: listeners[0].to[11]: \"\": not an address and port (write it as 127.0.0.1:22, [::1]:22, 127.0.0.1:*, or destination)"},
		{"words", "mode: unwrap, from: ['::1'], to: destination, source: keep, udp_header: all, allow_sources: [x]",
			"f.yaml:1:87: listeners[0].source: \"keep\": use keep-port, any-port or own\n" +
				"f.yaml:1:105: listeners[0].udp_header: \"all\": use every, first, first-v1 or simple\n" +
				"f.yaml:1:126: listeners[0].allow_sources[0]: \"x\": not an address or prefix (write it as 192.0.2.0/24 or 2001:db8::/32)"},
		{"what means nothing", "mode: unwrap, from: ['::1'], to: '[::1]:1', pool: main, destinations: {}, accept_proxy: ['::1']",
			"f.yaml:1:77: listeners[0].pool: mode unwrap leaves by the client's address (leave the key out)\n" +
				"f.yaml:1:89: listeners[0].destinations: to names the only destination (write to: destination, or leave the key out)\n" +
				"f.yaml:1:107: listeners[0].accept_proxy: in mode unwrap that is from (leave the key out)"},
		{"keys of another mode", "mode: unwrap, from: ['::1'], to: destination, users: u, tls: {}",
			"f.yaml:1:79: listeners[0].users: a key of mode connect (this listener's mode is unwrap)\n" +
				"f.yaml:1:89: listeners[0].tls: a key of mode connect (this listener's mode is unwrap)"},
		{"no headers to be lax about", "ipv4_in_tcp6: yes",
			"f.yaml:1:33: listeners[0].ipv4_in_tcp6: is about PROXY headers, which are taken of nobody (accept_proxy says of whom)\n" +
				"f.yaml:1:47: listeners[0].ipv4_in_tcp6: \"yes\": use on or off"},
		{"its keys elsewhere", "from: ['::1'], to: destination, source: own, udp_header: first, allow_sources: []",
			"f.yaml:1:33: listeners[0].from: a key of mode unwrap (this listener's mode is connect)\n" +
				"f.yaml:1:48: listeners[0].to: a key of mode unwrap (this listener's mode is connect)\n" +
				"f.yaml:1:65: listeners[0].source: a key of mode sni and unwrap (this listener's mode is connect)\n" +
				"f.yaml:1:78: listeners[0].udp_header: a key of mode unwrap (this listener's mode is connect)\n" +
				"f.yaml:1:97: listeners[0].allow_sources: a key of mode unwrap (this listener's mode is connect)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte("listeners: [{listen: '[::1]:1', "+tt.listener+"}]"))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestParsePortRanges(t *testing.T) {
	for text, want := range map[string]string{
		"':1-2', ':2-3'":          `f.yaml:1:31: listeners[0].listen[1]: ":2": listeners[0].listen[0] is that already`,
		"':0-2'":                  `f.yaml:1:23: listeners[0].listen[0]: ":0-2": a range is from a port above 0 to a higher one (write it as 2000-2100)`,
		"':2-2'":                  `f.yaml:1:23: listeners[0].listen[0]: ":2-2": a range is from a port above 0 to a higher one (write it as 2000-2100)`,
		"':3-2'":                  `f.yaml:1:23: listeners[0].listen[0]: ":3-2": a range is from a port above 0 to a higher one (write it as 2000-2100)`,
		"':1-2-3'":                `f.yaml:1:23: listeners[0].listen[0]: ":1-2-3": a port is 0 to 65535`,
		"':1-65536'":              `f.yaml:1:23: listeners[0].listen[0]: ":1-65536": a port is 0 to 65535`,
		"':-2'":                   `f.yaml:1:23: listeners[0].listen[0]: ":-2": a port is 0 to 65535`,
		"':1-65535', '[::1]:1-2'": `f.yaml:1:35: listeners[0].listen[1]: "[::1]:1-2": more than 65536 ports in all`,
		"'udp/:53'":               `f.yaml:1:23: listeners[0].listen[0]: "udp/:53": UDP is for mode unwrap (this listener's mode is connect)`,
		"'udp/'":                  `f.yaml:1:23: listeners[0].listen[0]: "udp/": not an address and port (write it as 127.0.0.1:8080, [::1]:8080 or :8080)`,
	} {
		_, err := Parse("f.yaml", []byte("listeners: [{listen: ["+text+"], users: u}]"))
		if err == nil || err.Error() != want {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
	// As many as there may be take no noticeable time, however often they are asked for.
	many := strings.Repeat("':1-65535', ", 10000)
	if _, err := Parse("f.yaml", []byte("listeners: [{users: u, listen: ["+many+"]}]")); err == nil {
		t.Error("accepted")
	}
}

func TestBuildUnwrap(t *testing.T) {
	c := mustBuild(t, "-mode unwrap -listen :2222,[::1]:2000-2001 -from 10.0.0.0/8,fd00::1 -to 127.0.0.1:22,[::1]:* -clients 0.0.0.0/0 -mark 1")
	equal(t, c.Listeners, []Listener{{
		Name: "unwrap", Listen: []string{":2222", "[::1]:2000", "[::1]:2001"}, Mode: "unwrap", Mark: 1,
		Clients:      []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
		Destinations: Destinations{Ports: []target.PortRange{{From: 1, To: 65535}}},
		Unwrap: &Unwrap{
			From:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::1/128")},
			To:     []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:22"), netip.MustParseAddrPort("[::1]:0")},
			Source: "keep-port", UDPHeader: "every",
		},
	}})
	c = mustBuild(t, "-allow 10.0.0.0/8 -ports 22", "SWIVEL_MODE=unwrap", "SWIVEL_LISTEN=:22", "SWIVEL_FROM=::1", "SWIVEL_TO=destination")
	equal(t, c.Listeners[0].Destinations, Destinations{Allow: rules(t, "10.0.0.0/8"), Ports: []target.PortRange{{From: 22, To: 22}}})
	equal(t, len(c.Listeners[0].Unwrap.To), 0)
}

func TestBuildRefusesUnwrap(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"", "-listen: missing in mode unwrap (such as :2222)\n" +
			"-from: missing in mode unwrap (such as 10.0.0.0/8, who may send a PROXY header)\n" +
			"-to: missing in mode unwrap (such as 127.0.0.1:22)"},
		{"-listen :1 -from= -to destination", "-from: empty (leave it out, or give it a value)"},
		{"-listen :1 -from ::1 -to 127.0.0.1:1,127.0.0.2:1", "-to: \"127.0.0.2:1\": 127.0.0.1:1 is of the same family (one target for IPv4 and one for IPv6)"},
		{"-listen :1 -from ::1 -to 127.0.0.1:1,127.0.0.2:*", "-to: \"127.0.0.2:*\": 127.0.0.1:1 is of the same family (one target for IPv4 and one for IPv6)"},
		{"-listen :1-3,:2 -from x -to y", "-from: \"x\": not an address or prefix (write it as 192.0.2.0/24 or 2001:db8::/32)\n" +
			"-to: \"y\": not an address and port (write it as 127.0.0.1:22, [::1]:22, 127.0.0.1:*, or destination)\n" +
			"-listen: \":2\" comes twice"},
		{"-listen :1 -from ::1 -to [::1]:1 -allow ::/0", "-allow: -to names the only destination (write -to destination, or leave it out)"},
		{"-listen :1 -from ::1 -to [::1]:1 -pool eth0 -users u", "-pool: means nothing in mode unwrap\n-users: means nothing in mode unwrap"},
	} {
		_, err := build(t, "-mode unwrap "+tt.line)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s\ngot  %v\nwant %s", tt.line, err, tt.want)
		}
	}
	if _, err := build(t, "-from ::1"); err == nil || err.Error() != "-from: means nothing in mode connect" {
		t.Error(err)
	}
}
