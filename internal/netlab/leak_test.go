package netlab

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// verdict is a test that is judged, not run: its failure is kept, and its
// cleanup runs when end is called.
type verdict struct {
	testing.TB
	cleanup func()
	failure string
}

func (v *verdict) Cleanup(f func())                  { v.cleanup = f }
func (v *verdict) Errorf(format string, args ...any) { v.failure = fmt.Sprintf(format, args...) }

func (v *verdict) end() string {
	v.cleanup()
	return v.failure
}

func TestLeaks(t *testing.T) {
	clean := &verdict{TB: t}
	leaks(clean, leakWait)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	done := make(chan struct{})
	go close(done)
	if got := clean.end(); got != "" {
		t.Errorf("a clean test fails with %q", got)
	}

	dirty := &verdict{TB: t}
	leaks(dirty, 0)
	if f, err = os.Open(os.DevNull); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make(chan struct{})
	defer close(block)
	go func() { <-block }() // ends with the test
	got := dirty.end()
	for _, want := range []string{os.DevNull, "TestLeaks.func"} {
		if !strings.Contains(got, want) {
			t.Errorf("a test that leaves %s behind fails with %q", want, got)
		}
	}
}

func TestFDs(t *testing.T) {
	before := FDs(os.Getpid())
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, want := FDs(os.Getpid()), before+1; got != want {
		t.Errorf("one more open file makes %d descriptors, want %d", got, want)
	}
	if got := FDs(-1); got != 0 {
		t.Errorf("a process that is not there has %d descriptors", got)
	}
}

func TestCounter(t *testing.T) {
	list := `{"nftables": [{"metainfo": {"version": "1.0.6"}},
		{"counter": {"family": "ip", "name": "a", "table": "x", "handle": 1, "packets": 2, "bytes": 80}},
		{"counter": {"family": "ip6", "name": "a", "table": "x", "handle": 1, "packets": 3, "bytes": 80}},
		{"counter": {"family": "ip", "name": "b", "table": "x", "handle": 2, "packets": 0, "bytes": 0}}]}`
	for name, want := range map[string]int{"a": 5, "b": 0} {
		if got, err := counter(list, name); got != want || err != nil {
			t.Errorf("counter %s: got %d, %v; want %d", name, got, err, want)
		}
	}
	if _, err := counter(list, "c"); err == nil {
		t.Error("a counter that does not exist can be read")
	}
	if _, err := counter("", "a"); err == nil {
		t.Error("no output can be read")
	}
}
