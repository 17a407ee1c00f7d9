package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
)

// kind is what a relay is in the comparison.
type kind int

const (
	ours     kind = iota // swivel
	peer                 // what swivel is compared with
	baseline             // shown beside them
)

// relay is a program to measure, in one configuration.
//
// Each writes a line per connection, to /dev/null, as it would in use, unless it
// cannot. Limits of time are an hour.
type relay struct {
	name   string
	kind   kind
	file   string // looked up on PATH if it is a name
	door   door
	env    []string
	works  []string // those that it takes part in; empty for rates and costs of all
	args   func(site) []string
	config func(site) string // the file site.config; nil for none

	datagrams bool                    // relays those, and no connections
	header    func(client int) []byte // in front of each of them; nil for none
}

// cpuWorks are the works whose figures depend on how many cores a relay may use.
var cpuWorks = []string{"bulk", "roundtrip", "connect"}

// splicers take part in the work that is about pipes.
var splicers = []string{"swivel", "haproxy", "haproxy-splice", "go"}

// does reports whether r takes part in the work.
func (r *relay) does(work string) bool {
	if work == "unprivileged" && !slices.Contains(splicers, r.name) {
		return false
	}
	if work == "datagrams" || r.datagrams {
		return work == "datagrams" && r.datagrams
	}
	return len(r.works) == 0 || slices.Contains(r.works, work)
}

func relayNames(relays []*relay) (names []string) {
	for _, r := range relays {
		names = append(names, r.name)
	}
	return names
}

func numCPU() int { return runtime.NumCPU() }

// allRelays returns the relays in the order in which they have their turn. Those
// that end in -free use all cores; all others that have the choice use one.
//
// swivel is measured by what it has for clients: CONNECT, SOCKS5, and two doors that
// know where to go, to be compared with haproxy.
func allRelays(swivel, self string) []*relay {
	one := []string{"GOMAXPROCS=1"}
	return []*relay{
		{name: "swivel", kind: ours, file: swivel, door: connect, env: one, args: swivelArgs},
		{name: "swivel-free", kind: ours, file: swivel, door: connect, works: cpuWorks, args: swivelArgs},
		{name: "swivel-socks5", kind: ours, file: swivel, door: socks5, env: one, works: []string{"connect"}, args: swivelArgs},
		unwrapRelay(swivel),
		tcpRelay(swivel),
		{name: "haproxy", kind: peer, file: "haproxy", door: direct, args: haproxyArgs,
			config: haproxyConfig(1, "", "option splice-auto")},
		{name: "haproxy-splice", kind: peer, file: "haproxy", door: direct, args: haproxyArgs,
			config: haproxyConfig(1, "tune.pipesize 1048576", "option splice-request\n\toption splice-response")},
		{name: "haproxy-free", kind: peer, file: "haproxy", door: direct, works: cpuWorks, args: haproxyArgs,
			config: haproxyConfig(numCPU(), "", "option splice-auto")},
		{name: "nginx", kind: peer, file: "nginx", door: direct, config: nginxConfig,
			args: func(s site) []string { return []string{"-c", s.config, "-p", s.dir} }},
		{name: "squid", kind: peer, file: "squid", door: connect, config: squidConfig,
			args: func(s site) []string { return []string{"-N", "-f", s.config} }},
		{name: "tinyproxy", kind: peer, file: "tinyproxy", door: connect, config: tinyproxyConfig,
			args: func(s site) []string { return []string{"-d", "-c", s.config} }},
		{name: "dante", kind: peer, file: "danted", door: socks5, config: danteConfig,
			args: func(s site) []string { return []string{"-f", s.config, "-p", s.dir + "/pid"} }},
		{name: "sniproxy", kind: peer, file: "sniproxy", door: hello, config: sniproxyConfig,
			args: func(s site) []string { return []string{"-f", "-c", s.config} }},
		{name: "swivel-udp", kind: ours, file: swivel, env: one, datagrams: true, args: swivelDatagramArgs, header: claims},
		{name: "nginx-udp", kind: peer, file: "nginx", datagrams: true, config: nginxDatagramConfig,
			args: func(s site) []string { return []string{"-c", s.config, "-p", s.dir} }},
		{name: "go", kind: baseline, file: self, door: direct, env: one,
			args: func(s site) []string { return []string{"relay", s.listen.String(), s.origin.String()} }},
	}
}

func swivelArgs(s site) []string {
	return []string{"-listen", s.listen.String(), "-pool", "127.0.0.1", "-allow", "127.0.0.0/8", "-ports", "1-65535"}
}

func haproxyArgs(s site) []string { return []string{"-db", "-f", s.config} }

func haproxyConfig(threads int, global, options string) func(site) string {
	return func(s site) string {
		return haproxySettings(s, threads, global, options) + fmt.Sprintf(`listen relay
	bind %s backlog 4096
	server origin %s
`, s.listen, s.origin)
	}
}

// haproxySettings is a configuration but for what listens, and leads where.
func haproxySettings(s site, threads int, global, options string) string {
	return fmt.Sprintf(`global
	nbthread %d
	maxconn %d
	maxpipes 1000
	%s
	log stdout format raw local0
defaults
	mode tcp
	log global
	option tcplog
	%s
	timeout connect 5s
	timeout client 1h
	timeout server 1h
`, threads, s.maximum, global, options)
}

func nginxConfig(s site) string {
	return nginxStreamConfig(s, fmt.Sprintf(`
		listen %s backlog=4096;
		proxy_pass %s;
		proxy_timeout 1h;`, s.listen, s.origin))
}

func nginxStreamConfig(s site, server string) string {
	load := ""
	if out, _ := exec.Command("nginx", "-V").CombinedOutput(); bytes.Contains(out, []byte("--with-stream=dynamic")) {
		load = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
	}
	user := ""
	if s.isRoot {
		user = "user root;"
	}
	return fmt.Sprintf(`%s
%s
daemon off;
worker_processes 1;
worker_rlimit_nofile %d;
pid nginx.pid;
error_log stderr crit;
events { worker_connections %[3]d; }
stream {
	log_format line '$remote_addr $upstream_addr $bytes_sent $bytes_received $session_time';
	access_log /dev/null line;
	server {%s
	}
}
`, load, user, 2*s.maximum+100, server)
}

func squidConfig(s site) string {
	return fmt.Sprintf(`http_port %s
http_access allow all
cache deny all
access_log stdio:/dev/null
cache_log %s/cache.log
pid_filename none
coredump_dir %[2]s
visible_hostname bench
dns_nameservers 127.0.0.1
pinger_enable off
max_filedescriptors %d
`, s.listen, s.dir, 2*s.maximum+100)
}

func tinyproxyConfig(s site) string {
	return fmt.Sprintf(`Listen %s
Port %d
Allow 127.0.0.0/8
MaxClients %d
Timeout 3600
LogFile "/dev/null"
LogLevel Connect
`, s.listen.Addr(), s.listen.Port(), s.maximum)
}

func danteConfig(s site) string {
	user := ""
	if s.isRoot {
		user = "user.privileged: root\nuser.unprivileged: root"
	}
	return fmt.Sprintf(`logoutput: /dev/null
internal: %s port = %d
external: 127.0.0.1
%s
clientmethod: none
socksmethod: none
client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }
socks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 log: connect disconnect }
`, s.listen.Addr(), s.listen.Port(), user)
}

func sniproxyConfig(s site) string {
	user := ""
	if s.isRoot {
		user = "user root"
	}
	return fmt.Sprintf(`%s
pidfile %s/pid
error_log { filename %[2]s/errors }
access_log { filename /dev/null }
listener %[3]s {
	proto tls
	table origin
}
table origin {
	%[4]s %[5]s
}
`, user, s.dir, s.listen, serverName, s.origin)
}

func (r *relay) String() string { return r.name }
