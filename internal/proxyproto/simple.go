package proxyproto

import "encoding/binary"

const (
	signatureSimple = "\x56\xec"

	lenSimple = 38
)

// ParseSimple parses the header of Cloudflare's Simple Proxy Protocol that the
// datagram b begins with, and returns how many bytes it takes.
// See https://developers.cloudflare.com/spectrum/reference/simple-proxy-protocol-header/.
func ParseSimple(b []byte) (h Header, n int, err error) {
	if err := startsWith(b, signatureSimple); err != nil {
		return Header{}, 0, err
	}
	if len(b) < lenSimple {
		return Header{}, 0, ErrIncomplete
	}
	return Header{
		UDP: true,
		Src: addrPort(b[2:18], b[34:]),
		Dst: addrPort(b[18:34], b[36:]),
	}, lenSimple, nil
}

// AppendSimple appends h, with valid addresses, as a header of the Simple Proxy
// Protocol to b.
func AppendSimple(b []byte, h Header) []byte {
	b = append(b, signatureSimple...)
	b = appendAddr(b, h.Src.Addr(), 16)
	b = appendAddr(b, h.Dst.Addr(), 16)
	b = binary.BigEndian.AppendUint16(b, h.Src.Port())
	return binary.BigEndian.AppendUint16(b, h.Dst.Port())
}
