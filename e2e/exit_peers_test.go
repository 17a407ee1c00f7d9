//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestExitPeers: proxies of others are exits, too, and what they say of a destination
// that refuses is understood as well as can be.
func TestExitPeers(t *testing.T) {
	for _, tt := range []struct {
		program, scheme, config string // of the address, the port, and a folder
		args                    []string
		refused                 string
	}{
		{"squid", "http", "http_port %s:%d\nhttp_access allow all\ncache deny all\naccess_log none\ncache_log %s/cache.log\npid_filename none\nvisible_hostname peer\npinger_enable off\n",
			[]string{"-N", "-f"}, "503 destination_unavailable"},
		{"tinyproxy", "http", "Listen %s\nPort %d\nAllow 127.0.0.0/8\nLogFile \"%s/log\"\nLogLevel Error\n",
			[]string{"-d", "-c"}, "502 destination_unavailable"},
		{"danted", "socks5", "logoutput: stderr\ninternal: %s port = %d\nexternal: 127.0.0.1\nuser.privileged: root\nuser.unprivileged: root\n" +
			"clientmethod: none\nsocksmethod: none\nclient pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\nsocks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n# %s\n",
			[]string{"-f"}, "502 connection_refused"},
	} {
		t.Run(tt.program, func(t *testing.T) {
			path, err := exec.LookPath(tt.program)
			if err != nil {
				t.Skip(err)
			}
			if tt.program == "danted" && os.Geteuid() != 0 {
				t.Skip("danted wants to be root")
			}
			at := netip.MustParseAddrPort(unused())
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o777); err != nil { // squid gives up being root
				t.Fatal(err)
			}
			file := filepath.Join(dir, "conf")
			write(t, file, fmt.Sprintf(tt.config, at.Addr(), at.Port(), dir))
			if err := os.Chmod(file, 0o644); err != nil {
				t.Fatal(err)
			}
			launchPeer(t, exec.CommandContext(t.Context(), path, append(tt.args, file)...), at.String())

			proxy := startProxy(t, "-pool", tt.scheme+"://"+at.String()).addr("egress")
			echo := newEcho(t, nil)
			c := dial(t, proxy)
			head, err := connect(c, echo)
			if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") {
				t.Fatalf("%q, %v", head, err)
			}
			alive(t, c)
			c.Close()

			nobody := unused()
			c = dial(t, proxy)
			head, _ = connect(c, nobody)
			if got := (reply{head: head}).status(); got != tt.refused {
				t.Errorf("refused: got %q, want %s", head, tt.refused)
			}
			c.Close()
			plain := newOrigin(t, nil)
			if got := strings.TrimSpace(curl(t, "-x", proxy, plain.url)); got != "127.0.0.1" {
				t.Errorf("plain HTTP came from %q", got)
			}
		})
	}
}

// launchPeer runs a proxy of others until the end of the test, and waits until it
// listens.
func launchPeer(t *testing.T, cmd *exec.Cmd, at string) {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", cmd.Path, out.String())
		}
	})
	eventually(t, cmd.Path+" does not listen", func() bool { return !refuses(at) })
}
