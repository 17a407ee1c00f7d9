// Package netlab builds small networks for tests: network namespaces joined by
// veth pairs, in which addresses, routes, sysctls and rule sets are the test's
// own and the machine's are never touched.
//
// A lab belongs to one test. Its namespaces are there when Namespace returns and
// gone when the test has ended, however it ends; those that a killed run left
// behind are removed by the next one. A namespace starts empty but for lo, which
// is up.
//
// The package also counts what a test leaves behind: goroutines and descriptors.
//
// It needs root, ip (iproute2) and, for rule sets, nft. It does not make
// packets late or lose them by itself, and it is imported by tests only.
package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// Lab is the network of one test.
type Lab struct {
	t testing.TB
	n int32
}

// labs numbers the labs of this process, so that no two share a name.
var labs atomic.Int32

// New returns an empty lab. It skips the test, with a reason, when it is not run
// by root or the machine has no network namespaces to give.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("netlab: network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("netlab: %v (install iproute2)", err)
	}
	removeLeftovers()

	l := &Lab{t: t, n: labs.Add(1)}
	probe := l.name("probe")
	out, err := exec.Command("ip", "netns", "add", probe).CombinedOutput()
	if err != nil {
		t.Skipf("netlab: ip netns add: %v: %s", err, out)
	}
	l.remove(probe)
	return l
}

// Namespace makes a network namespace in which lo is up. The name need only be
// unique in the lab.
func (l *Lab) Namespace(name string) *Namespace {
	l.t.Helper()
	n := &Namespace{lab: l, Name: l.name(name)}
	out, err := exec.Command("ip", "netns", "add", n.Name).CombinedOutput()
	if err != nil {
		l.t.Fatalf("ip netns add %s: %v: %s", n.Name, err, out)
	}
	l.t.Cleanup(func() { l.remove(n.Name) })
	n.IP("link", "set", "lo", "up")
	return n
}

// Join connects a and b by a veth pair, whose ends are called ifa in a and ifb
// in b. Both are up and have a carrier.
func (l *Lab) Join(a, b *Namespace, ifa, ifb string) {
	l.t.Helper()
	a.IP("link", "add", "name", ifa, "type", "veth", "peer", "name", ifb, "netns", b.Name)
	a.IP("link", "set", "dev", ifa, "up")
	b.IP("link", "set", "dev", ifb, "up")
}

const (
	namesDir   = "/run/netns"
	namePrefix = "swivel-"
)

// name returns what the kernel's name table calls a namespace of this lab. It
// begins with the process, so that a later run can tell what is left over.
func (l *Lab) name(name string) string {
	return fmt.Sprintf("%s%d-%d-%s", namePrefix, os.Getpid(), l.n, name)
}

func (l *Lab) remove(name string) {
	l.t.Helper()
	if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
		l.t.Errorf("ip netns del %s: %v: %s", name, err, out)
	}
}

// removeLeftovers removes the namespaces of processes that are no more. Another
// test process may be doing the same, so an error means nothing.
func removeLeftovers() {
	paths, _ := filepath.Glob(filepath.Join(namesDir, namePrefix+"*"))
	for _, path := range paths {
		name := filepath.Base(path)
		var pid int
		_, err := fmt.Sscanf(strings.TrimPrefix(name, namePrefix), "%d-", &pid)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
	}
}
