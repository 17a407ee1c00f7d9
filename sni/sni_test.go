package sni

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// hellos are what real clients send, each with its name.
func hellos(t testing.TB) map[string][]byte {
	all := map[string][]byte{}
	for _, v := range []struct {
		name     string
		min, max uint16
	}{
		{"1.0", tls.VersionTLS10, tls.VersionTLS10},
		{"1.1", tls.VersionTLS11, tls.VersionTLS11},
		{"1.2", tls.VersionTLS12, tls.VersionTLS12},
		{"1.3", tls.VersionTLS13, tls.VersionTLS13},
		{"any", tls.VersionTLS10, tls.VersionTLS13},
	} {
		all["crypto/tls "+v.name] = clientHello(t, &tls.Config{
			ServerName: "a.example.com", NextProtos: []string{"h2", "http/1.1"}, MinVersion: v.min, MaxVersion: v.max,
		})
	}
	for file, b := range captured(t) {
		all[file] = b
	}
	return all
}

func TestParse(t *testing.T) {
	for client, b := range hellos(t) {
		t.Run(client, func(t *testing.T) {
			h, err := parseAll(b)
			if err != nil || string(h.Name) != "a.example.com" || h.Size != len(b) || h.Records != 1 {
				t.Fatalf("got %+v, %v", h, err)
			}
			name, alpn, ok := seen(b)
			if name != string(h.Name) || !ok {
				t.Errorf("crypto/tls sees %q, %v", name, ok)
			}
			if got := list(h.ALPN); !slices.Equal(got, alpn) {
				t.Errorf("got %q, crypto/tls sees %q", got, alpn)
			}
		})
	}
}

// A browser's hello has a post-quantum key share and is larger than a segment.
func TestParseBrowser(t *testing.T) {
	b := captured(t)["chromium-156.bin"]
	h, err := parseAll(b)
	if err != nil || len(b) < 1500 || !h.ECH || !slices.Equal(list(h.ALPN), []string{"h2", "http/1.1"}) {
		t.Errorf("%d bytes: got %+v, %v", len(b), h, err)
	}
}

func list(p Protocols) (l []string) {
	for b := range p.All() {
		l = append(l, string(b))
	}
	return l
}

// A hello is whole when its last byte is there, and not before.
func TestParsePrefix(t *testing.T) {
	for client, b := range hellos(t) {
		t.Run(client, func(t *testing.T) {
			var p Parser
			for n := range len(b) {
				if _, err := p.Parse(b[:n]); err != ErrIncomplete {
					t.Fatalf("after %d of %d bytes: got %v", n, len(b), err)
				}
				if _, err := parseAll(b[:n]); err != ErrIncomplete {
					t.Fatalf("%d of %d bytes at once: got %v", n, len(b), err)
				}
			}
			if h, err := p.Parse(b); err != nil || string(h.Name) != "a.example.com" {
				t.Errorf("got %+v, %v", h, err)
			}
		})
	}
}

// 3e/5: the answer does not depend on the records, nor on the segments.
func TestParseCut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for client, b := range hellos(t) {
		t.Run(client, func(t *testing.T) {
			msg := message(body(b))
			cuts := [][]int{{1}, {2}, {3}, {4}, {5}, {100}}
			for range 50 {
				var sizes []int
				for range 20 {
					sizes = append(sizes, 1+r.IntN(300))
				}
				cuts = append(cuts, sizes)
			}
			// Twice, with the first record ending before each byte of the name.
			at := bytes.Index(msg, []byte("a.example.com"))
			for i := range len("a.example.com") {
				cuts = append(cuts, []int{at + i, len(msg)})
			}
			want, err := parseAll(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, sizes := range cuts {
				wantSame(t, records(msg, sizes...), want, sizes)
			}
		})
	}
}

func wantSame(t *testing.T, b []byte, want Hello, sizes []int) {
	t.Helper()
	var p Parser
	var buf Buffer
	in := iotest.OneByteReader(bytes.NewReader(b))
	for {
		h, err := p.Parse(buf)
		if err == ErrIncomplete {
			if err := buf.More(in); err != nil {
				t.Fatalf("records of %v: %v", sizes, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(h.Name, want.Name) || !bytes.Equal(h.ALPN, want.ALPN) || h.ECH != want.ECH || h.Size != len(b) {
			t.Fatalf("records of %v: got %+v, %v", sizes, h, err)
		}
		return
	}
}

// What comes behind the hello is neither looked at nor counted: 3e/10, 0-RTT data.
func TestParseRest(t *testing.T) {
	for client, b := range hellos(t) {
		for _, rest := range []string{"\x17\x03\x03\x00\x01x", "\x00", "\x16\x03\x03\x00\x00", strings.Repeat("x", 1<<17)} {
			h, err := parseAll(append(slices.Clone(b), rest...))
			if err != nil || h.Size != len(b) || string(h.Name) != "a.example.com" {
				t.Errorf("%s and %d bytes: got %+v, %v", client, len(rest), h, err)
			}
		}
	}
}

// 3e/2 to 3e/4: what is no hello, told as early as it can be.
func TestParseRecords(t *testing.T) {
	good := message(simple(name("a.example.com")).body())
	for _, tt := range []struct {
		name  string
		bytes string
		want  error
	}{
		{"plain HTTP", "GET", ErrNotTLS},
		{"SMTP", "EHLO x\r\n", ErrNotTLS},
		{"SSLv2", "\x80\x2e\x01\x00\x02", ErrNotTLS},
		{"zeros", "\x00\x00\x00\x00\x00", ErrNotTLS},
		{"an alert in front", "\x15\x03\x01\x00\x02\x01\x00" + string(records(good, maxRecord)), ErrMalformed},
		{"a ChangeCipherSpec in front", "\x14\x03\x01\x00\x01\x01" + string(records(good, maxRecord)), ErrMalformed},
		{"data in front", "\x17\x03\x01\x00\x01x" + string(records(good, maxRecord)), ErrMalformed},
		{"what begins like an alert", "\x15\x00", ErrNotTLS},
		{"version 0.0", "\x16\x00\x00\x00\x05", ErrMalformed},
		{"version 0x7f7f", "\x16\x7f", ErrMalformed},
		{"version 3.255", string(records(good, maxRecord)[:1]) + "\x03\xff" + string(records(good, maxRecord)[3:]), nil},
		{"an empty record", "\x16\x03\x01\x00\x00", ErrMalformed},
		{"an empty record in between", string(records(good[:10], 10)) + "\x16\x03\x01\x00\x00" + string(records(good[10:], maxRecord)), ErrMalformed},
		{"an alert in between", string(records(good[:10], 10)) + "\x15\x03\x01\x00\x02\x01\x00" + string(records(good[10:], maxRecord)), ErrMalformed},
		{"HTTP in between", string(records(good[:10], 10)) + "G", ErrMalformed},
		{"another version in between", string(records(good[:10], 10)) + "\x16\x02", ErrMalformed},
		{"a record of 2^14+1", "\x16\x03\x01\x40\x01", ErrTooLarge},
		{"a record of 2^14", "\x16\x03\x01\x40\x00", ErrIncomplete},
		{"a ServerHello", "\x16\x03\x01\x00\x40\x02", ErrMalformed},
		{"a HelloRequest", "\x16\x03\x01\x00\x04\x00\x00\x00\x00", ErrMalformed},
		{"a length of 0", "\x16\x03\x01\x00\x04\x01\x00\x00\x00", ErrMalformed},
		{"a length of 2^24-1", "\x16\x03\x01\x00\x40\x01\xff\xff\xff", ErrTooLarge},
		{"a length of 64 KiB", "\x16\x03\x01\x00\x40\x01\x01\x00\x00", ErrIncomplete},
		{"a length of 64 KiB + 1", "\x16\x03\x01\x00\x40\x01\x01\x00\x01", ErrTooLarge},
		{"a length of 64 KiB + 1, cut", "\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x03\x01\x00\x01", ErrTooLarge},
		{"4 bytes behind it in the record", string(records(append(slices.Clone(good), 0, 0, 0, 0), maxRecord)), ErrMalformed},
		{"4 bytes missing in it", string(records(message(body(records(good, maxRecord))[4:]), maxRecord)), ErrMalformed},
		{"nothing", "", ErrIncomplete},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseAll([]byte(tt.bytes)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// 3e/6: large hellos, over any records.
func TestParseLarge(t *testing.T) {
	for _, size := range []int{1800, 8 << 10, 15_900, 40_000, MaxHello - 1, MaxHello} {
		p := simple(name("a.example.com"), nil)
		if size > 40_000 { // extensions have no room for all of it
			p.suites = vec16(make([]byte, 20_000))
		}
		const padding = 21 // RFC 7685
		p.extensions[1] = extension(padding, make([]byte, size-len(p.body())-4))
		if len(p.body()) != size {
			t.Fatalf("a body of %d bytes, want %d", len(p.body()), size)
		}
		wantName(t, p.hello(), "a.example.com")
		wantName(t, records(message(p.body()), 1), "a.example.com")
		wantName(t, records(message(p.body()), 1000), "a.example.com")
	}
}

// A claimed length allocates nothing, and what is allocated is no more than twice
// what arrived.
func TestParseAllocates(t *testing.T) {
	claims := []byte("\x16\x03\x01\x40\x00\x01\x01\x00\x00")
	good := hellos(t)["crypto/tls 1.3"]
	var p Parser
	if n := testing.AllocsPerRun(100, func() {
		p = Parser{}
		p.Parse(claims)
		p = Parser{}
		p.Parse(good)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	var buf Buffer
	in := iotest.OneByteReader(io.MultiReader(bytes.NewReader(claims), bytes.NewReader(make([]byte, 100_000))))
	for buf.More(in) == nil {
		if limit := max(firstRead, 2*len(buf)); cap(buf) > limit {
			t.Fatalf("room for %d bytes after %d", cap(buf), len(buf))
		}
	}
}

func TestAlert(t *testing.T) {
	c := tls.Client(&recording{r: bytes.NewReader(UnrecognizedName.Record())}, &tls.Config{ServerName: "a.example.com"})
	err := c.Handshake()
	if a, ok := errors.AsType[tls.AlertError](err); ok && a == 112 {
		return
	}
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("crypto/tls says %v", err)
	}
}
