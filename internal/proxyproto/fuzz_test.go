package proxyproto

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func FuzzParse(f *testing.F) {
	h := Header{Src: src4, Dst: dst4}
	f.Add(append(AppendV1(nil, h), "payload"...))
	f.Add(AppendV1(nil, Header{Local: true}))
	f.Add(AppendV2(nil, Header{Local: true}))
	h.TLVs = TLVs(nil).Append(checksum, make([]byte, 4)).Append(Authority, []byte("example.com"))
	f.Add(append(AppendV2(nil, h), "payload"...))
	f.Add(AppendV2(nil, Header{UDP: true, Src: src4, Dst: dst4}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if err != nil {
			checkPrefixes(t, b, err)
			return
		}
		if n <= 0 || n > len(b) || h.Local == h.Src.IsValid() || h.Local == h.Dst.IsValid() {
			t.Fatalf("%q: got %+v, %d", b, h, n)
		}
		for i := range n {
			if _, _, err := Parse(b[:i]); err != ErrIncomplete {
				t.Fatalf("%q: %d of %d bytes: got %v", b, i, n, err)
			}
		}
		got, rest, err := read(iotest.OneByteReader(bytes.NewReader(b)))
		if err != nil || !equal(got, h) || len(rest) != 0 {
			t.Fatalf("%q in single bytes: got %+v, %q, %v, want %+v", b, got, rest, err, h)
		}
		checkFormat(t, h)
	})
}

// checkPrefixes checks that what Read sees of b on its way to err is the same.
func checkPrefixes(t *testing.T, b []byte, err error) {
	_, _, rerr := read(iotest.OneByteReader(bytes.NewReader(b)))
	switch {
	case rerr == nil:
		t.Fatalf("%q: %v, but not in single bytes", b, err)
	case err == ErrIncomplete && rerr != io.EOF && !errors.Is(rerr, io.ErrUnexpectedEOF):
		t.Fatalf("%q: %v, in single bytes %v", b, err, rerr)
	}
}

func checkFormat(t *testing.T, h Header) {
	// The checksum depends on how the addresses are written, of which there are
	// two ways when one is mapped.
	h.TLVs.sign(AppendV2(nil, h))
	got, _, err := Parse(AppendV2(nil, h))
	got.TLVs, h.TLVs = unsigned(got.TLVs), unsigned(h.TLVs)
	if err != nil || !equal(got, h) {
		t.Fatalf("version 2: got %+v, %v, want %+v", got, err, h)
	}
	if h.UDP || h.Src.Addr().Is4() != h.Dst.Addr().Is4() {
		return
	}
	got, _, err = Parse(AppendV1(nil, h))
	h.TLVs = nil
	if err != nil || !equal(got, h) {
		t.Fatalf("version 1: got %+v, %v, want %+v", got, err, h)
	}
}

// unsigned is t with the value of a checksum zero.
func unsigned(t TLVs) TLVs {
	t = bytes.Clone(t)
	if sum := t.Get(checksum); sum != nil {
		copy(sum, make([]byte, len(sum)))
	}
	return t
}

func FuzzParseSimple(f *testing.F) {
	f.Add(AppendSimple(nil, Header{Src: src4, Dst: dst4}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseSimple(b)
		if err != nil {
			return
		}
		if n != lenSimple || !h.Src.IsValid() || !h.Dst.IsValid() || !h.UDP || h.Local {
			t.Fatalf("%q: got %+v, %d", b, h, n)
		}
		if got, _, err := ParseSimple(AppendSimple(nil, h)); err != nil || !equal(got, h) {
			t.Fatalf("got %+v, %v, want %+v", got, err, h)
		}
	})
}
