package sni

import (
	"errors"
	"io"
)

// Buffer is the first bytes of a connection, read to decide what to do with it. It
// grows with what has arrived: never to more than twice that, whatever a length
// field claims. The zero Buffer is empty.
type Buffer []byte

// firstRead is room for the hello of a browser of today, 1.8 KB, in one read.
const firstRead = 2 << 10

// More reads once from r, and returns an error when nothing was read.
func (b *Buffer) More(r io.Reader) error {
	have := len(*b)
	if have == cap(*b) {
		grown := make([]byte, have, max(firstRead, 2*have))
		copy(grown, *b)
		*b = grown
	}
	n, err := r.Read((*b)[have:cap(*b)])
	*b = (*b)[:have+n]
	if n > 0 {
		return nil
	}
	if err == nil {
		return errors.New("nothing was read") // io.Reader discourages that
	}
	return err
}
