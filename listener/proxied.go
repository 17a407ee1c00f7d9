package listener

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"swivel/internal/proxyproto"
	"swivel/relay"
)

// Claim is what a PROXY header says of a client, but for its address.
type Claim struct {
	Local     bool           // the header names nobody: whoever sent it is the client
	Dst       netip.AddrPort // where the client connected to, at the load balancer; invalid if Local
	Authority string         // the host name that it asked for; "" when the header has none. Its bytes may be any.
	UniqueID  string         // that the load balancer gave the connection; the same
}

// Why a client is not served who had to be named by a PROXY header, and was not.
// Nothing is answered to it.
var (
	errPeer   = errors.New("a peer that may not send a PROXY header")
	errHeader = errors.New("PROXY header")
	errSource = errors.New("PROXY header: no client has this address")
)

// reasonUnnamed is what the access line has for one of these.
func reasonUnnamed(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, ErrConnections):
		return "connection_limit_reached"
	case errors.Is(err, errPeer):
		return "untrusted-peer"
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.As(err, &timeout) && timeout.Timeout():
		return "no-header"
	}
	return "bad-header"
}

// name reads the PROXY header that c begins with, and gives c the address in it.
func (c *Client) name(svc *Service) error {
	// One deadline for all of the header: a peer that is silent, or sends a byte now
	// and then, would otherwise hold a goroutine and a descriptor for ever.
	c.SetReadDeadline(c.Line.Start.Add(svc.Head))
	parse := proxyproto.Parse
	if svc.IPv4InTCP6 {
		parse = proxyproto.ParseLax
	}
	h, err := readHeader(c.Socket, parse)
	if err != nil {
		return fmt.Errorf("%w: %w", errHeader, err)
	}
	c.SetReadDeadline(time.Time{})
	c.Claim = newClaim(h)
	if !h.Local {
		c.Addr = h.Src
	}
	return nil
}

func newClaim(h proxyproto.Header) *Claim {
	return &Claim{
		Local:     h.Local,
		Dst:       h.Dst,
		Authority: text(h.TLVs, proxyproto.Authority),
		UniqueID:  text(h.TLVs, proxyproto.UniqueID),
	}
}

func text(t proxyproto.TLVs, typ byte) string {
	b := t.Get(typ)
	return string(b[:min(len(b), maxText)])
}

// plausible reports whether a peer can have been connected to from a. What is on
// loopback, only a peer that is there too can tell of: rules for this host alone
// would otherwise be open to whoever can make a load balancer say so.
func plausible(a, peer netip.Addr) bool {
	switch {
	case a.IsUnspecified(), a.IsMulticast(), a == broadcast:
		return false
	case a.IsLoopback():
		return peer.IsLoopback()
	}
	return true
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// firstRead is enough for a header without TLVs, and for most that have some.
const firstRead = 256

var errDatagrams = errors.New("about datagrams, on a connection")

// readHeader reads a PROXY header and not a byte of what follows: that is for a Door
// to read, or for the kernel to move. So it looks before it reads. Its buffer grows
// with what has arrived, not with the length that the header claims.
func readHeader(c *relay.Socket, parse func([]byte) (proxyproto.Header, int, error)) (proxyproto.Header, error) {
	buf := make([]byte, 0, firstRead)
	for {
		n, err := c.Peek(buf[len(buf):cap(buf)])
		if err != nil {
			return proxyproto.Header{}, err
		}
		h, used, perr := parse(buf[:len(buf)+n])
		if perr == nil {
			n = used - len(buf)
		} else if perr != proxyproto.ErrIncomplete {
			return proxyproto.Header{}, perr
		}
		if _, err := io.ReadFull(c, buf[len(buf):len(buf)+n]); err != nil { // which is there
			return proxyproto.Header{}, err
		}
		switch {
		case perr == nil && h.UDP:
			return proxyproto.Header{}, errDatagrams
		case perr == nil:
			return h, nil
		}
		if buf = buf[:len(buf)+n]; len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
	}
}
