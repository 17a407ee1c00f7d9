//go:build linux

package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// swivel check proves that what servers answer comes back, on loopback, at another
// address of the host and in a container, and says how that is mended; swivel rules
// prints it.
func TestUnwrapWayBack(t *testing.T) {
	for _, program := range []string{"nft", "iptables", "ip6tables"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	for _, tt := range []struct {
		name, to, format string
		servers          []string
		mend             []string
	}{
		{"loopback", "127.0.0.1:7777,[::1]:7777", "nft", []string{server4, server6}, []string{
			"ip -4 rule add from 127.0.0.1 iif lo ipproto tcp sport 7777 lookup 5357 priority 5357; ip -4 route replace local default dev lo table 5357\n",
			"ip -6 rule add from ::1 iif lo ipproto tcp sport 7777 lookup 5357 priority 5357; ip -6 route replace local default dev lo table 5357\n",
		}},
		{"an address of this host", "10.6.0.1:7777", "nft", []string{"10.6.0.1:7777"}, []string{
			"ip -4 rule add fwmark 0x5357 lookup 5357 priority 5357; ip -4 route replace local default dev lo table 5357; swivel rules [the same flags] | nft -f -\n",
		}},
		{"a container", "10.6.0.2:7777,[fd00:6::2]:7777", "nft", []string{"10.6.0.2:7777", "[fd00:6::2]:7777"}, []string{
			"ip -4 rule add fwmark 0x5357 lookup 5357 priority 5357; ip -4 route replace local default dev lo table 5357; swivel rules [the same flags] | nft -f -\n",
			"ip -6 rule add fwmark 0x5357 lookup 5357 priority 5357; ip -6 route replace local default dev lo table 5357; swivel rules [the same flags] | nft -f -\n",
		}},
		{"a container, iptables", "10.6.0.2:7777,[fd00:6::2]:7777", "iptables", []string{"10.6.0.2:7777", "[fd00:6::2]:7777"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // each waits for what does not come
			n := newBalanced(t)
			for _, s := range tt.servers {
				ns := n.host
				if strings.Contains(s, "6.0.2") || strings.Contains(s, ":6::2") {
					ns = n.box
				}
				n.serve(ns, s)
			}
			flags := []string{"-mode", "unwrap", "-listen", ":2222", "-from", "10.5.0.1", "-to", tt.to}
			if tt.mend != nil {
				before := n.check(flags...)
				for i, s := range tt.servers {
					if !strings.Contains(before, "missing  listener unwrap: what "+s+" answers to ") || !strings.Contains(before, tt.mend[i]) {
						t.Errorf("check says\n%s", before)
					}
				}
			}
			n.rules(append(flags, "-format", tt.format)...)
			after := n.check(flags...)
			for _, s := range tt.servers {
				if !strings.Contains(after, "ok       listener unwrap: what "+s+" answers to ") {
					t.Errorf("check says\n%s", after)
				}
			}
			n.s = startIn(t, n.host, flags...)
			for _, client := range []string{claimed4, claimed6}[:len(tt.servers)] {
				public := map[string]string{claimed4: public4, claimed6: public6}[client]
				c, saw := n.visit(unwrapAddr4, v2(client, public))
				if saw != client {
					t.Errorf("%s: the server saw %s", client, saw)
				}
				alive(t, c)
			}
		})
	}
}
