package proxyproto

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// v2 is a header with these bytes behind its length.
func v2(cmd, fam byte, body []byte) []byte {
	return append(head(cmd, fam, len(body)), body...)
}

// head is the first 16 bytes.
func head(cmd, fam byte, n int) []byte {
	return binary.BigEndian.AppendUint16(append([]byte(signatureV2), cmd, fam), uint16(n))
}

// body is addresses and TLVs of a header of family TCP4 or UDP4.
func body(tlvs ...byte) []byte {
	return append([]byte{192, 0, 2, 1, 203, 0, 113, 9, 0, 1, 0xff, 0xff}, tlvs...)
}

var (
	src4 = netip.MustParseAddrPort("192.0.2.1:1")
	dst4 = netip.MustParseAddrPort("203.0.113.9:65535")
)

func equal(a, b Header) bool {
	return a.Local == b.Local && a.UDP == b.UDP && a.Src == b.Src && a.Dst == b.Dst && bytes.Equal(a.TLVs, b.TLVs)
}

// CASES 3c/8 to 3c/10: every command and family, with lengths at their borders.
func TestParseV2EveryFamily(t *testing.T) {
	for c := range 256 {
		for f := range 256 {
			for _, n := range []int{0, 11, 12, 35, 36, 215, 216, 4096, 4097, 65535} {
				checkFamily(t, byte(c), byte(f), n)
			}
		}
	}
}

var zeros = make([]byte, lenV2+1<<16)

func checkFamily(t *testing.T, cmd, fam byte, n int) {
	least, ok := map[byte]int{0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36}[fam]
	local := fam == 0 || cmd == 0x20
	switch {
	case cmd != 0x20 && cmd != 0x21, n > 4096:
		ok = false
	case fam == 0, cmd == 0x20 && (fam == 0x31 || fam == 0x32):
		ok = true
	case cmd == 0x21:
		ok = ok && n >= least
	}
	b := zeros[:lenV2+n]
	copy(b, head(cmd, fam, n))
	if !local && n >= least+lenTLV { // one TLV fills what the addresses leave
		size := b[lenV2+least+1:][:2]
		binary.BigEndian.PutUint16(size, uint16(n-least-lenTLV))
		defer clear(size)
	}
	h, used, err := Parse(b)
	if (err == nil) != ok {
		t.Fatalf("command %#x, family %#x, length %d: got %v, want ok = %t", cmd, fam, n, err, ok)
	}
	if ok && (used != len(b) || h.Local != local || h.UDP != (!local && fam&0xf == 2) || h.Src.IsValid() == local || h.Dst.IsValid() == local) {
		t.Fatalf("command %#x, family %#x, length %d: got %+v, %d", cmd, fam, n, h, used)
	}
}

// CASES 3c/10: the first 16 bytes suffice to refuse what they claim. The header of
// 16 bytes with addresses, and the one of 28 for IPv6, are what go-mmproxy dies of.
func TestParseV2Early(t *testing.T) {
	for _, tt := range []struct {
		name string
		head []byte
	}{
		{"no addresses", head(cmdProxy, famTCP4, 0)},
		{"IPv4 addresses in IPv6", head(cmdProxy, famTCP6, 12)},
		{"length 4097", head(cmdProxy, famTCP4, 4097)},
		{"length 65535", head(cmdLocal, famUnspec, 65535)},
		{"a Unix socket", head(cmdProxy, famUnixStream, 216)},
	} {
		if _, _, err := Parse(tt.head); err == nil || err == ErrIncomplete {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	for i := range signatureV2 {
		b := []byte(signatureV2)
		b[i]++
		if _, _, err := Parse(b[:i+1]); err == nil || err == ErrIncomplete {
			t.Errorf("signature wrong at byte %d: got %v", i, err)
		}
	}
}

// CASES 3c/11.
func TestParseV2TLVs(t *testing.T) {
	sum := func(b []byte) []byte { // with the checksum in its last four bytes
		binary.BigEndian.PutUint32(b[len(b)-4:], 0)
		binary.BigEndian.PutUint32(b[len(b)-4:], sum(b, len(b)-4))
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"none", v2(cmdProxy, famTCP4, body()), true},
		{"of length 0", v2(cmdProxy, famTCP4, body(Authority, 0, 0)), true},
		{"one stray byte", v2(cmdProxy, famTCP4, body(4)), false},
		{"two stray bytes", v2(cmdProxy, famTCP4, body(4, 0)), false},
		{"two stray bytes behind one", v2(cmdProxy, famTCP4, body(4, 0, 1, 9, 4, 0)), false},
		{"length past the end", v2(cmdProxy, famTCP4, body(4, 0, 2, 9)), false},
		{"1300 NOOPs", v2(cmdProxy, famTCP4, body(bytes.Repeat([]byte{4, 0, 0}, 1300)...)), true},
		{"duplicate", v2(cmdProxy, famTCP4, body(Authority, 0, 1, 'a', Authority, 0, 1, 'b')), true},
		{"not UTF-8", v2(cmdProxy, famTCP4, body(Authority, 0, 2, 0xff, 0xfe)), true},
		{"SSL in SSL", v2(cmdProxy, famTCP4, body(0x20, 0, 11, 1, 0, 0, 0, 0, 0x20, 0, 3, 0x20, 0xff, 0xff)), true},
		{"checksum", sum(v2(cmdProxy, famTCP4, body(checksum, 0, 4, 0, 0, 0, 0))), true},
		{"wrong checksum", v2(cmdProxy, famTCP4, body(checksum, 0, 4, 0, 0, 0, 0)), false},
		{"short checksum", v2(cmdProxy, famTCP4, body(checksum, 0, 3, 0, 0, 0)), false},
		{"two checksums", sum(v2(cmdProxy, famTCP4, body(checksum, 0, 4, 0, 0, 0, 0, checksum, 0, 4, 0, 0, 0, 0))), false},
		{"of LOCAL", v2(cmdLocal, famTCP4, body(4, 0)), true},
		{"of UNSPEC", v2(cmdProxy, famUnspec, []byte{4}), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, n, err := Parse(append(tt.b, "rest"...))
			if (err == nil) != tt.ok || err == ErrIncomplete || tt.ok && n != len(tt.b) {
				t.Fatalf("got %+v, %d, %v", h, n, err)
			}
			if got := string(h.TLVs.Get(Authority)); tt.name == "duplicate" && got != "a" {
				t.Errorf("Authority: got %q, want the first", got)
			}
		})
	}
}

// What HAProxy 2.6 sends (send-proxy-v2 proxy-v2-options crc32c,unique-id). Bound to
// [::], as v4v6, it names IPv4 clients by mapped addresses.
func TestParseV2OfHAProxy(t *testing.T) {
	for _, tt := range []struct{ header, src string }{
		{"0d0a0d0a000d0a515549540a 2111001a 7f000001 7f000001 c190a029 030004 4593d4b8 050004 69642d37", "127.0.0.1:49552"},
		{"0d0a0d0a000d0a515549540a 21210032 00000000000000000000ffff7f000001 00000000000000000000ffff7f000001 9ddea02a" +
			"030004 ab8eb532 050004 69642d37", "127.0.0.1:40414"},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(tt.header, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		h, n, err := Parse(b)
		if err != nil || n != len(b) || h.Src.String() != tt.src || string(h.TLVs.Get(UniqueID)) != "id-7" {
			t.Errorf("got %+v, %d of %d, %v", h, n, len(b), err)
		}
		for i := range b {
			c := slices.Clone(b)
			c[i] ^= 2
			if h, _, err := Parse(c); err == nil && h.TLVs.Get(checksum) != nil {
				t.Errorf("byte %d changed: accepted as %+v", i, h)
			}
		}
	}
}

func TestAppendV2(t *testing.T) {
	v6 := netip.MustParseAddrPort("[2001:db8::2]:2")
	for _, h := range []Header{
		{Local: true},
		{Src: src4, Dst: dst4},
		{Src: v6, Dst: v6, UDP: true},
		{Src: src4, Dst: v6},
		{Src: v6, Dst: dst4, UDP: true},
		{Src: src4, Dst: dst4, TLVs: TLVs(nil).Append(Authority, []byte("example.com")).Append(UniqueID, nil)},
	} {
		t.Run(fmt.Sprint(h), func(t *testing.T) {
			got, n, err := Parse(AppendV2(nil, h))
			if err != nil || !equal(got, h) {
				t.Errorf("got %+v, %d, %v", got, n, err)
			}
		})
	}
	b := AppendV2([]byte("before"), Header{Src: src4, Dst: dst4, TLVs: TLVs(nil).Append(checksum, make([]byte, 4)).Append(4, nil)})
	if _, n, err := Parse(b[6:]); err != nil || n != len(b)-6 {
		t.Errorf("with a checksum: got %d, %v", n, err)
	}
}
