package relay

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
)

// hidden has no WriteTo and no ReadFrom.
type (
	hiddenReader struct{ io.Reader }
	hiddenWriter struct{ io.Writer }
)

func TestConnReplays(t *testing.T) {
	body := random(100_000)
	for _, size := range []int{0, 1, 2, 100, bufferSize, 64 << 10} {
		all := append(random(size), body...)
		for _, tt := range []struct {
			name string
			read func(t *testing.T, c *Conn) []byte
		}{
			{"Read", func(t *testing.T, c *Conn) []byte {
				b, err := io.ReadAll(hiddenReader{c})
				if err != nil {
					t.Error(err)
				}
				return b
			}},
			{"one byte at a time", func(t *testing.T, c *Conn) []byte {
				b, err := io.ReadAll(iotest.OneByteReader(c))
				if err != nil {
					t.Error(err)
				}
				return b
			}},
			{"a byte, then WriteTo", func(t *testing.T, c *Conn) []byte {
				var first [1]byte
				if _, err := c.Read(first[:]); err != nil {
					t.Error(err)
				}
				b := bytes.NewBuffer(first[:])
				if _, err := io.Copy(b, c); err != nil {
					t.Error(err)
				}
				return b.Bytes()
			}},
			{"WriteTo a Buffer", func(t *testing.T, c *Conn) []byte {
				var b bytes.Buffer
				n, err := io.Copy(&b, c)
				if err != nil || n != int64(b.Len()) {
					t.Errorf("Copy = %d, %v; the buffer has %d", n, err, b.Len())
				}
				return b.Bytes()
			}},
			{"WriteTo a Writer", func(t *testing.T, c *Conn) []byte {
				var b bytes.Buffer
				if _, err := io.Copy(hiddenWriter{&b}, c); err != nil {
					t.Error(err)
				}
				return b.Bytes()
			}},
		} {
			t.Run(fmt.Sprintf("%s, head of %d", tt.name, size), func(t *testing.T) {
				peer, c := tcpPair(t)
				go func() {
					mustWrite(t, peer, all[size:])
					mustCloseWrite(t, peer)
				}()
				wantSame(t, tt.read(t, NewConn(c, all[:size])), all)
			})
		}
	}
}

func TestConnCopy(t *testing.T) {
	const size = 4 << 20
	head := random(1000)
	all := append(head[:1000:1000], random(size)...)

	for _, tt := range []struct {
		name    string
		head    int
		splices bool
		copy    func(dst, src *Conn) (int64, error)
	}{
		{"Conn to Conn", 1000, true, func(dst, src *Conn) (int64, error) { return io.Copy(dst, src) }},
		{"Conn to TCPConn", 1000, true, func(dst, src *Conn) (int64, error) { return io.Copy(dst.TCP, src) }},
		{"TCPConn to Conn", 0, true, func(dst, src *Conn) (int64, error) { return io.Copy(dst, src.TCP) }},
		{"ReadFrom a Conn", 1000, true, func(dst, src *Conn) (int64, error) { return dst.ReadFrom(src) }},
		{"ReadFrom a TCPConn", 0, true, func(dst, src *Conn) (int64, error) { return dst.ReadFrom(src.TCP) }},
		{"ReadFrom a Reader", 1000, false, func(dst, src *Conn) (int64, error) { return dst.ReadFrom(hiddenReader{src}) }},
		{"ReadFrom a LimitedReader", 1000, false, func(dst, src *Conn) (int64, error) {
			return io.CopyN(dst, src, 1000+size)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := all[1000-tt.head:]
			once := func() (relayed int) {
				from, in := tcpPair(t)
				out, to := tcpPair(t)
				before := written(t)
				go func() {
					mustWrite(t, from, all[1000:])
					mustCloseWrite(t, from)
				}()
				got := make(chan []byte)
				go func() {
					b, _ := io.ReadAll(to)
					got <- b
				}()
				n, err := tt.copy(NewConn(out, nil), NewConn(in, want[:tt.head]))
				if err != nil || n != int64(len(want)) {
					t.Errorf("copied %d, %v; want %d", n, err, len(want))
				}
				mustCloseWrite(t, out)
				wantSame(t, <-got, want)
				return written(t) - before - size
			}
			relayed := once()
			// A source that a busy machine lets send in dribbles is copied for longer.
			for tries := 1; tt.splices && relayed >= size/8 && tries < 4; tries++ {
				relayed = once()
			}
			if spliced := relayed < size/8; spliced != tt.splices {
				t.Errorf("wrote %d of %d bytes itself; spliced = %t, want %t", relayed, size, spliced, tt.splices)
			}
		})
	}
}
