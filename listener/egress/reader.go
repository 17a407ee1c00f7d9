package egress

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"swivel/relay"
)

// maxHead bounds the head of a CONNECT request, and so the memory of a client
// that is not served yet.
const maxHead = 8 << 10

var (
	errTooBig  = errors.New("head is larger than 8 KiB")
	errLineEnd = malformed("line end")

	// errGone is wrapped when the connection ended or broke: there is nobody to
	// answer. A deadline that has passed is no such case.
	errGone = errors.New("client has gone")
)

// reader reads the head of a connection. buf is what was read and not used yet;
// it grows with what arrives.
type reader struct {
	c   net.Conn
	buf []byte
}

// more reads at least one byte more. When there is no room it returns errTooBig.
func (r *reader) more() error {
	if len(r.buf) == maxHead {
		return errTooBig
	}
	if len(r.buf) == cap(r.buf) {
		grown := make([]byte, len(r.buf), min(max(1<<10, 2*cap(r.buf)), maxHead))
		copy(grown, r.buf)
		r.buf = grown
	}
	n, err := r.c.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	switch {
	case n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	default:
		return fmt.Errorf("%w: %w", errGone, err)
	}
}

// need reads until there are n bytes.
func (r *reader) need(n int) error {
	for len(r.buf) < n {
		if err := r.more(); err != nil {
			return err
		}
	}
	return nil
}

// take returns the first n bytes, which need has read, and goes on behind them.
// They are valid until the next read.
func (r *reader) take(n int) []byte {
	b := r.buf[:n:n]
	r.buf = r.buf[n:]
	return b
}

// line reads until there is a whole line, and returns it without its CRLF. It
// stays in buf. A line that ends in a bare LF is errLineEnd, RFC 9112 section 2.2.
func (r *reader) line() ([]byte, error) {
	end, err := r.lineEnd(0)
	if err != nil {
		return nil, err
	}
	return r.buf[:end-2], nil
}

// lineEnd reads until there is a line that starts at from, and returns where the
// next one starts.
func (r *reader) lineEnd(from int) (int, error) {
	for scanned := from; ; {
		if i := bytes.IndexByte(r.buf[scanned:], '\n'); i >= 0 {
			end := scanned + i
			if end == from || r.buf[end-1] != '\r' {
				return 0, errLineEnd
			}
			return end + 1, nil
		}
		scanned = len(r.buf)
		if err := r.more(); err != nil {
			return 0, err
		}
	}
}

// head reads until there is a blank line, and returns everything before it, each
// line with its CRLF. It goes on behind the blank line.
func (r *reader) head() ([]byte, error) {
	for at := 0; ; {
		next, err := r.lineEnd(at)
		if err != nil {
			return nil, err
		}
		if next-at == len("\r\n") {
			return r.take(next)[:at], nil
		}
		at = next
	}
}

// requestLine reads the line that an HTTP request begins with. One empty line in
// front of it is skipped, RFC 9112 section 2.2. errProtocol means that this is no
// HTTP, and that an HTTP answer would not be understood.
func (r *reader) requestLine() (requestLine, error) {
	first, err := r.line()
	if err == nil && len(first) == 0 {
		r.take(len(crlf))
		first, err = r.line()
	}
	switch {
	case err != nil:
		return requestLine{}, err
	case bytes.HasPrefix(first, []byte("SSH-")), bytes.HasPrefix(first, []byte("PROXY ")):
		return requestLine{}, errProtocol
	case len(first) == 0:
		// A PROXY header of version 2 begins with two empty lines and a NUL.
		if err := r.need(len("\r\n\x00")); err != nil {
			return requestLine{}, err
		}
		if r.buf[2] == 0 {
			return requestLine{}, errProtocol
		}
	}
	return parseRequestLine(first)
}

// rest returns the connection with what was read of it and not used in front. see,
// if there is one, sees what is read from it first.
func (r *reader) rest(see relay.Screen) relay.Duplex {
	switch c := r.c.(type) {
	case relay.TCP:
		if len(r.buf) == 0 && see == nil {
			return c
		}
		rest := relay.NewConn(c, r.buf)
		if see != nil {
			rest.Screen(see)
		}
		return rest
	case *tls.Conn:
		rest := &tlsConn{c, io.MultiReader(bytes.NewReader(r.buf), c)}
		switch {
		case see != nil:
			rest.r = relay.ScreenReader(rest.r, see)
		case len(r.buf) == 0:
			return c
		}
		return rest
	default:
		panic("egress: neither TCP nor TLS")
	}
}

// tlsConn is a TLS connection of which some was read already.
type tlsConn struct {
	*tls.Conn
	r io.Reader
}

func (c *tlsConn) Read(p []byte) (int, error) { return c.r.Read(p) }
