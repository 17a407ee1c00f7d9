package netlab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// leakWait is how long goroutines and descriptors have to go away after a test:
// closing is asynchronous, and a loaded machine is slow.
const leakWait = 5 * time.Second

// Leaks makes the test fail at its end when it leaves goroutines or descriptors
// behind in this process. It is called first, so that its check runs last; what
// was there before it does not count. It is not for parallel tests, whose
// neighbors it would accuse.
func Leaks(t testing.TB) {
	t.Helper()
	leaks(t, leakWait)
}

func leaks(t testing.TB, wait time.Duration) {
	t.Helper()
	startPoller()
	goroutines := goleak.IgnoreCurrent()
	before := descriptors(os.Getpid())
	t.Cleanup(func() {
		t.Helper()
		deadline := time.Now().Add(wait)
		for {
			err := errors.Join(goleak.Find(goroutines), grown(before, descriptors(os.Getpid())))
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("leak: %v", err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// FDs returns the number of open descriptors of a process, 0 if it is not there.
func FDs(pid int) int { return len(descriptors(pid)) }

// startPoller makes the runtime open the epoll descriptors that it keeps for
// ever, which it does at the first socket of the process.
func startPoller() {
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
}

// descriptors returns the open descriptors of a process and what each is open on.
func descriptors(pid int) map[int]string {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	open := make(map[int]string)
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// The descriptor that the directory was read by is closed by now, and so
		// does not count.
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open[fd] = target
		}
	}
	return open
}

// grown returns an error that names the descriptors that are new, if there are
// more than before.
func grown(before, now map[int]string) error {
	if len(now) <= len(before) {
		return nil
	}
	var extra []string
	for fd, target := range now {
		if before[fd] != target {
			extra = append(extra, fmt.Sprintf("%d -> %s", fd, target))
		}
	}
	return fmt.Errorf("%d descriptors became %d: %s", len(before), len(now), strings.Join(extra, ", "))
}
