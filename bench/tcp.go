package main

import "fmt"

// tcpRelay is swivel as a plain TCP relay: of a client that speaks neither TLS nor
// HTTP it reads the first byte, and connects it to the one backend for such clients.
// That is all that haproxy and nginx do here, and that byte.
func tcpRelay(swivel string) *relay {
	return &relay{name: "swivel-tcp", kind: ours, file: swivel, door: direct, env: []string{"GOMAXPROCS=1"},
		works: []string{"connect"}, config: tcpConfig,
		args: func(s site) []string { return []string{"-config", s.config} }}
}

func tcpConfig(s site) string {
	return fmt.Sprintf(`limits: {connections: %d, per_client: %[1]d}
listeners:
  - name: tcp
    mode: sni
    listen: "%s"
    routes: [{names: [unused.test], to: close}]
    otherwise: {not-tls: ["%s"]}
`, s.maximum, s.listen, s.origin)
}
