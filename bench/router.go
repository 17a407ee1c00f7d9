package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// routers are what is measured with -sni: relays that route by server name. Each has
// one name to go by, and for anything else no way.
func routers(swivel string) []*relay {
	one := []string{"GOMAXPROCS=1"}
	return []*relay{
		{name: "swivel", kind: ours, file: swivel, door: largeHello, env: one, config: swivelRouterConfig,
			args: func(s site) []string { return []string{"-config", s.config} }},
		{name: "swivel-free", kind: ours, file: swivel, door: largeHello, works: cpuWorks, config: swivelRouterConfig,
			args: func(s site) []string { return []string{"-config", s.config} }},
		{name: "haproxy", kind: peer, file: "haproxy", door: largeHello, args: haproxyArgs,
			config: haproxyRouterConfig("", "option splice-auto")},
		{name: "haproxy-splice", kind: peer, file: "haproxy", door: largeHello, args: haproxyArgs,
			config: haproxyRouterConfig("tune.pipesize 1048576", "option splice-request\n\toption splice-response")},
		{name: "nginx", kind: peer, file: "nginx", door: largeHello, config: nginxRouterConfig,
			args: func(s site) []string { return []string{"-c", s.config, "-p", s.dir} }},
		{name: "sniproxy", kind: peer, file: "sniproxy", door: largeHello, config: sniproxyConfig,
			args: func(s site) []string { return []string{"-f", "-c", s.config} }},
	}
}

// routerWorks are what routers are measured at.
var routerWorks = []string{"bulk", "roundtrip", "connect", "idle"}

// helloSize is that of a browser of today, with X25519MLKEM768.
const helloSize = 1800

// largeHello is hello, with one of helloSize.
func largeHello(c blocking, _ netip.AddrPort) error { return c.write(paddedHello()) }

var paddedHello = sync.OnceValue(func() []byte {
	protocols := []string{"h2", "http/1.1"}
	b := helloWith(protocols...)
	for len(b) < helloSize {
		// A protocol that nobody speaks takes as many bytes as it has, and one.
		protocols = append(protocols, strings.Repeat("x", min(helloSize-len(b), 255)))
		b = helloWith(protocols...)
	}
	return b
})

func helloWith(protocols ...string) []byte {
	client, server := net.Pipe()
	go func() { // ends with the handshake, which the close below ends
		tls.Client(client, &tls.Config{ServerName: serverName, NextProtos: protocols}).Handshake()
		client.Close()
	}()
	defer server.Close()
	buf := make([]byte, 4096)
	n, _ := server.Read(buf) // crypto/tls writes a record at once
	return buf[:n]
}

func swivelRouterConfig(s site) string {
	return fmt.Sprintf(`limits: {connections: %d, per_client: %[1]d}
listeners:
  - {name: router, mode: sni, listen: "%s", routes: [{names: [%s], to: ["%s"]}]}
`, s.maximum, s.listen, serverName, s.origin)
}

func haproxyRouterConfig(global, options string) func(site) string {
	return func(s site) string {
		return haproxySettings(s, 1, global, options) + fmt.Sprintf(`frontend router
	bind %s backlog 4096
	tcp-request inspect-delay 5s
	tcp-request content accept if { req.ssl_hello_type 1 }
	tcp-request content reject
	use_backend origin if { req.ssl_sni -i %s }
backend origin
	server origin %s
`, s.listen, serverName, s.origin)
	}
}

func nginxRouterConfig(s site) string {
	proxy := nginxConfig(s)
	proxy = strings.Replace(proxy, "proxy_pass "+s.origin.String()+";", "ssl_preread on;\n\t\tproxy_pass $origin;", 1)
	return strings.Replace(proxy, "stream {", fmt.Sprintf("stream {\n\tmap $ssl_preread_server_name $origin { %s %s; }", serverName, s.origin), 1)
}
