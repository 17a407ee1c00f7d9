//go:build linux

// Package e2e tests the built binary as its users meet it: by its command line,
// its signals, its log and what comes out of its sockets.
//
//	e2e_test.go        the binary, and files for it
//	swivel_test.go     one that is running
//	rig_test.go        origins, certificates and raw clients
//	clients_test.go    programs that others wrote: curl, Python, openssl, Go
//	config_test.go     start-up errors, and the commands that do not serve
//	proxied_test.go    PROXY headers in front of CONNECT
//	reload_test.go     SIGHUP
//	life_test.go       SIGTERM, drain, kill
//	log_test.go        the access line, and a log that cannot be written
//	limits_test.go     out of descriptors, over a cap, too slow
//	routers_test.go    other routers by server name, and what they make of hellos
//	netns_*_test.go    addresses that come and go; these need root
//
// Everything is on loopback or in network namespaces. A test that needs a program
// which is missing is skipped with that reason.
package e2e

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long something may take that is to come at all: far more than it
// takes, because the machine may be busy.
const patience = 30 * time.Second

// binary is built by TestMain, unless the flag names one: a compiled test may run
// where there is no Go.
var binary = flag.String("binary", "", "test this `file` and do not build one")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if *binary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "swivel-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // other users run it, too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*binary = filepath.Join(dir, "swivel")
	if out, err := exec.Command("go", "build", "-o", *binary, "swivel").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// lookAtSources makes go test run these tests again when the program has changed: it
// keeps a result for as long as the files are as they were that a test has looked at.
var lookAtSources = sync.OnceFunc(func() {
	filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && (filepath.Ext(path) == ".go" || d.Name() == "go.mod") {
			os.Stat(path)
		}
		return nil
	})
})

// command returns a command that runs the binary to its end. The variables of the
// environment that swivel would read are not handed down.
func command(t testing.TB, args ...string) *exec.Cmd {
	lookAtSources()
	cmd := exec.CommandContext(t.Context(), *binary, args...)
	cmd.Env = environ()
	return cmd
}

func environ() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "SWIVEL_") && !strings.Contains(strings.ToLower(kv), "_proxy=") {
			env = append(env, kv)
		}
	}
	return env
}

// result is what a command that has ended leaves.
type result struct {
	stdout, stderr string
	status         int
}

// finish runs cmd to its end.
func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Wait() // its error is in the status
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// config writes a configuration file and returns its path.
func config(t testing.TB, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "swivel.yaml")
	write(t, path, yaml)
	return path
}

// write puts text into a file, all at once for who reads it meanwhile.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
