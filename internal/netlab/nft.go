package netlab

import (
	"encoding/json"
	"fmt"
)

// Nft loads a rule set, in the language of nft(8), into the namespace.
//
// With named counters it proves what did not happen: a rule counts every packet
// that must never be seen, and the test ends with Counter(…) == 0.
func (n *Namespace) Nft(rules string) {
	n.lab.t.Helper()
	n.run(rules, "nft", "-f", "-")
}

// Counter returns the number of packets that the named counter has seen. A name
// that several tables use is their sum; one that none has ends the test.
func (n *Namespace) Counter(name string) int {
	n.lab.t.Helper()
	packets, err := counter(n.run("", "nft", "-j", "list", "counters"), name)
	if err != nil {
		n.lab.t.Fatal(err)
	}
	return packets
}

// counter reads the output of `nft -j list counters`, libnftables-json(5).
func counter(list, name string) (int, error) {
	var reply struct {
		Nftables []struct {
			Counter *struct {
				Name    string
				Packets int
			}
		}
	}
	if err := json.Unmarshal([]byte(list), &reply); err != nil {
		return 0, fmt.Errorf("nft list counters: %w", err)
	}
	sum, found := 0, false
	for _, e := range reply.Nftables {
		if e.Counter != nil && e.Counter.Name == name {
			sum += e.Counter.Packets
			found = true
		}
	}
	if !found {
		return 0, fmt.Errorf("nft: no counter is named %q", name)
	}
	return sum, nil
}
