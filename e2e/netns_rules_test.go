//go:build linux

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"swivel/internal/netlab"
)

// What swivel rules prints is loaded as it is, what it says is also needed is run as
// it is, and swivel check knows before and after.
func TestRules(t *testing.T) {
	for _, program := range []string{"nft", "iptables", "ip6tables"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	lab := netlab.New(t)
	for name, tt := range map[string]struct {
		flags, rules string
		nft          bool
		missing      []string // before
		ok           []string // after
	}{
		"router": {
			flags: "-listen :8443 -transparent redirect -capture 443,80", nft: true,
			missing: []string{"listener router: no rules send it connections"},
			ok:      []string{"listener router: nftables sends it connections"},
		},
		"router, iptables": {
			flags: "-listen :8443 -transparent redirect -capture all", rules: "-format iptables",
			missing: []string{"listener router: no rules send it connections"},
			ok:      []string{"listener router: iptables sends it connections"},
		},
		"router by tproxy": {
			flags: "-listen :8443 -transparent tproxy -capture 443", nft: true,
			missing: []string{"listener router: no rules send it connections", "tproxy: what is marked 0x5357 for IPv4 leaves this host", "tproxy: what is marked 0x5357 for IPv6 leaves this host"},
			ok: []string{"listener router: nftables sends it connections", "listener router: it may take what is for other addresses",
				"tproxy: what is marked 0x5357 for IPv4 stays on this host", "tproxy: what is marked 0x5357 for IPv6 stays on this host"},
		},
		"router on loopback": {
			flags: "-listen 127.0.0.1:8443 -transparent redirect -capture 443", rules: "-format iptables",
			missing: []string{"listener router: no rules send it IPv4 connections", "net.ipv4.conf.all.route_localnet is 0: nothing that is forwarded gets to 127.0.0.1"},
			ok:      []string{"listener router: iptables sends it connections"},
		},
		"sidecar": {
			flags: "-listen :8443 -transparent redirect -capture 443 -mark 7", rules: "-exclude mark:7", nft: true,
			missing: []string{"listener router: no rules send it connections"},
			ok:      []string{"listener router: nftables sends it connections"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := lab.Namespace(strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", ""))
			swivel := func(command, flags string) string {
				return strings.Join([]string{*binary, command, "-mode sni", tt.flags, flags}, " ")
			}
			before := ns.Run("sh", "-c", swivel("check", "")+" || true")
			for _, want := range tt.missing {
				if !strings.Contains(before, "missing  "+want+"\n") {
					t.Errorf("before: %q is not in\n%s", want, before)
				}
			}
			print, load := swivel("rules", tt.rules), "sh"
			if tt.nft {
				load = "nft -f -"
			}
			ns.Run("sh", "-c", print+" | "+load+" && "+print+" | "+load)
			for line := range strings.SplitSeq(ns.Run("sh", "-c", print), "\n") {
				if _, command, ok := strings.Cut(line, "#   "); ok && (strings.HasPrefix(command, "ip ") || strings.HasPrefix(command, "sysctl ")) {
					ns.Run("sh", "-c", command)
				}
			}
			after := ns.Run("sh", "-c", swivel("check", "")+" || true")
			for _, want := range tt.ok {
				if !strings.Contains(after, "ok       "+want+"\n") {
					t.Errorf("after: %q is not in\n%s", want, after)
				}
			}
			if strings.Contains(after, "rules") || strings.Contains(after, "route_localnet") {
				t.Errorf("after:\n%s", after)
			}
		})
	}
}

// src_valid_mark, which VPNs set, and TPROXY exclude each other; check says so.
func TestRulesValidMark(t *testing.T) {
	ns := netlab.New(t).Namespace("host")
	sysctl(t, ns, "ipv4/conf/lo/src_valid_mark", "1")
	for transparent, want := range map[string]bool{"redirect": false, "tproxy": true} {
		got := ns.Run("sh", "-c", *binary+" check -mode sni -listen :8443 -transparent "+transparent+" || true")
		if strings.Contains(got, "missing  net.ipv4.conf.lo.src_valid_mark is 1: ") != want {
			t.Errorf("%s:\n%s", transparent, got)
		}
	}
}

func TestRulesErrors(t *testing.T) {
	for flags, want := range map[string]string{
		"":                    "no listener needs rules of the kernel (transparent: redirect or tproxy, or mode unwrap)",
		"-exclude uid:nobody": `-exclude: "uid:nobody": write it as uid:1000, the user that swivel runs as, or mark:7, the mark of its listeners`,
		"-mode sni -listen :1 -transparent redirect -exclude mark:7": "-exclude: mark:7: the connections of listener router have mark 0 (set its mark to 7)",
		"-mode sni -listen :1 -transparent redirect -format pf":      `-format: "pf": use nft or iptables`,
		"-mode sni -listen :0 -transparent redirect -capture 443":    "listener router: port 0 is another each time (give it a port)",
	} {
		got := finish(t, command(t, append([]string{"rules"}, strings.Fields(flags)...)...))
		if got.status != 1 || got.stdout != "" || got.stderr != "swivel: "+want+"\n" {
			t.Errorf("swivel rules %s: got %+v, want %q", flags, got, want)
		}
	}
}
