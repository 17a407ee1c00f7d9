package config

import (
	"strings"
	"testing"
)

func TestUpstreams(t *testing.T) {
	c, err := Parse("/etc/swivel/f.yaml", []byte(`
pools:
  main:
    sources:
    - upstream: http://user:p%40ss%3A%2f@Node2.Example.:8080/
      send_proxy: v2
      resolve: remote
      forward_session: on
      labels: {country: DE}
      weight: 3
    - upstream: https://[2001:db8::1]:443
      ca: ca.pem
      send_proxy: off
      resolve: local
      forward_session: off
    - {ca: /ca.pem, upstream: "https://user@192.0.2.1:443"}
    - upstream: socks5://node3:1080
    - upstream_srv: _swivel._tcp.Example
    - upstream_srv: https://user:pass@_swivel._tcp.example
`+l))
	if err != nil {
		t.Fatal(err)
	}
	sources := c.Pools[0].Sources
	for i, want := range []Upstream{
		{Scheme: "http", Host: "node2.example", Port: 8080, User: "user", Password: "p@ss:/", SendProxy: "v2", Names: true, Session: true},
		{Scheme: "https", Host: "2001:db8::1", Port: 443, CA: "/etc/swivel/ca.pem"},
		{Scheme: "https", Host: "192.0.2.1", Port: 443, User: "user", CA: "/ca.pem"},
		{Scheme: "socks5", Host: "node3", Port: 1080},
		{Scheme: "http", SRV: "_swivel._tcp.example"},
		{Scheme: "https", SRV: "_swivel._tcp.example", User: "user", Password: "pass"},
	} {
		equal(t, *sources[i].Upstream, want)
	}
	equal(t, sources[0].Weight, 3)
	equal(t, sources[0].Labels["country"], "DE")

	c = mustBuild(t, "-pool eth0,http://user:pass@node2.example:8080")
	equal(t, *c.Pools[0].Sources[1].Upstream, Upstream{Scheme: "http", Host: "node2.example", Port: 8080, User: "user", Password: "pass"})
}

// Whatever is wrong, a password is not repeated.
func TestUpstreamsRefused(t *testing.T) {
	const example = "http://user:password@node2.example:8080"
	for _, tt := range []struct{ source, want string }{
		{"upstream: 'http://u:S3cret@node2.example'", "upstream: no port (write it as " + example + ")"},
		{"upstream: 'http://u:S3cret@node2.example:port'", "upstream: not a URL (write it as " + example + "; what is special in a password as %40)"},
		{"upstream: 'http://u:S3cret#@node2.example:80'", "upstream: not a URL (write it as " + example + "; what is special in a password as %40)"},
		{"upstream: 'http://u:S3cret/@node2.example:80'", "upstream: not a URL (write it as " + example + "; what is special in a password as %40)"},
		{"upstream: 'http://u:S3cret@node2.example:0'", "upstream: not a host and port (write it as " + example + ")"},
		{"upstream: 'http://u:S3cret@1.2.3:80'", "upstream: not a host and port (write it as " + example + ")"},
		{"upstream: 'http://u:S3cret@node2.example:80/path'", "upstream: more than a host and port (write it as " + example + ")"},
		{"upstream: 'http://u:S3cret@node2.example:80?q'", "upstream: more than a host and port (write it as " + example + ")"},
		{"upstream: 'ftp://u:S3cret@node2.example:80'", "upstream: not a kind of proxy (use http, https or socks5)"},
		{"upstream: 'u:S3cret@node2.example:80'", "upstream: not a URL (write it as " + example + "; what is special in a password as %40)"},
		{"upstream: 'http://a%3Ab:S3cret@node2.example:80'", "upstream: a colon in the user name (no proxy could tell it from the password)"},
		{"upstream: 'http://:S3cret@node2.example:80'", "upstream: a password and no user"},
		{"upstream: 'http://u:S3cret" + strings.Repeat("x", 250) + "@node2.example:80'", "upstream: a user name or password that is too long"},
		{"upstream: ['http://u:S3cret@node2.example:80']", "upstream: a list, want text or a number"},
		{"upstream: 'http://node2.example:80', ca: x", "ca: nobody shows a certificate (write https://, or leave the key out)"},
		{"upstream: 'http://node2.example:80', forward_session: on", "forward_session: the user name tells of the session, and there is none (write it as " + example + ")"},
		{"upstream: 'http://node2.example:80', resolve: there", `resolve: "there": use local or remote`},
		{"upstream_srv: 'http://u:S3cret@_swivel._tcp.example:80'", "upstream_srv: a port (the records have the ports)"},
		{"upstream_srv: 'http://u:S3cret@node2.example'", "upstream_srv: not the name of SRV records (write it as _swivel._tcp.example, or http://user:password@_swivel._tcp.example)"},
		{"upstream_srv: _swivel._tcp.example, weight: 2", "weight: the SRV records have weights (leave the key out)"},
		{"address: 192.0.2.1, ca: x", "ca: a key of upstream and upstream_srv"},
		{"mac: 'http://u:S3cret@node2.example:80'", `mac: "http://…": not a MAC address (write it as 5e:88:52:b0:f7:5b)`},
		{"interface: 'http://u:S3cret@node2.example:80'", `interface: "http://…": not the name of an interface`},
	} {
		_, err := Parse("f.yaml", []byte("pools: {main: {sources: [{"+tt.source+"}]}}"+l))
		if err == nil {
			t.Errorf("%s: accepted", tt.source)
			continue
		}
		_, got, _ := strings.Cut(err.Error(), "sources[0].")
		if got != tt.want || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.source, err, tt.want)
		}
	}
}
