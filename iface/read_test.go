package iface_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"swivel/iface"
)

// No snapshot lacks an address that was there all the time, though the kernel's
// list is read in parts and changes in between. IPv6, because there a new address
// comes before the old ones, and moves them all.
func TestReadWhole(t *testing.T) {
	host, _ := newHost(t)
	stay, _ := storm("va", "2001:db8::1:%x/128", 600)
	add, del := storm("va", "2001:db8::2:%x/128", 100)
	host.Batch(stay)
	over := start(t, host, strings.Repeat(add+del, 10))
	whole, torn := 0, 0
	err := host.Do(func() error {
		for {
			select {
			case err := <-over:
				return err
			default:
			}
			h, err := iface.Read()
			if err != nil {
				torn++
				continue
			}
			whole++
			if got, _ := h.Interface("va"); strings.Count(words(got), "2001:db8::1:") != 600 {
				return fmt.Errorf("snapshot %d has %d addresses, want 600 of 2001:db8::1:", whole, len(got))
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d snapshots, %d times none", whole, torn)
}

// One address may be on an interface twice; it is one source.
func TestReadTwice(t *testing.T) {
	host, _ := newHost(t)
	host.Batch(`addr add 10.0.0.1/32 dev va
addr add 10.0.0.1 peer 10.3.0.1/32 dev va
addr add 10.0.0.5/24 dev va preferred_lft 0
addr add 10.0.0.5/32 dev va
`)
	var h *iface.Host
	if err := host.Do(func() (err error) {
		h, err = iface.Read()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got, want := on(h, "va"), "10.0.0.1 10.0.0.5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRead(t *testing.T) {
	h, err := iface.Read()
	if err != nil {
		t.Fatal(err)
	}
	if !h.Has(netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("this host has no 127.0.0.1: %+v", *h)
	}
}
