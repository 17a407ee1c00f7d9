package listener

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"swivel/relay"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("swivel/relay.(*parkingLot).attend"))
}

// door is a Door made of functions.
type door struct {
	serve  func(context.Context, *Client)
	refuse func(*Client, error)
}

func (d door) Serve(ctx context.Context, c *Client) { d.serve(ctx, c) }
func (d door) Refuse(c *Client, why error) {
	if d.refuse != nil {
		d.refuse(c, why)
	}
}

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// with returns the lines that have this message.
func (l *lines) with(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.buf.Bytes()) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if m["message"] == message {
			found = append(found, m)
		}
	}
	return found
}

// running is a Server with a listening socket.
type running struct {
	*Server
	log  *lines
	addr string
	stop context.CancelFunc
	done chan error
	once sync.Once
}

func run(t *testing.T, svc *Service, descriptors, connections, perClient int) *running {
	t.Helper()
	r := &running{log: new(lines), done: make(chan error, 1)}
	r.Server = &Server{Gate: NewGate(descriptors), Table: new(Table), Log: zerolog.New(r.log)}
	r.Gate.Limit(connections, perClient)
	r.Use(svc)
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	var accept context.Context
	accept, r.stop = context.WithCancel(context.Background())
	go func() { r.done <- r.Serve(accept, context.Background(), ln) }() // ends with stop
	t.Cleanup(r.end)
	return r
}

// end stops the server, ends its clients, and waits for them.
func (r *running) end() {
	r.once.Do(func() {
		r.stop()
		r.Table.End(relay.Killed)
		if err := <-r.done; err != nil {
			panic(err)
		}
	})
}

// until waits until n clients are left. That the last line of a client's handler
// has run is no event that could be waited for.
func (r *running) until(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); r.Table.Len() > n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d clients are left, want %d", r.Table.Len(), n)
		}
	}
}

func (r *running) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// echo sends back what it gets.
func echo(_ context.Context, c *Client) { io.Copy(c, c.Socket) }

func ask(t *testing.T, c net.Conn, line string) string {
	t.Helper()
	if _, err := io.WriteString(c, line); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(line))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}
