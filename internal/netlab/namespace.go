package netlab

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of a lab. The methods that return no error
// end the test when they fail, so they are called from the test's goroutine.
type Namespace struct {
	Name string // as in `ip netns list`
	lab  *Lab
}

// Run runs a command in the namespace and returns what it printed.
func (n *Namespace) Run(name string, args ...string) string {
	n.lab.t.Helper()
	return n.run("", name, args...)
}

// IP runs ip(8) in the namespace: n.IP("link", "set", "va", "down").
func (n *Namespace) IP(args ...string) string {
	n.lab.t.Helper()
	return n.run("", "ip", args...)
}

// Batch runs many ip(8) commands, one a line, in one process.
func (n *Namespace) Batch(lines string) {
	n.lab.t.Helper()
	n.run(lines, "ip", "-batch", "-")
}

// Addr adds addresses ("10.0.0.1/24", "2001:db8::1/64") to an interface. They
// can be used at once: IPv6 ones skip duplicate address detection, which would
// take more than a second.
func (n *Namespace) Addr(dev string, prefixes ...string) {
	n.lab.t.Helper()
	for _, p := range prefixes {
		args := []string{"addr", "add", p, "dev", dev}
		if !strings.Contains(p, ":") {
			n.IP(args...)
			continue
		}
		n.IP(append(args, "nodad")...)
		n.awaitLocal(p)
	}
}

// awaitLocal waits until the kernel delivers what comes for an IPv6 address. It
// adds the route for that a moment after the address, in the background.
func (n *Namespace) awaitLocal(prefix string) {
	n.lab.t.Helper()
	addr, _, _ := strings.Cut(prefix, "/")
	for deadline := time.Now().Add(commandLimit); n.IP("-6", "route", "show", "table", "local", addr) == ""; {
		if time.Now().After(deadline) {
			n.lab.t.Fatalf("%s in %s: the kernel adds no local route", addr, n.Name)
		}
	}
}

// Command returns a command that will run in the namespace. The process that is
// started is the command itself, so that a signal to it reaches the program.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// Not `ip netns exec` where it can be helped: it also makes a mount
	// namespace, in which the command sees another /sys.
	if _, err := exec.LookPath("nsenter"); err == nil {
		return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.path(), "--", name}, args...)...)
	}
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// Do runs f on a thread that is in the namespace. What f makes stays there: a
// socket belongs for life to the namespace of the thread that opened it.
// Goroutines that f starts run outside of it.
func (n *Namespace) Do(f func() error) error {
	away, err := os.Open(n.path())
	if err != nil {
		return err
	}
	defer away.Close()

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(away.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			// Later tests would run in the wrong network.
			panic(os.NewSyscallError("setns", err))
		}
	}()
	return f()
}

// Listen listens in the namespace until the end of the test. The address holds
// an IP address, not a name.
func (n *Namespace) Listen(network, address string) net.Listener {
	n.lab.t.Helper()
	var ln net.Listener
	if err := n.Do(func() (err error) {
		ln, err = net.Listen(network, address)
		return err
	}); err != nil {
		n.lab.t.Fatal(err)
	}
	n.lab.t.Cleanup(func() { ln.Close() })
	return ln
}

// ListenPacket is Listen for datagrams.
func (n *Namespace) ListenPacket(network, address string) net.PacketConn {
	n.lab.t.Helper()
	var pc net.PacketConn
	if err := n.Do(func() (err error) {
		pc, err = net.ListenPacket(network, address)
		return err
	}); err != nil {
		n.lab.t.Fatal(err)
	}
	n.lab.t.Cleanup(func() { pc.Close() })
	return pc
}

// Dial connects from the namespace. The address holds an IP address: a name
// would be looked up by another goroutine, outside of the namespace.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := n.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

func (n *Namespace) path() string { return filepath.Join(namesDir, n.Name) }

// commandLimit ends a command that hangs, in words, before the test binary's own
// limit does with a dump of every goroutine.
const commandLimit = time.Minute

func (n *Namespace) run(stdin, name string, args ...string) string {
	n.lab.t.Helper()
	// Not the test's context: commands run in cleanups, too.
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := n.Command(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.lab.t.Fatalf("%s in %s: %v\n%s", strings.Join(append([]string{name}, args...), " "), n.Name, err, out)
	}
	return string(out)
}
