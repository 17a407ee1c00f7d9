//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// balancer runs a load balancer in front, until the end of the test: %s in its
// arguments is the path of a file with that text.
func (n *balanced) balancer(text string, name string, args ...string) {
	n.t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		n.t.Skip(err)
	}
	dir := n.t.TempDir()
	os.Chmod(dir, 0o755)
	file := filepath.Join(dir, "config")
	write(n.t, file, strings.ReplaceAll(text, "DIR", dir))
	os.Chmod(file, 0o644)
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "%s", file)
	}
	cmd := n.front.Command(n.t.Context(), name, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second // for what it may have started
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if n.t.Failed() {
			n.t.Logf("%s said %s", name, said.String())
		}
	})
}

// from connects from client to a balancer, once it is there, and returns the
// connection and whom the server saw.
func (n *balanced) from(address string) (net.Conn, string) {
	n.t.Helper()
	var c net.Conn
	eventually(n.t, "nobody listens on "+address, func() (ok bool) {
		var err error
		c, err = n.client.Dial(n.t.Context(), "tcp", address)
		return err == nil
	})
	n.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(io.LimitReader(c, 64)).ReadString('\n')
	if err != nil {
		n.t.Errorf("%s: got %q, %v", address, line, err)
	}
	return c, strings.TrimSpace(line)
}

// behind checks that the server sees the client through each address.
func (n *balanced) behind(addresses ...string) {
	n.t.Helper()
	for _, address := range addresses {
		c, saw := n.from(address)
		if want := c.LocalAddr().String(); saw != want {
			n.t.Errorf("%s: the server saw %s, want %s", address, saw, want)
		}
		alive(n.t, c)
		c.Close()
	}
}

func newBehind(t *testing.T, others ...string) *balanced {
	n := newBalanced(t)
	n.serve(n.host, server4)
	n.serve(n.host, server6)
	n.rules("-mode", "unwrap", "-listen", ":2222", "-from", "10.5.0.1", "-to", "127.0.0.1:7777,[::1]:7777")
	n.start(bothTargets, others...)
	return n
}

func TestUnwrapBehindHAProxy(t *testing.T) {
	n := newBehind(t)
	n.balancer(`
defaults
  mode tcp
  timeout connect 20s
  timeout client 20s
  timeout server 20s
listen v1
  bind 198.51.100.1:25
  bind 2001:db8:51::1:25
  server s 10.5.0.2:2222 send-proxy
listen v2
  bind 198.51.100.1:26
  bind 2001:db8:51::1:26
  server s [fd00:5::2]:2222 send-proxy-v2 proxy-v2-options unique-id,authority,crc32c
  unique-id-format %{+X}o\ %ci:%cp
listen both
  bind :::27 v4v6
  server s 10.5.0.2:2222 send-proxy-v2
listen health
  bind 198.51.100.1:28
  server s 10.5.0.2:2222 send-proxy-v2 check check-send-proxy inter 200ms
`, "haproxy", "-db", "-f", "%s")
	n.behind("198.51.100.1:25", "[2001:db8:51::1]:25", "198.51.100.1:26", "[2001:db8:51::1]:26", "198.51.100.1:27", "[2001:db8:51::1]:27", "198.51.100.1:28")
	n.s.lineAfter(0, func(e entry) bool { return closed(e) && strings.HasPrefix(e.text("unique_id"), "C6336407:") })
	// Its health checks name nobody, and are connected by an address of this host.
	n.s.lineAfter(0, func(e entry) bool {
		return closed(e) && strings.HasPrefix(e.text("client"), "10.5.0.1:") && e.text("source") == "127.0.0.1"
	})
}

func TestUnwrapBehindNginx(t *testing.T) {
	const module = "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(module); err != nil {
		t.Skip(err)
	}
	n := newBehind(t, `  - {name: lax, listen: ":2223", mode: unwrap, from: [10.5.0.1], to: ["127.0.0.1:7777", "[::1]:7777"], ipv4_in_tcp6: on}`)
	n.balancer(fmt.Sprintf(`
load_module %s;
pid DIR/pid;
error_log stderr;
master_process off;
daemon off;
events {}
stream {
  proxy_protocol on;
  server { listen 198.51.100.1:25; listen [2001:db8:51::1]:25; proxy_pass 10.5.0.2:2222; }
  server { listen 198.51.100.1:26; listen [::]:26; proxy_pass [fd00:5::2]:2222; }
  server { listen [::]:27 ipv6only=off; proxy_pass 10.5.0.2:2222; }
  server { listen [::]:28 ipv6only=off; proxy_pass 10.5.0.2:2223; }
}
`, module), "nginx", "-c", "%s", "-e", "stderr")
	n.behind("198.51.100.1:25", "[2001:db8:51::1]:25", "198.51.100.1:26", "[2001:db8:51::1]:26", "[2001:db8:51::1]:27", "[2001:db8:51::1]:28", "198.51.100.1:28")

	// 3c/4: to a socket for both families nginx writes IPv4 as IPv6, where version 1
	// has a word for either. Two listen directives, which is its default, do not.
	c, err := n.client.Dial(t.Context(), "tcp", "198.51.100.1:27")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := n.s.lineAfter(0, func(e entry) bool { return closed(e) && e.text("reason") == "bad-header" })
	if !strings.Contains(l.text("error"), "PROXY TCP6 ::ffff:198.51.100.7 ::ffff:198.51.100.1 ") {
		t.Errorf("got %v", l)
	}
}
