package sni

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// Agreement with crypto/tls on any bytes: where both see a hello they see the same
// name and protocols; what crypto/tls takes and Parse does not, Parse can say why.
func FuzzParse(f *testing.F) {
	for _, b := range hellos(f) {
		f.Add(b)
		f.Add(records(message(body(b)), 7))
	}
	f.Add(simple(name("a.example.com")).hello())
	f.Add(simple(name("EXAMPLE.com."), extension(extECH, []byte{0})).hello())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseAll(b)
		agree(t, b, h, err)
		gradually(t, b, h, err)
		if err == nil {
			recut(t, b, h)
		}
	})
}

func agree(t *testing.T, b []byte, h Hello, err error) {
	name, alpn, ok := seen(b)
	switch {
	case !ok:
	case err == nil:
		if string(h.Name) != strings.ToLower(name) || !slices.Equal(list(h.ALPN), alpn) {
			t.Fatalf("got %q %q, crypto/tls sees %q %q", h.Name, list(h.ALPN), name, alpn)
		}
	case errors.Is(err, ErrIncomplete), errors.Is(err, ErrNotTLS):
		t.Fatalf("%v, but crypto/tls sees %q", err, name)
	}
}

// gradually checks that the answer does not change when more arrives.
func gradually(t *testing.T, b []byte, want Hello, wantErr error) {
	var p Parser
	for n := range len(b) + 1 {
		h, err := p.Parse(b[:n])
		if err == ErrIncomplete {
			continue
		}
		if err != wantErr || !bytes.Equal(h.Name, want.Name) || h.Size != want.Size || h.Records != want.Records {
			t.Fatalf("after %d of %d bytes: %+v, %v; at once: %+v, %v", n, len(b), h, err, want, wantErr)
		}
		return
	}
	if wantErr != ErrIncomplete {
		t.Fatalf("incomplete; at once: %v", wantErr)
	}
}

// recut checks that the answer does not depend on the records.
func recut(t *testing.T, b []byte, want Hello) {
	var msg []byte
	for rest := b[:want.Size]; len(rest) > 0; {
		n := recordHeader + int(rest[3])<<8 + int(rest[4])
		msg = append(msg, rest[recordHeader:n]...)
		rest = rest[n:]
	}
	for _, size := range []int{1, 3, 100, maxRecord} {
		h, err := parseAll(records(msg, size))
		if err != nil || !bytes.Equal(h.Name, want.Name) || !bytes.Equal(h.ALPN, want.ALPN) {
			t.Fatalf("in records of %d: %+v, %v; want %+v", size, h, err, want)
		}
	}
}
