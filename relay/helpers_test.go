package relay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come. Nothing is asserted of
// how soon it does.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("swivel/relay.(*parkingLot).attend"))
}

// tcpPair returns both ends of a loopback connection.
func tcpPair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err = ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	for _, c := range []*net.TCPConn{a, b} {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// tunnel is a Pipe between two peers.
type tunnel struct {
	*Pipe
	client, server *net.TCPConn // the peers
	in, out        *Socket      // the Pipe's ends: of client, of server
	ended          chan struct{}
	reason         Reason
	err            error
}

// newTunnel returns a tunnel between Sockets whose Run has not been called. A head
// that is not nil is replayed in front of what the client sends.
func newTunnel(t testing.TB, head []byte, l Limits) *tunnel {
	t.Helper()
	tn := &tunnel{ended: make(chan struct{})}
	tn.in, tn.client = acceptedPair(t)
	tn.out, tn.server = socketPair(t)
	tn.Pipe = NewPipe(NewConn(tn.in, head), tn.out, l)
	return tn
}

// start calls Run. The test fails if it has not returned when the test ends.
func (tn *tunnel) start(t testing.TB) *tunnel {
	t.Helper()
	go func() {
		tn.reason, tn.err = tn.Run()
		close(tn.ended)
	}()
	t.Cleanup(func() {
		tn.client.Close()
		tn.server.Close()
		tn.wait(t)
	})
	return tn
}

func (tn *tunnel) wait(t testing.TB) {
	t.Helper()
	select {
	case <-tn.ended:
	case <-time.After(patience):
		t.Fatal("Run has not returned")
	}
}

// wantEnd waits for Run and checks what it returned: an error or none.
func (tn *tunnel) wantEnd(t testing.TB, want Reason, wantErr bool) {
	t.Helper()
	tn.wait(t)
	if tn.reason != want || (tn.err != nil) != wantErr {
		t.Errorf("Run() = %q, %v; want %q, error: %t", tn.reason, tn.err, want, wantErr)
	}
}

// isCut reports whether one of the sides has failed.
func (tn *tunnel) isCut() bool {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	return tn.cause != nil && tn.cause.failed != nil
}

// eventually waits for a condition for which the kernel has no event.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// wantReset reads c to its end, which must be RST, and returns what came before.
func wantReset(t testing.TB, c io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(c)
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after %d bytes read error = %v, want ECONNRESET", len(b), err)
	}
	return b
}

// wantGone waits until c has been reset, or closed by us. Reading does not tell
// if FIN came first.
func wantGone(t testing.TB, c net.Conn) {
	t.Helper()
	eventually(t, "RST", func() bool {
		info, err := tcpInfo(c)
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		return err != nil || info.State == tcpClose
	})
}

// wantRead reads all of want and nothing more.
func wantRead(t testing.TB, r io.Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("read %d of %d bytes: %v", n, len(want), err)
	}
	wantSame(t, got, want)
}

// wantAll reads want and EOF.
func wantAll(t testing.TB, r io.Reader, want []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(got), err)
	}
	wantSame(t, got, want)
}

func wantSame(t testing.TB, got, want []byte) {
	t.Helper()
	if len(got) != len(want) || sha256.Sum256(got) != sha256.Sum256(want) {
		t.Fatalf("got %d bytes, want %d; same up to %d", len(got), len(want), commonPrefix(got, want))
	}
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func mustWrite(t testing.TB, w io.Writer, p []byte) {
	t.Helper()
	if _, err := w.Write(p); err != nil {
		t.Error(err) // not Fatal: may be called by another goroutine
	}
}

func mustCloseWrite(t testing.TB, c interface{ CloseWrite() error }) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
}

// reset closes c so that its peer sees RST.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// unread returns how many bytes c's receive queue holds.
func unread(t testing.TB, c *net.TCPConn) (n int) {
	t.Helper()
	control(t, c, func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.SIOCINQ)
		return err
	})
	return n
}

// control calls f with c's descriptor.
func control(t testing.TB, c syscall.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil || ferr != nil {
		t.Error(err, ferr)
	}
}

// sendBuffer is [net.TCPConn.SetWriteBuffer].
func sendBuffer(t testing.TB, c syscall.Conn, size int) {
	t.Helper()
	control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size) })
}

// random returns n bytes that no other call returns.
func random(n int) []byte {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	b := make([]byte, n)
	rand.NewChaCha8(seed).Read(b)
	return b
}

// descriptors counts the open descriptors of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(d)
}

// written returns how many bytes this process has written; splice(2) does not
// count.
func written(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("wchar: "))
	line, _, _ := strings.Cut(string(rest), "\n")
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// emptyPool closes the idle pipes and, for the time of the test, limits how many
// may exist.
func emptyPool(t testing.TB, limit int) {
	t.Helper()
	drain := func() {
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		pipes.unused = len(pipes.idle)
		pipes.paused = time.Time{}
	}
	drain()
	pipes.trim()
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	old := pipes.max
	pipes.max = limit
	t.Cleanup(func() {
		drain()
		pipes.trim()
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		pipes.max = old
	})
}

// openPipes returns how many kernel pipes exist.
func openPipes() int {
	pipes.mu.Lock()
	defer pipes.mu.Unlock()
	return pipes.open
}
