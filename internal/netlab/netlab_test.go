package netlab_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// The lab of TestLab:
//
//	┌ client ────────┐          ┌ server ───────┐
//	│ vc 10.0.0.1/24 ├──────────┤ vs 10.0.0.2/24│
//	│  2001:db8::1/64│          │ 2001:db8::2/64│
//	└────────────────┘          └───────────────┘
func TestLab(t *testing.T) {
	netlab.Leaks(t)
	lab := netlab.New(t)
	client, server := lab.Namespace("client"), lab.Namespace("server")
	lab.Join(client, server, "vc", "vs")
	client.Addr("vc", "10.0.0.1/24", "2001:db8::1/64")
	server.Addr("vs", "10.0.0.2/24", "2001:db8::2/64")
	server.Nft(`table inet lab {
		counter v4 { }
		counter v6 { }
		chain in {
			type filter hook input priority 0
			ip daddr 10.0.0.2 counter name v4
			ip6 daddr 2001:db8::2 counter name v6
		}
	}`)

	ln := server.Listen("tcp", "10.0.0.2:0")
	c, err := client.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, want := c.LocalAddr().(*net.TCPAddr).IP.String(), "10.0.0.1"; got != want {
		t.Errorf("the client dialed from %s, want %s", got, want)
	}
	if got := server.Counter("v4"); got == 0 {
		t.Error("the counter saw no packet")
	}
	if got := server.Counter("v6"); got != 0 {
		t.Errorf("the counter saw %d IPv6 packets, want 0", got)
	}

	pc := server.ListenPacket("udp", "[2001:db8::2]:0")
	u, err := client.Dial(t.Context(), "udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := io.WriteString(u, "hello"); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 16)
	if n, _, err := pc.ReadFrom(p); err != nil || string(p[:n]) != "hello" {
		t.Errorf("the server got %q, %v", p[:n], err)
	}
	if got := server.Counter("v6"); got == 0 {
		t.Error("the counter saw no IPv6 packet")
	}
}

func TestNamespaceRun(t *testing.T) {
	n := netlab.New(t).Namespace("a")
	if got := n.IP("-o", "link", "show"); strings.Count(got, "\n") != 1 || !strings.Contains(got, "lo:") {
		t.Errorf("a new namespace has the links:\n%s", got)
	}
	n.Batch("addr add 10.9.0.1/32 dev lo\naddr add 10.9.0.2/32 dev lo\n")
	if got := n.Run("ip", "-o", "addr", "show"); !strings.Contains(got, "10.9.0.2") {
		t.Errorf("a batch left the addresses:\n%s", got)
	}
}

func TestNamespaceDo(t *testing.T) {
	n := netlab.New(t).Namespace("a")
	home := readNamespace(t)
	want := errors.New("from f")
	var inside string
	got := n.Do(func() error {
		inside = readNamespace(t)
		return want
	})
	if got != want {
		t.Errorf("Do returned %v, want what f returned", got)
	}
	if inside == home {
		t.Error("f ran in the namespace of the test")
	}
	if got := readNamespace(t); got != home {
		t.Errorf("after Do the test is in %s, want %s", got, home)
	}
}

func readNamespace(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestNamespaceCommandIsTheProgram(t *testing.T) {
	n := netlab.New(t).Namespace("a")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := n.Command(ctx, "sh", "-c", "echo $$; exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(out.String()), strconv.Itoa(pid); got != want {
		t.Errorf("the program is process %s, the command %s", got, want)
	}
}

// A lab removes its namespaces, and those of runs that were killed.
func TestLabIsRemoved(t *testing.T) {
	var name, leftover string
	t.Run("lab", func(t *testing.T) {
		netlab.New(t) // skips where there are no namespaces
		killed := exec.Command("sleep", "60")
		if err := killed.Start(); err != nil {
			t.Fatal(err)
		}
		leftover = "swivel-" + strconv.Itoa(killed.Process.Pid) + "-1-left"
		out, err := exec.Command("ip", "netns", "add", leftover).CombinedOutput()
		killed.Process.Kill()
		killed.Wait()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		name = netlab.New(t).Namespace("a").Name
	})
	for _, n := range []string{name, leftover} {
		if _, err := os.Stat("/run/netns/" + n); n != "" && err == nil {
			t.Errorf("namespace %s is still there", n)
		}
	}
}
