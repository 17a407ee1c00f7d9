package config

import (
	"strings"
	"testing"
)

// l is a listener that is valid, for tests of what stands around it.
const l = "\nlisteners: [{listen: '127.0.0.1:8080'}]"

var refused = []struct{ name, text, want string }{
	// The file as a whole.
	{"empty", "", "f.yaml: empty (the least there can be is a listener)"},
	{"blank", " \n\n", "f.yaml: empty (the least there can be is a listener)"},
	{"a comment", "# soon\n", "f.yaml: empty (the least there can be is a listener)"},
	{"a line of dashes", "---\n", "f.yaml: empty (the least there can be is a listener)"},
	{"null", "~", "f.yaml: empty (the least there can be is a listener)"},
	{"not UTF-8", "log: \xff", "f.yaml: not UTF-8 text"},
	{"a word", "swivel", "f.yaml:1:1: text, want keys and values"},
	{"a list", "- a", "f.yaml:1:1: a list, want keys and values"},
	{"half-written", "log: {level: inf", "f.yaml:2:1: did not find expected ',' or '}'"},
	{"a tab", "\tlog: {}", "f.yaml:1:1: found character that cannot start any token"},
	{"two documents", "log: {}" + l + "\n---\nlog: {}", "f.yaml:3:1: a second document (one file is one document)"},
	{"an alias", "log: &a {level: info}\nlimits: *a", "f.yaml:1:6: anchors, aliases and merge keys are not taken (write the values out)"},
	{"a merge key", "log:\n  <<: {level: info}", "f.yaml:2:3: anchors, aliases and merge keys are not taken (write the values out)"},
	{"a tag", "log: !!map {}", `f.yaml:1:6: "!!map" is not taken (a file is keys, values and lists)`},
	{"a directive", "%YAML 1.2\n---\nlog: {}", `f.yaml:1:1: "%" is not taken (a file is keys, values and lists)`},
	{"a complex key", "? log\n: {}", `f.yaml:1:1: "?" is not taken (a file is keys, values and lists)`},
	{"a tab below", "log:\n\tlevel: info", "f.yaml:2:1: found character that cannot start any token"},
	{"half-written below", "log: {}\n\nlimits: {\n  head: 1s\n", "f.yaml:3:1: did not find expected ',' or '}'"},
	{"a key that is none", "log: {}\nlimits:\n  head: 1s\n idle: 1h", "f.yaml:4:1: did not find expected key"},
	{"a name without quotes", l + "\ndeny:\n- *.example.com", "f.yaml:4:1: did not find expected alphabetic or numeric character (text that begins with * & : , or [ goes in quotes)"},
	{"an address without quotes", "log: {}\nlisteners: [{listen: :8080}]", "f.yaml:2:1: did not find expected node content (text that begins with * & : , or [ goes in quotes)"},
	{"an alias of nothing", "limits: *a", "f.yaml:1:1: unknown anchor 'a' referenced"},
	{"half a second document", l + "\n---\nlog: {", "f.yaml:5:1: did not find expected node content (text that begins with * & : , or [ goes in quotes)"},
	{"a directive behind comments", "\n # one\n%TAG !e! tag:e,2000:\n---\nlog: {}", `f.yaml:3:1: "%" is not taken (a file is keys, values and lists)`},
	{"a complex key below", "log:\n  level: info\n  ? format\n  : json", `f.yaml:3:3: "?" is not taken (a file is keys, values and lists)`},
	{"a list for a key", "log: {[level]: info}", "f.yaml:1:7: a key that is not text is not taken (a file is keys, values and lists)"},
	{"control characters", "log: \x01", "f.yaml:1:1: control characters are not allowed"},
	{"deep", strings.Repeat("[", 1000), "f.yaml:2:1: did not find expected node content (text that begins with * & : , or [ goes in quotes)"},
	{"deep, and closed", strings.Repeat("[", 1000) + strings.Repeat("]", 1000), "f.yaml:1:33: nested too deeply"},
	{"deep beyond reason", strings.Repeat("[", 100000) + strings.Repeat("]", 100000), "f.yaml:1:1: exceeded max depth of 10000"},
	{"deep beyond reason, without brackets", strings.Repeat("- ", 100000), "f.yaml:1:1: exceeded max depth of 10000"},
	{"deep, without brackets", strings.Repeat("- ", 1000), "f.yaml:1:65: nested too deeply"},

	// Keys.
	{"unknown key", "logs: {}" + l, "f.yaml:1:1: logs: unknown key (did you mean log?)"},
	{"unknown key like no other", "extra: {}" + l, "f.yaml:1:1: extra: unknown key (there are log, admin, limits, resolver, geo, pools, listeners)"},
	{"unknown key below", "listeners:\n- listen: ':80'\n  users: u\n  destinations:\n    alow: []",
		"f.yaml:5:5: listeners[0].destinations.alow: unknown key (did you mean allow? there are allow, deny, ports)"},
	{"a key that does not print", "\"a\\nb\": 1" + l, `f.yaml:1:1: "a\nb": unknown key (there are log, admin, limits, resolver, geo, pools, listeners)`},
	{"keys that are numbers", "1: 2" + l, "f.yaml:1:1: 1: unknown key (there are log, admin, limits, resolver, geo, pools, listeners)"},
	{"letters of the wrong case", "Log: {}" + l, "f.yaml:1:1: Log: unknown key (did you mean log?)"},
	{"same key twice", "log: {level: info, level: warn}\nlog: {}" + l, "f.yaml:1:20: log.level: the same key again\nf.yaml:2:1: log: the same key again"},
	{"same pool twice", "pools: {a: {}, a: {}}" + l, "f.yaml:1:16: pools.a: the same key again"},
	{"no listeners", "log: {}", "f.yaml:1:1: listeners: missing (such as  listeners: [{name: egress, listen: 127.0.0.1:8080, mode: connect}])"},

	// Kinds of values.
	{"nothing", "log:" + l, "f.yaml:1:1: log: empty (leave the key out, or give it keys and values)"},
	{"nothing for text", "listeners: [{listen: ':80', users: }]", "f.yaml:1:29: listeners[0].users: empty (leave the key out, or give it text)"},
	{"empty text", "listeners: [{listen: ':80', users: ''}]", "f.yaml:1:36: listeners[0].users: empty (leave the key out, or give it text)"},
	{"a number for text", "listeners: [{listen: ':80', users: 0x10}]", `f.yaml:1:36: listeners[0].users: a number, want text (write "0x10")`},
	{"true for text", "log: {level: true}" + l, `f.yaml:1:14: log.level: "true", want text or a number`},
	{"text for a number", "limits: {connections: '10'}" + l, "f.yaml:1:23: limits.connections: text, want a whole number"},
	{"a fraction", "limits: {connections: 1.5}" + l, `f.yaml:1:23: limits.connections: "1.5", want a whole number`},
	{"a list for text", "log: {level: [info]}" + l, "f.yaml:1:14: log.level: a list, want text or a number"},
	{"text for a list", "resolver: {servers: 192.0.2.53}" + l, "f.yaml:1:21: resolver.servers: text, want a list"},
	{"a block", "log:\n  level: |\n    info" + l, "f.yaml:2:10: log.level: a block of text, want text or a number"},

	{"words of YAML", "pools: {a: {sources: [{interface: e, labels: {a: true, b: .inf, c: -.inf, d: .nan, e: ~, f: null}}]}}" + l,
		"f.yaml:1:50: pools.a.sources[0].labels.a: \"true\", want text\n" +
			"f.yaml:1:59: pools.a.sources[0].labels.b: \".inf\", want text\n" +
			"f.yaml:1:68: pools.a.sources[0].labels.c: \"-.inf\", want text\n" +
			"f.yaml:1:78: pools.a.sources[0].labels.d: \".nan\", want text\n" +
			"f.yaml:1:84: pools.a.sources[0].labels.e: empty (leave the key out, or give it text)\n" +
			"f.yaml:1:90: pools.a.sources[0].labels.f: empty (leave the key out, or give it text)"},
	{"numbers for text", "pools: {a: {sources: [{interface: e, labels: {a: 0o10, b: 1_000, c: 0b11, d: 1e3, e: 08, f: -.5}}]}}" + l,
		"f.yaml:1:50: pools.a.sources[0].labels.a: a number, want text (write \"0o10\")\n" +
			"f.yaml:1:59: pools.a.sources[0].labels.b: a number, want text (write \"1_000\")\n" +
			"f.yaml:1:69: pools.a.sources[0].labels.c: a number, want text (write \"0b11\")\n" +
			"f.yaml:1:78: pools.a.sources[0].labels.d: a number, want text (write \"1e3\")\n" +
			"f.yaml:1:86: pools.a.sources[0].labels.e: a number, want text (write \"08\")\n" +
			"f.yaml:1:93: pools.a.sources[0].labels.f: a number, want text (write \"-.5\")"},
	{"no whole numbers", "limits: {connections: .inf, per_client: 2001-01-01}" + l,
		"f.yaml:1:23: limits.connections: \".inf\", want a whole number\nf.yaml:1:41: limits.per_client: text, want a whole number"},
	{"numbers of another base", "limits: {connections: 0o10, per_client: 0b1}" + l,
		"f.yaml:1:23: limits.connections: \"0o10\": want a whole number, 1 to 2147483647\nf.yaml:1:41: limits.per_client: \"0b1\": want a whole number, 1 to 2147483647"},
	{"off, but empty", "geo: {database: }\npools:\n  a:\n    spacing: |-\n      0s" + l,
		"f.yaml:1:7: geo.database: empty (leave the key out, or give it text)\nf.yaml:4:14: pools.a.spacing: a block of text, want text or a number"},

	// Log, admin, limits, resolver.
	{"nowhere to listen", "admin: {}" + l, "f.yaml:1:8: admin.listen: missing (such as 127.0.0.1:9080)"},
	{"admin for everyone", "admin: {listen: ':9080'}" + l,
		"f.yaml:1:8: admin: whoever reaches :9080 could see and change what swivel does (add clients, or listen on 127.0.0.1)"},
	{"admin on several ports", "admin: {listen: '127.0.0.1:9080-9081'}" + l, "f.yaml:1:17: admin.listen: \"127.0.0.1:9080-9081\": want one TCP port"},
	{"admin for nobody", "admin: {listen: ':9080', clients: []}" + l, "f.yaml:1:35: admin.clients: an empty list (leave the key out, or name some)"},
	{"admin in the way", "admin: {listen: '127.0.0.1:8080'}" + l, "f.yaml:2:22: listeners[0].listen: \"127.0.0.1:8080\": admin.listen is that already"},
	{"log", "log: {level: trace, format: text}" + l,
		"f.yaml:1:14: log.level: \"trace\": use debug, info, warn or error\nf.yaml:1:29: log.format: \"text\": use json or console"},
	{"no unit", "limits: {dial: 10, idle: '1.5'}" + l,
		"f.yaml:1:16: limits.dial: \"10\": no unit (write 10s)\nf.yaml:1:26: limits.idle: \"1.5\": no unit (write 1.5s)"},
	{"no duration", "limits: {dial: soon, idle: 1d}" + l,
		"f.yaml:1:16: limits.dial: \"soon\": not a duration (write it as 10s, 5m or 1h30m)\nf.yaml:1:28: limits.idle: \"1d\": not a duration (write it as 10s, 5m or 1h30m)"},
	{"out of range", "limits: {head: 0s, dial: 999us, idle: -1s, user_timeout: 25h, lifetime: 87601h}" + l,
		"f.yaml:1:16: limits.head: \"0s\": want at least 1ms\n" +
			"f.yaml:1:26: limits.dial: \"999us\": want at least 1ms\n" +
			"f.yaml:1:39: limits.idle: \"-1s\": negative\n" +
			"f.yaml:1:58: limits.user_timeout: \"25h\": want at most 24h\n" +
			"f.yaml:1:73: limits.lifetime: \"87601h\": want at most 87600h"},
	{"numbers", "limits: {connections: 0, per_client: -1}" + l,
		"f.yaml:1:23: limits.connections: \"0\": want a whole number, 1 to 2147483647\nf.yaml:1:38: limits.per_client: \"-1\": want a whole number, 1 to 2147483647"},
	{"a number in octal", "limits: {connections: 010, per_client: 1_000}" + l,
		"f.yaml:1:23: limits.connections: \"010\": want a whole number, 1 to 2147483647\nf.yaml:1:40: limits.per_client: \"1_000\": want a whole number, 1 to 2147483647"},
	{"servers", "resolver: {servers: [dns.example, '192.0.2.53:0'], timeout: 0s, prefer: v4}" + l,
		"f.yaml:1:22: resolver.servers[0]: \"dns.example\": not an address (write it as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:5353)\n" +
			"f.yaml:1:35: resolver.servers[1]: \"192.0.2.53:0\": not an address (write it as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:5353)\n" +
			"f.yaml:1:61: resolver.timeout: \"0s\": want at least 1ms\n" +
			"f.yaml:1:73: resolver.prefer: \"v4\": use any, ipv4 or ipv6"},

	// Pools.
	{"names of pools", "pools: {\"a\\nb\": {}, '': {}}" + l,
		"f.yaml:1:17: pools.\"a\\nb\": \"a\\nb\": characters that do not print\nf.yaml:1:25: pools.\"\": empty (leave the key out, or give it text)"},
	{"no sources", "pools: {main: {sources: []}}" + l, "f.yaml:1:25: pools.main.sources: an empty list (leave the key out, or name some)"},
	{"a source that is nothing", "pools: {main: {sources: [{weight: 2}]}}" + l, "f.yaml:1:26: pools.main.sources[0]: what is it? (write one of interface, mac, address, prefix, upstream and upstream_srv)"},
	{"a source that is two", "pools: {main: {sources: [{interface: eth0, address: 192.0.2.1}]}}" + l,
		"f.yaml:1:26: pools.main.sources[0]: interface and address exclude each other (write a source for each)"},
	{"weights", "pools: {main: {sources: [{interface: a, weight: 0}, {interface: b, weight: 1001}]}}" + l,
		"f.yaml:1:49: pools.main.sources[0].weight: \"0\": want a whole number, 1 to 1000\nf.yaml:1:76: pools.main.sources[1].weight: \"1001\": want a whole number, 1 to 1000"},
	{"interfaces", "pools: {main: {sources: [{interface: 192.0.2.1}, {interface: abcdefghijklmnop}]}}" + l,
		"f.yaml:1:38: pools.main.sources[0].interface: \"192.0.2.1\": an address (write address: 192.0.2.1)\nf.yaml:1:62: pools.main.sources[1].interface: \"abcdefghijklmnop\": not the name of an interface"},
	{"MACs", "pools: {main: {sources: [{mac: '5e:88:52:b0:f7'}, {mac: '02:00:5e:10:00:00:00:01'}]}}" + l,
		"f.yaml:1:32: pools.main.sources[0].mac: \"5e:88:52:b0:f7\": not a MAC address (write it as 5e:88:52:b0:f7:5b)\n" +
			"f.yaml:1:57: pools.main.sources[1].mac: \"02:00:5e:10:00:00:00:01\": not a MAC address (write it as 5e:88:52:b0:f7:5b)"},
	{"addresses", "pools: {main: {sources: [{address: a}, {address: 192.0.2.0/24}, {address: 0.0.0.0}, {address: 'fe80::1%eth0'}]}}" + l,
		"f.yaml:1:36: pools.main.sources[0].address: \"a\": not an address (write it as 192.0.2.1 or 2001:db8::1)\n" +
			"f.yaml:1:50: pools.main.sources[1].address: \"192.0.2.0/24\": not an address (write prefix: 192.0.2.0/24)\n" +
			"f.yaml:1:75: pools.main.sources[2].address: \"0.0.0.0\": nothing can leave by this address\n" +
			"f.yaml:1:95: pools.main.sources[3].address: \"fe80::1%eth0\": nothing can leave by this address"},
	{"labels", "pools: {main: {sources: [{interface: a, labels: {n: 1, m: , n: x}}]}}" + l,
		"f.yaml:1:53: pools.main.sources[0].labels.n: a number, want text (write \"1\")\n" +
			"f.yaml:1:56: pools.main.sources[0].labels.m: empty (leave the key out, or give it text)\n" +
			"f.yaml:1:61: pools.main.sources[0].labels.n: the same key again"},
	{"a pool", "pools: {main: {strategy: rr, refresh: 0s}}" + l,
		"f.yaml:1:26: pools.main.strategy: \"rr\": use round-robin, random, least-used, per-target or hash\nf.yaml:1:39: pools.main.refresh: \"0s\": want at least 1s"},

	// Listeners.
	{"an empty list of listeners", "listeners: []", "f.yaml:1:12: listeners: an empty list (leave the key out, or name some)"},
	{"no address", "listeners: [{name: a}]", "f.yaml:1:13: listeners[0].listen: missing (such as 127.0.0.1:8080)"},
	{"no addresses", "listeners: [{listen: []}]", "f.yaml:1:22: listeners[0].listen: an empty list (leave the key out, or name some)"},
	{"addresses to listen on", "listeners:\n- clients: [10.0.0.0/8]\n  listen:\n  - 8080\n  - 127.0.0.1\n  - ::1\n  - proxy.example:80\n  - '*:80'\n  - ':080'\n  - :65536\n  - ':http'\n  - x",
		"f.yaml:4:5: listeners[0].listen[0]: \"8080\": no address (write :8080 for every address, 127.0.0.1:8080 for this host alone)\n" +
			"f.yaml:5:5: listeners[0].listen[1]: \"127.0.0.1\": no port (write 127.0.0.1:8080)\n" +
			"f.yaml:6:5: listeners[0].listen[2]: \"::1\": no port (write [::1]:8080)\n" +
			"f.yaml:7:5: listeners[0].listen[3]: \"proxy.example:80\": not an address (write :80 for every address, 127.0.0.1:80 for this host alone)\n" +
			"f.yaml:8:5: listeners[0].listen[4]: \"*:80\": not an address (write :80 for every address, 127.0.0.1:80 for this host alone)\n" +
			"f.yaml:9:5: listeners[0].listen[5]: \":080\": a port is 0 to 65535\n" +
			"f.yaml:10:5: listeners[0].listen[6]: \":65536\": a port is 0 to 65535\n" +
			"f.yaml:11:5: listeners[0].listen[7]: \":http\": a port is 0 to 65535\n" +
			"f.yaml:12:5: listeners[0].listen[8]: \"x\": not an address and port (write it as 127.0.0.1:8080, [::1]:8080 or :8080)"},
	{"a mode", "listeners: [{listen: ':80', mode: conect}]", `f.yaml:1:35: listeners[0].mode: "conect": use connect, sni or unwrap`},
	{"an open proxy", "listeners: [{listen: ['127.0.0.1:80', ':80']}]",
		"f.yaml:1:13: listeners[0]: an open proxy: whoever reaches :80 could use it (add users or clients, or listen on 127.0.0.1)"},
	{"clients that are nobody", "listeners: [{listen: ':80', clients: []}]", "f.yaml:1:38: listeners[0].clients: an empty list (leave the key out, or name some)"},
	{"clients", "listeners: [{listen: ':80', clients: [10.0.0.1/8, ten, 1.2, '::ffff:10.0.0.0/104', 'fe80::1%eth0']}]",
		"f.yaml:1:39: listeners[0].clients[0]: \"10.0.0.1/8\": bits are set behind the prefix (did you mean 10.0.0.0/8?)\n" +
			"f.yaml:1:51: listeners[0].clients[1]: \"ten\": not an address or prefix (write it as 192.0.2.0/24 or 2001:db8::/32)\n" +
			"f.yaml:1:56: listeners[0].clients[2]: \"1.2\": not an address or prefix (write it as 192.0.2.0/24 or 2001:db8::/32)\n" +
			"f.yaml:1:61: listeners[0].clients[3]: \"::ffff:10.0.0.0/104\": matches nothing (write it as IPv4)\n" +
			"f.yaml:1:84: listeners[0].clients[4]: \"fe80::1%eth0\": not an address or prefix (write it as 192.0.2.0/24 or 2001:db8::/32)"},
	{"half a certificate", "listeners: [{listen: '127.0.0.1:80', tls: {certificate: a}}]", "f.yaml:1:43: listeners[0].tls.key: missing (path of a PEM file)"},
	{"marks", "listeners: [{listen: '127.0.0.1:80', mark: 4294967296}]", "f.yaml:1:44: listeners[0].mark: \"4294967296\": want a whole number, 0 to 4294967295"},
	{"no ports", "listeners: [{listen: '127.0.0.1:80', destinations: {ports: []}}]",
		"f.yaml:1:60: listeners[0].destinations.ports: an empty list (leave the key out, or name some)"},
	{"destinations", "listeners: [{listen: '127.0.0.1:80', destinations: {allow: [10.0.0.0/33], ports: [0, 443]}}]",
		"f.yaml:1:61: listeners[0].destinations.allow[0]: rule \"10.0.0.0/33\": not a prefix\n" +
			"f.yaml:1:83: listeners[0].destinations.ports[0]: ports \"0\": want 443, or 8000-8999, within 1 to 65535"},

	{"labels of a listener", "listeners: [{listen: '127.0.0.1:80', labels: {country: [], city: ~, line: [a, 1]}}]",
		"f.yaml:1:56: listeners[0].labels.country: an empty list (leave the key out, or name some)\n" +
			"f.yaml:1:60: listeners[0].labels.city: empty (leave the key out, or give it text)\n" +
			"f.yaml:1:79: listeners[0].labels.line[1]: a number, want text (write \"1\")"},
	{"no labels of a listener", "listeners: [{listen: '127.0.0.1:80', labels: {}}]", "f.yaml:1:46: listeners[0].labels: no label (leave the key out, or name one)"},
	{"selections", "listeners: [{listen: '127.0.0.1:80', select: [{labels: {country: de}}, {names: [a.example]}, {names: [a..b], users: [], labels: {country: de}}]}]",
		"f.yaml:1:47: listeners[0].select[0]: for whom, or where to? (write users or names; what is for all of the listener is its labels)\n" +
			"f.yaml:1:72: listeners[0].select[1].labels: missing (such as {country: [de, at]})\n" +
			"f.yaml:1:103: listeners[0].select[2].names[0]: rule \"a..b\": not a name\n" +
			"f.yaml:1:117: listeners[0].select[2].users: an empty list (leave the key out, or name some)"},
	{"sessions", "listeners: [{listen: '127.0.0.1:80', sessions: {time: 0s, idle: 5, on_gone: keep}}]",
		"f.yaml:1:55: listeners[0].sessions.time: \"0s\": want at least 1s\n" +
			"f.yaml:1:65: listeners[0].sessions.idle: \"5\": no unit (write 5s)\n" +
			"f.yaml:1:77: listeners[0].sessions.on_gone: \"keep\": use replace or refuse"},
	{"rights", "listeners: [{listen: '127.0.0.1:80', users_may: [{users: [a]}, {ask: [city]}, {ask: [], pools: [main]}]}]",
		"f.yaml:1:50: listeners[0].users_may[0].ask: missing (such as [session, country], or [])\n" +
			"f.yaml:1:71: listeners[0].users_may[1].ask[0]: \"city\": use session, country, label, pool or source\n" +
			"f.yaml:1:96: listeners[0].users_may[2].pools: pool is not among what they may ask for (add it to ask)\n" +
			"f.yaml:1:97: listeners[0].users_may[2].pools[0]: \"main\": no such pool (the file has no pools; leave the key out to leave by this host's addresses)"},
	{"selections of another mode", "listeners: [{listen: '127.0.0.1:80', mode: unwrap, from: 10.0.0.0/8, to: '127.0.0.1:22', labels: {country: de}}]",
		"f.yaml:1:90: listeners[0].labels: a key of mode connect (this listener's mode is unwrap)"},

	// What must agree.
	{"an unknown pool", "pools: {main: {}, other: {}}\nlisteners: [{listen: '127.0.0.1:80', pool: mian}, {listen: '127.0.0.1:81', pool: third}]",
		"f.yaml:2:44: listeners[0].pool: \"mian\": no such pool (did you mean main?)\n" +
			"f.yaml:2:82: listeners[1].pool: \"third\": no such pool (there are main, other)"},
	{"a pool of none", "listeners: [{listen: '127.0.0.1:80', pool: main}]",
		"f.yaml:1:44: listeners[0].pool: \"main\": no such pool (the file has no pools; leave the key out to leave by this host's addresses)"},
	{"one pool of several", "pools: {main: {}, other: {}}" + l, "f.yaml:2:13: listeners[0]: which pool? (add pool: and one of main, other)"},
	{"twins", "listeners: [{name: a, listen: ['127.0.0.1:80', 'localhost:80']}, {name: a, listen: '127.0.0.1:80'}]",
		"f.yaml:1:48: listeners[0].listen[1]: \"127.0.0.1:80\": listeners[0].listen[0] is that already\n" +
			"f.yaml:1:73: listeners[1].name: \"a\": listeners[0].name is that already\n" +
			"f.yaml:1:84: listeners[1].listen: \"127.0.0.1:80\": listeners[0].listen[0] is that already"},

	// What is to come.
	{"turns of a pool", "pools: {main: {strategy: sticky, hash_by: cookie, spacing: 1, wait: 1s}}" + l,
		"f.yaml:1:26: pools.main.strategy: \"sticky\": use round-robin, random, least-used, per-target or hash\n" +
			"f.yaml:1:43: pools.main.hash_by: \"cookie\": use client, user, session or target\n" +
			"f.yaml:1:60: pools.main.spacing: \"1\": no unit (write 1s)"},
	{"waiting for nothing", "pools: {main: {wait: 1s}}" + l, "f.yaml:1:22: pools.main.wait: waits for nothing (add spacing, such as  spacing: 1s)"},
	{"prefixes", "pools: {main: {sources: [{prefix: '2001:db8::1/48'}, {prefix: a}, {prefix: '::ffff:10.0.0.0/104'}, {prefix: 224.0.0.0/8}]}}" + l,
		"f.yaml:1:35: pools.main.sources[0].prefix: \"2001:db8::1/48\": bits are set behind the prefix (did you mean 2001:db8::/48?)\n" +
			"f.yaml:1:63: pools.main.sources[1].prefix: \"a\": not a prefix (write it as 2001:db8:1::/48 or 192.0.2.0/24)\n" +
			"f.yaml:1:76: pools.main.sources[2].prefix: \"::ffff:10.0.0.0/104\": write it as IPv4\n" +
			"f.yaml:1:109: pools.main.sources[3].prefix: \"224.0.0.0/8\": nothing can leave by these addresses"},
	{"spreads", "pools: {main: {sources: [{prefix: '2001:db8::/48', spread: 40}, {prefix: 10.0.0.0/24, spread: 31}, {prefix: 10.0.0.0/24, spread: 33}, {address: 10.0.0.1, spread: 32}]}}" + l,
		"f.yaml:1:60: pools.main.sources[0].spread: 40: want 48 to 128\n" +
			"f.yaml:1:95: pools.main.sources[1].spread: 31: parts of two addresses (write 32)\n" +
			"f.yaml:1:130: pools.main.sources[2].spread: 33: want 24 to 32\n" +
			"f.yaml:1:163: pools.main.sources[3].spread: of what? (a key of prefix)"},
	{"limits of tunnels", "pools: {a: {max_tunnel_age: 10, max_tunnel_bytes: 1GB}}" + l,
		"f.yaml:1:29: pools.a.max_tunnel_age: \"10\": no unit (write 10s)\n" +
			"f.yaml:1:51: pools.a.max_tunnel_bytes: \"1GB\": not a size (write it as 1000000, 500MiB or 2GiB)"},
	{"a limit of tunnels out of range", "pools: {b: {max_tunnel_bytes: 9999999TiB}}" + l, "f.yaml:1:31: pools.b.max_tunnel_bytes: \"9999999TiB\": not a size (write it as 1000000, 500MiB or 2GiB)"},
	{"a cooldown", "pools: {main: {cooldown: {after: -1, for: 1m, most: 30s, keep: 50, when_all_cool: stop}}}" + l,
		"f.yaml:1:34: pools.main.cooldown.after: \"-1\": want a whole number, 0 to 1000\n" +
			"f.yaml:1:53: pools.main.cooldown.most: less than for, 1m0s\n" +
			"f.yaml:1:64: pools.main.cooldown.keep: \"50\": want a share, 0% to 100%\n" +
			"f.yaml:1:83: pools.main.cooldown.when_all_cool: \"stop\": use use or refuse"},
	{"names to verify", "listeners: [{listen: '127.0.0.1:443', verify_name: warn}]", "f.yaml:1:52: listeners[0].verify_name: \"warn\": use off, log or deny"},
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse("f.yaml", []byte(tt.text))
			if err == nil || c != nil {
				t.Fatalf("accepted: %+v", c)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("%s\ngot  %s\nwant %s", tt.text, got, tt.want)
			}
		})
	}
}

// An error is read by people: it must not repeat a megabyte, nor a control character.
func TestParseErrorsAreShort(t *testing.T) {
	long := strings.Repeat("é", 50000)
	for _, text := range []string{
		long, long + ": 1", "log: {level: " + long + "}", "log: {level: [" + long + "]}", "limits: {idle: " + long + "}",
		"limits: {idle: 1" + strings.Repeat("0", 100000) + "}", "pools: {" + long + ": {x: 1}}", "log: {" + long + ": 1}",
		"listeners: [{listen: '" + long + "', pool: " + long + ", clients: [" + long + "]}]",
		"resolver: {servers: [" + long + "]}", "pools: {a: {sources: [{interface: " + long + "}, {mac: " + long + "}, {address: " + long + "}]}}",
		"pools: {a: {sources: [{address: \"a\\r\\x1b\"}]}}", "log: {level: \"\\x1b\"}", "listeners: [{listen: ':80', users: \"a\\nb\"}]",
	} {
		_, err := Parse("f.yaml", []byte(text))
		if err == nil {
			t.Fatalf("accepted %.40s", text)
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if len(line) > 600 || strings.ContainsAny(line, "\r\x1b") || !strings.HasPrefix(line, "f.yaml:") {
				t.Errorf("%.40s: %.700q", text, line)
			}
		}
	}
}

func TestParseErrorsAreNotTooMany(t *testing.T) {
	_, err := Parse("f.yaml", []byte("log: {"+strings.Repeat("x: 1, ", 1000)+"}"+l))
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	if got, want := len(lines), maxErrors+1; got != want {
		t.Errorf("%d lines, want %d", got, want)
	}
	if got, want := lines[len(lines)-1], "f.yaml: and 900 mistakes more"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A file that is being written while it is read ends anywhere.
func TestParseHalfWritten(t *testing.T) {
	for i := range sample {
		Parse("f.yaml", []byte(sample[:i])) // does not panic
	}
	if _, err := Parse("f.yaml", []byte(sample[:strings.Index(sample, "listeners:")])); err == nil {
		t.Error("accepted without its listeners")
	}
}
