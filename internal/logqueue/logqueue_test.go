package logqueue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestQueueKeepsLinesInOrder(t *testing.T) {
	var out bytes.Buffer
	q := New(&out, 1<<20)
	go q.Run()
	var want strings.Builder
	for i := range 1000 {
		fmt.Fprintf(q, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	q.Close(time.Minute)
	if out.String() != want.String() {
		t.Errorf("got %d bytes, want %d, in order", out.Len(), want.Len())
	}
	if q.Dropped() != 0 {
		t.Errorf("dropped: got %d, want 0", q.Dropped())
	}
}

// L2: a reader that does not read. Write returns all the same, what does not fit
// is counted, and the count is told when the reader reads again.
func TestQueueStuckReader(t *testing.T) {
	r, w := io.Pipe()
	q := New(w, 1000)
	go q.Run()
	line := []byte(strings.Repeat("x", 99) + "\n")
	for range 100 {
		if n, err := q.Write(line); n != len(line) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	if q.Dropped() < 80 { // 10 queued, and as many again taken by Run
		t.Errorf("dropped: got %d, want at least 80", q.Dropped())
	}
	got := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		got <- string(b)
	}()
	q.Close(time.Minute)
	w.Close()
	if s := <-got; !strings.Contains(s, `"message":"log lines dropped"`) {
		t.Errorf("the loss is not told: %q", s)
	}
}

// L1: a disk that is full.
func TestQueueFullDisk(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	q := New(f, 1000)
	go q.Run()
	q.Write([]byte("one\ntwo\n"))
	q.Close(time.Minute)
	if q.Dropped() != 2 {
		t.Errorf("dropped: got %d, want 2", q.Dropped())
	}
}

func TestQueueCloseDoesNotWaitForEver(t *testing.T) {
	r, w := io.Pipe()
	q := New(w, 1000)
	go q.Run()
	q.Write([]byte("line\n"))
	q.Close(time.Millisecond)
	q.Write([]byte("late\n"))
	if q.Dropped() == 0 {
		t.Error("a line after Close is not counted as dropped")
	}
	r.CloseWithError(errors.New("gone")) // lets Run end
	<-q.done
}
