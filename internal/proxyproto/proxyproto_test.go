package proxyproto

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// CASES 3c/1, 3c/7: whatever the segments, the header and all that follows it.
func TestRead(t *testing.T) {
	long := AppendV2(nil, Header{Src: src4, Dst: dst4, TLVs: TLVs(nil).Append(4, make([]byte, maxV2-12-lenTLV))})
	const line = "PROXY TCP4 192.0.2.1 203.0.113.9 1 65535\r\n"
	for _, header := range []string{line, string(long)} {
		for name, cut := range map[string]func(io.Reader) io.Reader{
			"one segment": func(r io.Reader) io.Reader { return r },
			"bytes":       iotest.OneByteReader,
			"halves":      iotest.HalfReader,
			"EOF at once": iotest.DataErrReader,
		} {
			r := cut(strings.NewReader(header + line + "payload"))
			h, rest, err := read(r)
			if err != nil || h.Src != src4 || h.Dst != dst4 {
				t.Errorf("%s: got %+v, %v", name, h, err)
			}
			more, _ := io.ReadAll(r)
			if got := string(rest) + string(more); got != line+"payload" {
				t.Errorf("%s: got rest %.200q", name, got)
			}
		}
	}
}

func TestReadEnds(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		r    io.Reader
		want error
	}{
		{"at once", strings.NewReader(""), io.EOF},
		{"within", strings.NewReader("PROXY TCP4 192.0"), io.ErrUnexpectedEOF},
		{"by an error", io.MultiReader(strings.NewReader("PROXY"), iotest.ErrReader(broken)), broken},
		{"by a deadline", iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("PROXY"))), iotest.ErrTimeout},
		{"by what is no header", strings.NewReader("GET / HTTP/1.1\r\n"), errNoHeader},
	} {
		if _, _, err := read(tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// CASES 3c/10: memory is taken for what has arrived, not for what is claimed.
func TestReadAllocatesWhatArrives(t *testing.T) {
	claims := head(cmdProxy, famTCP4, maxV2)
	const rounds = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		if _, _, err := read(bytes.NewReader(append(claims, 1, 2, 3, 4))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / rounds; got > 1024 {
		t.Errorf("%d bytes for a header of which 20 have come", got)
	}
}

func TestSimple(t *testing.T) {
	v6 := netip.MustParseAddrPort("[2001:db8::2]:2")
	for _, h := range []Header{{UDP: true, Src: src4, Dst: dst4}, {UDP: true, Src: v6, Dst: v6}, {UDP: true, Src: v6, Dst: dst4}} {
		b := AppendSimple(nil, h)
		got, n, err := ParseSimple(append(b, "payload"...))
		if err != nil || n != lenSimple || len(b) != lenSimple || !equal(got, h) {
			t.Errorf("got %+v, %d, %v, want %+v", got, n, err, h)
		}
		for i := range b {
			if _, _, err := ParseSimple(b[:i]); err != ErrIncomplete {
				t.Errorf("%d bytes: got %v", i, err)
			}
		}
		b[1]++
		if _, _, err := ParseSimple(b); err == nil || err == ErrIncomplete {
			t.Errorf("wrong signature: got %v", err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	h := Header{Src: src4, Dst: dst4}
	signed := h
	signed.TLVs = TLVs(nil).Append(checksum, make([]byte, 4)).Append(Authority, []byte("example.com"))
	for _, bb := range []struct {
		name   string
		header []byte
	}{
		{"v1", AppendV1(nil, h)},
		{"v2", AppendV2(nil, h)},
		{"v2 with a checksum", AppendV2(nil, signed)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Parse(bb.header); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	h, buf := Header{Src: src4, Dst: dst4}, make([]byte, 0, 256)
	for name, f := range map[string]func([]byte, Header) []byte{"v1": AppendV1, "v2": AppendV2} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f(buf, h)
			}
		})
	}
}
