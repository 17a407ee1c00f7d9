package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"swivel/internal/auth"
	"swivel/internal/target"
)

// RFC 1928 and RFC 1929.
const (
	socksVersion  = 5
	socksNoAuth   = 0
	socksPassword = 2
	socksNoMethod = 0xff

	passwordVersion = 1
	passwordSuccess = 0
	passwordFailure = 1

	commandConnect = 1

	addrIPv4 = 1
	addrName = 3
	addrIPv6 = 4
)

// Requests that are refused with a reply of their own.
var (
	errSOCKS       = errors.New("malformed SOCKS5 message")
	errCommand     = errors.New("SOCKS5 command is not served")
	errAddressType = errors.New("SOCKS5 address type is not served")
	errNoMethod    = errors.New("no SOCKS5 authentication method in common")
)

// socks serves a SOCKS5 client. Messages that it sends without waiting for the
// answer to the one before are in s.in and change nothing.
func (s *session) socks(ctx context.Context) error {
	l := &s.c.Line
	l.Mode = "socks5"
	method, err := s.socksMethod()
	if err != nil {
		return s.socksRefuse(err, []byte{socksVersion, socksNoMethod})
	}
	var asked error // what is wrong with that is told in the reply
	if method == socksPassword {
		if asked, err = s.socksPassword(); err != nil {
			return s.socksRefuse(err, []byte{passwordVersion, passwordFailure})
		}
	}
	t, err := s.socksRequest()
	if err == nil {
		err = asked
	}
	if err != nil {
		return s.socksRefuse(err, socksReply(explain(err).reply(), netip.AddrPort{}))
	}
	up, err := s.open(ctx, l, t)
	if err != nil {
		return s.socksRefuse(err, socksReply(explain(err).reply(), netip.AddrPort{}))
	}
	s.tunnel(t, up, socksReply(repSuccess, bound(up)))
	return nil
}

// socksRefuse gives the answer to a client, and closes. A client that has gone, or
// took too long for a whole message, gets none and is the returned error.
func (s *session) socksRefuse(why error, answer []byte) error {
	f := explain(why)
	if errors.Is(why, errGone) || f.Status == 408 {
		return why
	}
	s.c.Line.Reason, s.c.Line.Err = f.reason(), why
	extendWrite(s.conn)
	s.conn.Write(answer)
	linger(s.conn)
	return nil
}

// socksMethod agrees on how the client says who it is: with a password where there
// are users. Elsewhere it need not, but who offers that too may ask for something in
// the user name.
func (s *session) socksMethod() (method byte, err error) {
	if err := s.in.need(2); err != nil {
		return 0, err
	}
	n := int(s.in.buf[1])
	if err := s.in.need(2 + n); err != nil {
		return 0, err
	}
	methods := s.in.take(2 + n)[2:]
	password, none := slices.Contains(methods, socksPassword), slices.Contains(methods, socksNoAuth)
	switch {
	case password && (s.Users != nil || none):
		method = socksPassword
	case s.Users == nil && none:
		method = socksNoAuth
	default:
		return 0, errNoMethod
	}
	return method, s.socksWrite([]byte{socksVersion, method})
}

// socksPassword is RFC 1929. What is wrong with that which the user name asks for is
// not for this exchange to tell, and is asked.
func (s *session) socksPassword() (asked, err error) {
	name, password, err := s.socksCredentials()
	if err != nil {
		return nil, err
	}
	err = s.login(&s.c.Line, name, password)
	if errors.Is(err, auth.ErrDenied) || errors.Is(err, auth.ErrThrottled) {
		return nil, err
	}
	asked = err
	return asked, s.socksWrite([]byte{passwordVersion, passwordSuccess})
}

// socksWrite sends an answer in the middle of the negotiation.
func (s *session) socksWrite(b []byte) error {
	if _, err := s.conn.Write(b); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

func (s *session) socksCredentials() (user, password string, err error) {
	if err := s.in.need(2); err != nil {
		return "", "", err
	}
	if s.in.buf[0] != passwordVersion || s.in.buf[1] == 0 && s.Users != nil {
		return "", "", errSOCKS
	}
	n := int(s.in.buf[1])
	if err := s.in.need(2 + n + 1); err != nil {
		return "", "", err
	}
	user = string(s.in.buf[2 : 2+n])
	m := int(s.in.buf[2+n])
	if m == 0 && s.Users != nil {
		return "", "", errSOCKS
	}
	if err := s.in.need(2 + n + 1 + m); err != nil {
		return "", "", err
	}
	return user, string(s.in.take(2 + n + 1 + m)[2+n+1:]), nil
}

// socksRequest reads the request. All of it is read before it is judged, so that
// the verdict does not depend on how it was cut into segments.
func (s *session) socksRequest() (t target.Target, err error) {
	if err := s.in.need(5); err != nil {
		return t, err
	}
	b := s.in.buf
	var n int // of the address
	switch {
	case b[0] != socksVersion || b[2] != 0:
		return t, errSOCKS
	case b[1] != commandConnect:
		return t, errCommand
	case b[3] == addrIPv4:
		n = 4
	case b[3] == addrIPv6:
		n = 16
	case b[3] == addrName:
		n = 1 + int(b[4])
	default:
		return t, errAddressType
	}
	if err := s.in.need(4 + n + 2); err != nil {
		return t, err
	}
	b = s.in.take(4 + n + 2)
	addr, port := b[4:4+n], binary.BigEndian.Uint16(b[4+n:])
	if b[3] == addrName {
		return target.ParseHost(string(addr[1:]), port)
	}
	ip, _ := netip.AddrFromSlice(addr)
	return target.FromAddrPort(netip.AddrPortFrom(ip, port))
}

// socksEarlyAnswer is an answer to a client that has sent no more than its methods.
func (s *session) socksEarlyAnswer(rep byte) []byte {
	switch method, err := s.socksMethod(); {
	case err != nil:
		return []byte{socksVersion, socksNoMethod}
	case method == socksPassword:
		return []byte{passwordVersion, passwordFailure}
	}
	return socksReply(rep, netip.AddrPort{})
}

// socksReply is a reply with the address that the connection to the destination is
// bound to; 0.0.0.0:0 when there is none.
func socksReply(rep byte, bound netip.AddrPort) []byte {
	if !bound.IsValid() {
		bound = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	addr := bound.Addr().Unmap()
	b := []byte{socksVersion, rep, 0, addrIPv4}
	if addr.Is6() {
		b[3] = addrIPv6
	}
	b = append(b, addr.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, bound.Port())
}
