package egress

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"swivel/relay"
)

// metered is an upstream connection as net/http's transport sees it: its bytes are
// counted, and it ends when it has been idle. A tunnel does this at no cost, see
// package relay; here the bytes pass through net/http anyway.
type metered struct {
	net.Conn               // Not *net.TCPConn, whose ReadFrom would go past Write.
	idle     time.Duration // zero: none
	up, down atomic.Int64
	err      firstError // of Read
	released bool       // from now on there is nothing to read: the connection is a tunnel's

	client *forwardConn
	begin  sync.Once
	begun  chan struct{} // closed by the first Write

	mu sync.Mutex
	// guards
	settled     bool // whether there is a response is known
	interrupted bool
	timer       *time.Timer
}

func newMetered(up net.Conn, f *forwarder) *metered {
	return &metered{Conn: up, idle: f.Limits.Idle, client: f.client, begun: make(chan struct{})}
}

// Read does not return before something was written. What an origin says unasked
// net/http would put into the standard logger.
func (m *metered) Read(p []byte) (int, error) {
	<-m.begun
	if m.released {
		return 0, io.EOF
	}
	m.touch()
	n, err := m.Conn.Read(p)
	m.down.Add(int64(n))
	if err == io.EOF && relay.WasReset(m.Conn) {
		err = syscall.ECONNRESET
	}
	m.err.set(err)
	return n, err
}

// Write does not fail when upstream has reset the connection: it may have answered
// before, and net/http would not look for that any more. Read tells what it was.
func (m *metered) Write(p []byte) (int, error) {
	m.begin.Do(func() { close(m.begun) })
	m.touch()
	m.up.Add(int64(len(p))) // before: the response may be there before Write returns
	n, err := m.Conn.Write(p)
	m.up.Add(int64(n - len(p)))
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return len(p), nil
	}
	return n, err
}

// Close is what net/http does when there will be no response, too. Before it says
// so it waits for more of the request, from a client that may be waiting itself.
func (m *metered) Close() error {
	m.mu.Lock()
	if !m.settled && m.timer == nil {
		m.timer = time.AfterFunc(lingerTime, m.interrupt)
	}
	m.mu.Unlock()
	err := m.Conn.Close()
	m.begin.Do(func() { close(m.begun) })
	return err
}

func (m *metered) interrupt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.settled {
		m.interrupted = true
		m.client.Duplex.SetReadDeadline(time.Unix(1, 0))
	}
}

// settle is called when there is a response, or none.
func (m *metered) settle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settled = true
	if m.timer != nil {
		m.timer.Stop()
	}
}

var errResponse = errors.New("no HTTP response")

// explain returns why there was no response. What net/http has to say depends on
// when it notices, and may be no more than that it closed the connection.
func (m *metered) explain(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	rerr, vague := m.err.get(), m.interrupted || errors.Is(err, net.ErrClosed)
	switch {
	case rerr != nil && (vague || m.down.Load() == 0):
		return rerr
	case vague:
		return errResponse
	default:
		return err
	}
}

func (m *metered) touch() {
	if m.idle > 0 {
		m.SetDeadline(time.Now().Add(m.idle))
	}
}

// firstError keeps the first error that it is given, by any goroutine.
type firstError struct{ first atomic.Pointer[error] }

func (f *firstError) set(err error) {
	if err != nil {
		f.first.CompareAndSwap(nil, &err)
	}
}

func (f *firstError) get() error {
	if err := f.first.Load(); err != nil {
		return *err
	}
	return nil
}
