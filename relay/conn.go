package relay

import (
	"bytes"
	"io"
	"net"
	"syscall"
)

// TCP is a TCP connection: a *net.TCPConn or a *Socket.
type TCP interface {
	Duplex
	syscall.Conn
	SetLinger(sec int) error
}

// Conn is a TCP connection whose first bytes were already read, to decide where
// it goes. Reading from Conn replays them first. One goroutine reads at a time.
//
// It has WriteTo and ReadFrom, and there lies the data path that [io.Copy] finds;
// those of *net.TCPConn would skip the replayed bytes.
type Conn struct {
	TCP
	head *bytes.Reader // what was read while deciding; nil when there is none
	r    io.Reader     // head, then TCP

	screening *screening // nil unless Screen was called
}

// NewConn returns a Conn that reads head and then c. It keeps head until it has
// been read.
func NewConn(c TCP, head []byte) *Conn {
	if len(head) == 0 {
		return &Conn{TCP: c, r: c}
	}
	h := bytes.NewReader(head)
	return &Conn{TCP: c, head: h, r: io.MultiReader(h, c)}
}

// Screen makes see see what is read from c first, before it is relayed. It is called
// before that begins.
func (c *Conn) Screen(see Screen) {
	c.screening = &screening{see: see}
	c.r = &screenReader{r: c.r, screening: c.screening}
}

// Read implements [io.Reader].
func (c *Conn) Read(p []byte) (int, error) { return c.r.Read(p) }

// WriteTo implements [io.WriterTo]. To a *Conn or a TCP the kernel moves the bytes.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	var s stream
	_, err := transfer(w, c, &s)
	return s.moved.Load(), err
}

// ReadFrom implements [io.ReaderFrom]. From a *Conn or a TCP, and from what
// [net.TCPConn.ReadFrom] can splice or send, the kernel moves the bytes.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if tcpOf(r) == nil {
		return io.Copy(c.TCP, r)
	}
	var s stream
	_, err := transfer(c, r, &s)
	return s.moved.Load(), err
}

// takeHead returns the bytes that are still to be replayed. They are the caller's
// then; from now on c reads from the connection alone.
func (c *Conn) takeHead() []byte {
	if c.head == nil {
		return nil
	}
	var t taker
	c.head.WriteTo(&t)
	c.head, c.r = nil, c.TCP
	return t
}

// taker gets at what a bytes.Reader has left, which that writes at once. Contrary to
// what a Writer may do it keeps it: who gave it to NewConn has let go of it.
type taker []byte

func (t *taker) Write(p []byte) (int, error) {
	*t = p
	return len(p), nil
}

// tcpOf returns the TCP connection that c is, or nil.
//
// Not by an interface: a type that embeds *net.TCPConn and replays bytes of its
// own has all of its methods.
func tcpOf(c any) TCP {
	switch c := c.(type) {
	case *Conn:
		return c.TCP
	case *net.TCPConn:
		return c
	case *Socket:
		return c
	}
	return nil
}
