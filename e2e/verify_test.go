//go:build linux

package e2e

import "testing"

// A client that asks for one host and then, inside, for another.
func TestVerifyName(t *testing.T) {
	o := newTLSOrigin(t, nil)
	for _, verify := range []string{"off", "log", "deny"} {
		s := start(t, "-config", config(t, `
listeners:
  - {name: egress, listen: 127.0.0.1:0, verify_name: `+verify+`, destinations: {allow: [127.0.0.0/8], ports: [1-65535]}}
`))
		for _, proxy := range []string{"http://" + s.addr("egress"), "socks5h://" + s.addr("egress")} {
			curl(t, "-x", proxy, "--cacert", o.ca, o.url)
			if e := s.line(closed); e["mismatch"] != nil {
				t.Errorf("%s: %v", verify, e)
			}
			another := client(t, "", "curl", "-sSk", "--max-time", "30", "-x", proxy, "--connect-to", "::"+o.addr, "https://another.example/")
			e := s.line(func(e entry) bool { return closed(e) && (e["mismatch"] != nil || verify == "off") })
			if denied := verify == "deny"; (another.status != 0) != denied || (e.text("reason") == "denied") != denied {
				t.Errorf("%s: %+v, %v", verify, another, e)
			}
		}
		s.stop()
	}
}
