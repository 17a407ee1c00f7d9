//go:build linux

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestStartErrors is C1 and C3: what ends a start, and what is said of it. The
// sentence goes to stderr, and nothing to stdout.
func TestStartErrors(t *testing.T) {
	taken := listen(t).Addr().String()
	old := newCertificate(t, time.Now().Add(-time.Hour))
	file := func(yaml string) []string { return []string{"-config", config(t, yaml)} }
	for name, tt := range map[string]struct {
		args []string
		want string // regular expression of all of stderr
	}{
		"port in use":       {[]string{"-listen", taken}, `listen ` + taken + `: address already in use \(.*ss .*\)`},
		"one of two in use": {[]string{"-listen", "127.0.0.1:0," + taken}, `listen ` + taken + `: address already in use .*`},
		"foreign address":   {[]string{"-listen", "192.0.2.77:0", "-clients", "127.0.0.1"}, `listen 192.0.2.77:0: this host does not have the address .*`},
		"open proxy":        {[]string{"-listen", "0.0.0.0:0"}, `-listen: an open proxy: .*-users or -clients.*`},
		"open proxy by file": {
			file("listeners: [{listen: ':0'}]"), `.*swivel.yaml:1:\d+: listeners\[0\].*: an open proxy: .*users or clients.*`},
		"unknown key": {
			file("limits: {per_clint: 5}\nlisteners: [{listen: '127.0.0.1:0'}]"), `.*swivel.yaml:1:\d+: limits.*per_clint.*per_client.*`},
		"bad YAML":                {file("listeners: [{listen: '127.0.0.1:0'}"), `.*swivel.yaml:\d+:\d+: .*`},
		"empty file":              {file(""), `.*swivel.yaml: empty.*`},
		"missing file":            {[]string{"-config", "/nonexistent/swivel.yaml"}, `.*/nonexistent/swivel.yaml: no such file or directory.*`},
		"missing users file":      {[]string{"-users", "/nonexistent/users"}, `listener egress: users: .*/nonexistent/users: no such file.*htpasswd.*`},
		"missing key":             {[]string{"-cert", old.cert, "-key", "/nonexistent/key"}, `listener egress: tls: .*/nonexistent/key: no such file.*`},
		"expired certificate":     {[]string{"-cert", old.cert, "-key", old.key}, `listener egress: tls: .*cert.pem: expired on \d{4}-\d\d-\d\d`},
		"certificate without key": {[]string{"-cert", old.cert}, `-cert: needs .*-key`},
		"unknown flag":            {[]string{"-lisen", ":1"}, `flag provided but not defined: -lisen.*`},
		"flag of another mode":    {[]string{"-transparent", "redirect"}, `-transparent: means nothing in mode connect`},
		"bad value":               {[]string{"-ports", "0"}, `-ports: .*"0".*`},
		"unknown command":         {[]string{"serve"}, `serve: no such command \(.*\)`},
		"argument":                {[]string{"run", "now"}, `now: not a flag \(.*\)`},
	} {
		t.Run(name, func(t *testing.T) {
			got := finish(t, command(t, tt.args...))
			if want := regexp.MustCompile(`^swivel: ` + tt.want + `\n$`); !want.MatchString(got.stderr) {
				t.Errorf("stderr %q, want %v", got.stderr, want)
			}
			if got.status != 1 || got.stdout != "" {
				t.Errorf("status %d and stdout %q, want 1 and nothing", got.status, got.stdout)
			}
		})
	}
}

func TestVariables(t *testing.T) {
	cmd := command(t)
	cmd.Env = append(cmd.Env, "SWIVEL_LISTEN=127.0.0.1:0", "SWIVEL_POOL=127.0.0.2", "SWIVEL_ALLOW=127.0.0.0/8", "SWIVEL_PORTS=1-65535")
	s := launch(t, cmd)
	got := curl(t, "-x", s.addr("egress"), newOrigin(t, nil).url)
	if strings.TrimSpace(got) != "127.0.0.2" {
		t.Errorf("source %q, want 127.0.0.2", got)
	}
	s.stop()

	t.Run("a flag wins", func(t *testing.T) {
		cmd := command(t, "sources", "-pool", "127.0.0.3")
		cmd.Env = append(cmd.Env, "SWIVEL_POOL=127.0.0.2")
		if got := finish(t, cmd); !strings.Contains(got.stdout, "127.0.0.3") || strings.Contains(got.stdout, "127.0.0.2") {
			t.Errorf("got %+v, want the pool of the flag", got)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		cmd := command(t)
		cmd.Env = append(cmd.Env, "SWIVEL_LISTN=127.0.0.1:0")
		if got := finish(t, cmd); got.status != 1 || !strings.Contains(got.stderr, "SWIVEL_LISTEN") {
			t.Errorf("got %+v, want status 1 and a hint", got)
		}
	})
}

// TestReadmeFile runs the file of the README, on another port.
func TestReadmeFile(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Skip(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```yaml\n")
	text, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the README has no file")
	}
	path := config(t, strings.ReplaceAll(text, "127.0.0.1:8080", "127.0.0.1:0"))
	dir := filepath.Dir(path)
	c := newCertificate(t, time.Now().Add(time.Hour))
	for from, to := range map[string]string{
		c.cert: "proxy.pem", c.key: "proxy.key", usersFile(t, "alice"): "users.htpasswd",
	} {
		if err := os.Rename(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, "-config", path)
	r := client(t, "", "curl", "-sv", "-x", "https://"+s.addr("egress"), "--proxy-insecure", "-U", "alice:alice-secret", "http://127.0.0.1/")
	if !strings.Contains(r.stderr, " 403 ") {
		t.Errorf("got %q, want a 403", r.stderr)
	}
	s.stop()
}

func TestCheck(t *testing.T) {
	ok := finish(t, command(t, "check", "-listen", "127.0.0.1:0", "-pool", "127.0.0.2"))
	if ok.status != 0 || strings.Contains(ok.stdout, "missing") || ok.stderr != "" {
		t.Errorf("got %+v, want nothing to be missing", ok)
	}
	taken, users := listen(t).Addr().String(), filepath.Join(t.TempDir(), "users")
	_, port, _ := net.SplitHostPort(taken)
	for want, args := range map[string][]string{
		"htpasswd -Bc " + users:         {"-users", users},
		"sport = :" + port:              {"-listen", taken},
		"listen :2998: address already": {"-listen", "127.0.0.1:2998,:2998", "-clients", "127.0.0.1"},
		"ip address add 192.0.2.7":      {"-pool", "192.0.2.7"},
		"no such interface (ip link)":   {"-pool", "absent0"},
		"pool main has no source":       {"-pool", "absent0"},
		"openssl req -x509":             {"-cert", "/nonexistent/cert", "-key", "/nonexistent/key"},
	} {
		got := finish(t, command(t, append([]string{"check", "-listen", "127.0.0.1:0"}, args...)...))
		if got.status != 1 || !strings.Contains(got.stdout, want) || got.stderr != "" {
			t.Errorf("check %v: %+v, want status 1 and %q", args, got, want)
		}
	}
	bad := finish(t, command(t, "check", "-config", config(t, "listeners: 5")))
	if bad.status != 1 || !strings.Contains(bad.stderr, "swivel.yaml:1:") {
		t.Errorf("got %+v, want status 1 and the line", bad)
	}
}

func TestSources(t *testing.T) {
	got := finish(t, command(t, "sources", "-pool", "127.0.0.2,192.0.2.7,absent0"))
	lines := strings.Split(got.stdout, "\n")
	if got.status != 0 || len(lines) != 5 {
		t.Fatalf("got %+v, want a head and three lines", got)
	}
	for i, want := range []string{`^POOL +SOURCE`, `^main +127\.0\.0\.2 .* ready$`, `^main +192\.0\.2\.7 .*missing: `, `^main +absent0 .*missing: `} {
		if !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("line %q, want %s", lines[i], want)
		}
	}
}

func TestVersionAndUsage(t *testing.T) {
	if got := finish(t, command(t, "version")); got.status != 0 || !regexp.MustCompile(`^swivel \S+ \(go.* linux/.*\)\n$`).MatchString(got.stdout) {
		t.Errorf("version: %+v", got)
	}
	for _, args := range [][]string{{"-h"}, {"help"}, {"check", "-h"}} {
		if got := finish(t, command(t, args...)); got.status != 0 || got.stderr != "" || !strings.Contains(got.stdout, "-listen addresses") {
			t.Errorf("%v: %+v, want the usage on stdout", args, got)
		}
	}
}
