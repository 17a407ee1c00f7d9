package proxyproto

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// TLVs is the part of a header of version 2 behind the addresses: additional
// information, each a type, a length of two bytes, and a value.
type TLVs []byte

// Types of TLVs that have a meaning here.
const (
	Authority = 0x02 // the host name that the client asked for
	checksum  = 0x03 // CRC32c of the header
	UniqueID  = 0x05 // of the connection, up to 128 bytes
)

const lenTLV = 3 // type and length

var (
	errTLV      = errors.New("proxyproto: a TLV does not fit into the header")
	errChecksum = errors.New("proxyproto: wrong checksum")
)

// Get returns the value of the first TLV of type typ, or nil. The peer may have
// put anything into it.
func (t TLVs) Get(typ byte) []byte {
	for n := t.first(); n > 0; n = t.first() {
		if t[0] == typ {
			return t[lenTLV:n]
		}
		t = t[n:]
	}
	return nil
}

// Append appends a TLV to t.
func (t TLVs) Append(typ byte, value []byte) TLVs {
	t = append(t, typ)
	t = binary.BigEndian.AppendUint16(t, uint16(len(value)))
	return append(t, value...)
}

// first is the length of the first TLV, 0 if t does not hold all of it.
func (t TLVs) first() int {
	if len(t) < lenTLV {
		return 0
	}
	n := lenTLV + int(binary.BigEndian.Uint16(t[1:]))
	if n > len(t) {
		return 0
	}
	return n
}

// check judges the framing of t, and its checksum if there is one. t is the end of
// header.
func (t TLVs) check(header []byte) error {
	at := 0 // of the checksum in header
	for len(t) > 0 {
		n := t.first()
		switch {
		case n == 0:
			return errTLV
		case t[0] != checksum:
		case n != lenTLV+crc32.Size || at != 0:
			return errChecksum
		default:
			at = len(header) - len(t) + lenTLV
		}
		t = t[n:]
	}
	if at != 0 && binary.BigEndian.Uint32(header[at:]) != sum(header, at) {
		return errChecksum
	}
	return nil
}

// sign puts the right checksum where there is one in t, the end of header.
func (t TLVs) sign(header []byte) {
	for n := t.first(); n > 0; n = t.first() {
		if at := len(header) - len(t) + lenTLV; t[0] == checksum && n == lenTLV+crc32.Size {
			binary.BigEndian.PutUint32(header[at:], sum(header, at))
			return
		}
		t = t[n:]
	}
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zero       = make([]byte, crc32.Size)
)

// sum is the checksum of header with the four bytes at at counted as zero.
func sum(header []byte, at int) uint32 {
	s := crc32.Update(0, castagnoli, header[:at])
	s = crc32.Update(s, castagnoli, zero)
	return crc32.Update(s, castagnoli, header[at+crc32.Size:])
}
