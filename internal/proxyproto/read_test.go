package proxyproto

import (
	"fmt"
	"io"
)

// firstRead is the size of the first read: all of a header without TLVs, and of
// most that have some.
const firstRead = 256

// read reads from r until Parse has a header, and returns it with what was read
// beyond it. Both share a buffer that grows with what has arrived, not with the
// length that the header claims.
//
// The error of a stream that ends within a header is io.ErrUnexpectedEOF, of one
// that ends before it io.EOF. The caller sets a deadline.
func read(r io.Reader) (h Header, rest []byte, err error) {
	buf := make([]byte, 0, firstRead)
	for {
		n, rerr := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		h, n, err := Parse(buf)
		switch {
		case err == nil:
			return h, buf[n:], nil
		case err != ErrIncomplete:
			return Header{}, nil, err
		case rerr == io.EOF && len(buf) > 0:
			return Header{}, nil, fmt.Errorf("proxyproto: %w", io.ErrUnexpectedEOF)
		case rerr != nil:
			return Header{}, nil, rerr
		case len(buf) == cap(buf):
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
	}
}
