package exit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// RFC 1928 and RFC 1929.
const (
	socksVersion  = 5
	socksNoAuth   = 0
	socksPassword = 2
	socksNoMethod = 0xff

	passwordVersion = 1
	commandConnect  = 1

	addrIPv4 = 1
	addrName = 3
	addrIPv6 = 4
)

var errSOCKS = errors.New("not a SOCKS5 answer")

// socks asks for a tunnel over c. Each answer has a length that is known before it
// is read, so that nothing is read of what follows.
func (p *Proxy) socks(c net.Conn, r *Request) (*Tunnel, error) {
	if err := p.socksLogin(c, r); err != nil {
		return nil, err
	}
	b := []byte{socksVersion, commandConnect, 0}
	if p.Names && r.Name != "" {
		b = append(b, addrName, byte(len(r.Name)))
		b = append(b, r.Name...)
	} else if a := r.Addr.Addr().Unmap(); a.Is4() {
		b = append(append(b, addrIPv4), a.AsSlice()...)
	} else {
		b = append(append(b, addrIPv6), a.AsSlice()...)
	}
	if _, err := c.Write(binary.BigEndian.AppendUint16(b, r.Addr.Port())); err != nil {
		return nil, err
	}
	return readReply(c)
}

// socksLogin agrees on a way to say who we are, and says it.
func (p *Proxy) socksLogin(c net.Conn, r *Request) error {
	methods := []byte{socksVersion, 1, socksNoAuth}
	if p.User != "" {
		methods = []byte{socksVersion, 2, socksNoAuth, socksPassword}
	}
	chosen, err := exchange(c, methods)
	switch {
	case err != nil:
		return err
	case chosen[0] != socksVersion:
		return errSOCKS
	case chosen[1] == socksNoAuth:
		return nil
	case chosen[1] == socksNoMethod, chosen[1] != socksPassword, p.User == "":
		return &Refusal{Status: 407, What: "wants to know who we are in another way"}
	}
	user := p.user(r)
	b := append([]byte{passwordVersion, byte(len(user))}, user...)
	b = append(append(b, byte(len(p.Password))), p.Password...)
	verdict, err := exchange(c, b)
	switch {
	case err != nil:
		return err
	case verdict[1] != 0:
		return &Refusal{Status: 407, What: "wrong user or password"}
	}
	return nil
}

// exchange writes a message and reads an answer of two bytes.
func exchange(c net.Conn, message []byte) (answer [2]byte, err error) {
	if _, err = c.Write(message); err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	return answer, err
}

// What the replies of RFC 1928 section 6 mean in HTTP.
var replies = map[byte]Refusal{
	1: {Status: 502, What: "general failure"},
	2: {Status: 403, Token: "http_request_denied"},
	3: {Status: 502, Token: "destination_ip_unroutable"},
	4: {Status: 502, Token: "destination_ip_unroutable"},
	5: {Status: 502, Token: "connection_refused"},
	6: {Status: 504, Token: "connection_timeout"},
	7: {Status: 405, What: "CONNECT is not served"},
	8: {Status: 400, What: "the address type is not served"},
}

func readReply(c net.Conn) (*Tunnel, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	if head[0] != socksVersion {
		return nil, errSOCKS
	}
	if head[1] != 0 {
		r, ok := replies[head[1]]
		if !ok {
			r = Refusal{Status: 502, What: fmt.Sprintf("reply %d", head[1])}
		}
		return nil, &r
	}
	return readBound(c, head[3])
}

// readBound reads what the proxy says that it leaves by.
func readBound(c net.Conn, kind byte) (*Tunnel, error) {
	var n int
	switch kind {
	case addrIPv4:
		n = net.IPv4len
	case addrIPv6:
		n = net.IPv6len
	case addrName:
		var l [1]byte
		if _, err := io.ReadFull(c, l[:]); err != nil {
			return nil, err
		}
		n = int(l[0])
	default:
		return nil, errSOCKS
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	t := new(Tunnel)
	if a, ok := netip.AddrFromSlice(b[:n]); ok && kind != addrName && !a.IsUnspecified() {
		t.Source = a.Unmap().String()
	}
	return t, nil
}
