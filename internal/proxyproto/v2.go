package proxyproto

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

const (
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
	lenV2       = 16   // signature, version and command, family, length
	maxV2       = 4096 // that the length field may say; a header that fills two pages has no use

	cmdLocal = 0x20 // version 2 in the upper half
	cmdProxy = 0x21

	famUnspec     = 0x00
	famTCP4       = 0x11
	famUDP4       = 0x12
	famTCP6       = 0x21
	famUDP6       = 0x22
	famUnixStream = 0x31
	famUnixDgram  = 0x32
)

// ParseV2 is Parse for those whom a header of version 1 cannot mean: receivers of
// datagrams.
func ParseV2(b []byte) (h Header, n int, err error) {
	if err := startsWith(b, signatureV2); err != nil {
		return Header{}, 0, err
	}
	if len(b) < lenV2 {
		return Header{}, 0, ErrIncomplete
	}
	cmd, fam := b[12], b[13]
	n = int(binary.BigEndian.Uint16(b[14:]))
	if err := checkV2(cmd, fam, n); err != nil {
		return Header{}, 0, err
	}
	if len(b) < lenV2+n {
		return Header{}, 0, ErrIncomplete
	}
	if cmd == cmdLocal || fam == famUnspec {
		return Header{Local: true}, lenV2 + n, nil // the rest is to be skipped, whatever it holds
	}
	h.UDP = fam == famUDP4 || fam == famUDP6
	header, addrs := b[:lenV2+n], b[lenV2:lenV2+n]
	l := addrLen(fam)
	h.Src = addrPort(addrs[:l], addrs[2*l:])
	h.Dst = addrPort(addrs[l:2*l], addrs[2*l+2:])
	h.TLVs = TLVs(addrs[2*l+4:])
	if err := h.TLVs.check(header); err != nil {
		return Header{}, 0, err
	}
	if len(h.TLVs) == 0 {
		h.TLVs = nil
	}
	return h, lenV2 + n, nil
}

// checkV2 judges the first 16 bytes, so that what is wrong there is refused before
// the rest has come.
func checkV2(cmd, fam byte, n int) error {
	if cmd != cmdLocal && cmd != cmdProxy {
		return fmt.Errorf("proxyproto: version and command %#02x", cmd)
	}
	if n > maxV2 {
		return fmt.Errorf("proxyproto: length %d exceeds %d", n, maxV2)
	}
	switch fam {
	case famUnspec:
		return nil
	case famUnixStream, famUnixDgram:
		if cmd == cmdLocal {
			return nil
		}
	case famTCP4, famUDP4, famTCP6, famUDP6:
		if cmd == cmdProxy && n < 2*addrLen(fam)+4 {
			return fmt.Errorf("proxyproto: length %d is too short for family %#02x", n, fam)
		}
		return nil
	}
	return fmt.Errorf("proxyproto: family %#02x", fam)
}

func addrLen(fam byte) int {
	if fam == famTCP4 || fam == famUDP4 {
		return 4
	}
	return 16
}

// addrPort reads an address of 4 or 16 bytes and the port that port begins with.
// HAProxy writes a pair of two families with the IPv4 one mapped into IPv6.
func addrPort(addr, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

// AppendV2 appends h as a header of version 2 to b. A checksum among the TLVs is
// given its right value. The TLVs must be those of a header that was parsed, or
// made by TLVs.Append, and with the addresses no longer than 4096 bytes.
func AppendV2(b []byte, h Header) []byte {
	start := len(b)
	b = append(b, signatureV2...)
	src, dst := plain(h.Src), plain(h.Dst)
	if h.Local || !src.IsValid() || !dst.IsValid() {
		return append(b, cmdLocal, famUnspec, 0, 0)
	}
	fam := byte(famTCP6)
	if src.Addr().Is4() && dst.Addr().Is4() {
		fam = famTCP4
	}
	l := addrLen(fam)
	if h.UDP {
		fam++
	}
	b = append(b, cmdProxy, fam)
	b = binary.BigEndian.AppendUint16(b, uint16(2*l+4+len(h.TLVs)))
	b = appendAddr(b, src.Addr(), l)
	b = appendAddr(b, dst.Addr(), l)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = append(b, h.TLVs...)
	TLVs(b[len(b)-len(h.TLVs):]).sign(b[start:])
	return b
}

// appendAddr appends a as l bytes: IPv4 as 16 is mapped.
func appendAddr(b []byte, a netip.Addr, l int) []byte {
	if l == 4 {
		a4 := a.As4()
		return append(b, a4[:]...)
	}
	a16 := a.As16()
	return append(b, a16[:]...)
}
