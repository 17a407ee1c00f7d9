//go:build linux

package e2e

import (
	"slices"
	"strings"
	"testing"
)

// S6: a source that leads nowhere is left alone for a while, and is used again when
// it has healed.
func TestNetCooldown(t *testing.T) {
	const bad = "10.1.0.2"
	t.Run("that is rejected: nobody notices", func(t *testing.T) {
		n := newNetwork(t)
		filter(n.far, "input", "ip saddr "+bad+" reject with icmp type admin-prohibited")
		n.start(settings{pool: "sources: [{address: 10.1.0.1}, {address: 10.1.0.2}, {address: 10.1.0.3}], cooldown: {for: 1h, most: 1h}"})
		for range 4 { // bad is tried three times; the request goes on with the next one
			n.askAll(origin4, origin4, origin4)
		}
		for _, from := range n.askAll(slices.Repeat([]string{origin4}, 6)...) {
			if from == bad {
				t.Errorf("%s leads nowhere, and was used", bad)
			}
		}
		last := n.s.linesAfter(0, 18, closed)[12:]
		for _, e := range last {
			if e["attempts"] != 1.0 {
				t.Errorf("%v attempts, the last ones of which were to have left %s alone", e["attempts"], bad)
			}
		}
	})
	t.Run("that is silent: it costs three requests", func(t *testing.T) {
		n := newNetwork(t)
		filter(n.far, "input", "ip saddr "+bad+" drop")
		n.start(settings{
			pool:   "sources: [{address: 10.1.0.1}, {address: 10.1.0.2}, {address: 10.1.0.3}], cooldown: {for: 2s, most: 2s}",
			limits: "dial: 1s",
		})
		failed := 0
		eventually(t, bad+" is used for ever", func() bool {
			ok := 0
			for range 4 {
				r := n.ask(origin4)
				if r.status() == "200" {
					ok++
					continue
				}
				failed++
			}
			return ok == 4
		})
		if failed < 3 {
			t.Errorf("%d failures were enough, want 3", failed)
		}
		n.far.Run("nft", "flush", "ruleset")
		eventually(t, bad+" never comes back", func() bool {
			return strings.Contains(strings.Join(n.askAll(origin4, origin4, origin4), " "), bad)
		})
	})
}
