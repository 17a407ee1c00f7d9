//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// entry is a line of the log.
type entry map[string]any

// text returns a field, "" when the line has none of that name.
func (e entry) text(field string) string {
	s, _ := e[field].(string)
	return s
}

// message matches the lines that say so.
func message(text string) func(entry) bool {
	return func(e entry) bool { return e.text("message") == text }
}

// closed matches access lines.
var closed = message("closed")

// swivel is a running binary. Its methods are called by the test's goroutine, but
// for those that only look.
type swivel struct {
	t      testing.TB
	cmd    *exec.Cmd
	stderr strings.Builder
	exited chan struct{} // closed when the process has ended

	mu sync.Mutex
	// guards
	log   []entry
	news  chan struct{} // closed at the next line
	ended bool          // no more lines
}

// start runs the binary with args and waits until it listens. It is killed at the
// end of the test, unless stop or wait has seen it end.
func start(t testing.TB, args ...string) *swivel {
	t.Helper()
	s := launch(t, command(t, args...))
	s.line(message("listening"))
	return s
}

// startIn is start in a network namespace.
func startIn(t testing.TB, ns *netlab.Namespace, args ...string) *swivel {
	t.Helper()
	lookAtSources()
	cmd := ns.Command(t.Context(), *binary, args...)
	cmd.Env = environ()
	s := launch(t, cmd)
	s.line(message("listening"))
	return s
}

// launch starts cmd, of which stdout is the log.
func launch(t testing.TB, cmd *exec.Cmd) *swivel {
	t.Helper()
	s := &swivel{t: t, cmd: cmd, exited: make(chan struct{}), news: make(chan struct{})}
	cmd.Stderr = &s.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.read(stdout) // until the process has ended
	t.Cleanup(s.kill)
	return s
}

// read collects the log, and then waits for the process.
func (s *swivel) read(stdout io.Reader) {
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var e entry
		if json.Unmarshal(line, &e) != nil {
			e = entry{"not-json": string(line)}
		}
		s.mu.Lock()
		s.log = append(s.log, e)
		s.tell()
		s.mu.Unlock()
	}
	s.cmd.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.tell()
	close(s.exited)
}

func (s *swivel) tell() {
	close(s.news)
	s.news = make(chan struct{})
}

func (s *swivel) kill() {
	s.cmd.Process.Kill()
	<-s.exited
	if s.t.Failed() {
		log := s.lines()
		for _, e := range log[max(0, len(log)-20):] {
			text, _ := json.Marshal(e)
			s.t.Logf("log: %s", text)
		}
		s.t.Logf("stderr: %q", s.stderr.String())
	}
}

func (s *swivel) pid() int { return s.cmd.Process.Pid }

// lines returns the log up to now.
func (s *swivel) lines() []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// line waits for a line of the log that matches. One that is there already counts.
func (s *swivel) line(match func(entry) bool) entry {
	s.t.Helper()
	return s.lineAfter(0, match)
}

// lineAfter is line, of those that follow the first n.
func (s *swivel) lineAfter(n int, match func(entry) bool) entry {
	s.t.Helper()
	return s.linesAfter(n, 1, match)[0]
}

// linesAfter waits for as many lines that match, of those that follow the first n.
func (s *swivel) linesAfter(n, want int, match func(entry) bool) []entry {
	s.t.Helper()
	timeout := time.After(patience)
	var found []entry
	for {
		s.mu.Lock()
		log, news, ended := s.log[min(n, len(s.log)):], s.news, s.ended
		s.mu.Unlock()
		n += len(log)
		for _, e := range log {
			if match(e) {
				found = append(found, e)
			}
		}
		if len(found) >= want {
			return found
		}
		if ended {
			s.t.Fatalf("swivel ended (%v), having logged %d of %d such lines", s.cmd.ProcessState, len(found), want)
		}
		select {
		case <-news:
		case <-timeout:
			s.t.Fatalf("%d of %d such lines in the log after %v", len(found), want, patience)
		}
	}
}

// addr waits until the listener of that name listens, and returns where. With
// flags the name is egress.
func (s *swivel) addr(listener string) string {
	s.t.Helper()
	return s.addrAfter(0, listener)
}

// addrAfter is addr, of the log that follows the first n lines.
func (s *swivel) addrAfter(n int, listener string) string {
	s.t.Helper()
	e := s.lineAfter(n, func(e entry) bool {
		return e.text("message") == "listening" && e.text("listener") == listener
	})
	return e.text("address")
}

func (s *swivel) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// reload sends SIGHUP and returns the line that tells how it went.
func (s *swivel) reload() entry {
	s.t.Helper()
	n := len(s.lines())
	s.signal(syscall.SIGHUP)
	return s.lineAfter(n, func(e entry) bool {
		return strings.HasPrefix(e.text("message"), "reload")
	})
}

// settle waits until no more descriptors are open than so many.
func (s *swivel) settle(fds int) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for netlab.FDs(s.pid()) > fds {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d descriptors are open, want the %d before", netlab.FDs(s.pid()), fds)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// wait returns the exit status, -1 when a signal ended the process.
func (s *swivel) wait() int {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Fatalf("swivel has not ended after %v", patience)
	}
	return s.cmd.ProcessState.ExitCode()
}

// stop ends swivel by SIGTERM, as it should end: with status 0 and nothing on
// stderr.
func (s *swivel) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.t.Fatal(err)
	}
	if status := s.wait(); status != 0 {
		s.t.Errorf("status %d, want 0", status)
	}
	if text := s.stderr.String(); text != "" {
		s.t.Errorf("stderr %q", text)
	}
}
