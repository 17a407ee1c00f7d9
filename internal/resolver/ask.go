package resolver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// rounds is how often each server is asked: a packet may be lost.
const rounds = 2

// ask asks servers in order, twice over, until one knows. A try has its share of the
// time that is left, so that each server has a turn before ctx ends; ctx has a
// deadline.
func ask(ctx context.Context, servers []netip.AddrPort, name string, typ dnsmessage.Type) (found, error) {
	q, err := newQuestion(name, typ)
	if err != nil {
		return found{}, err
	}
	for left := rounds * len(servers); left > 0; left-- {
		server := servers[(rounds*len(servers)-left)%len(servers)]
		var f found
		f, err = q.try(ctx, server, left)
		if err == nil {
			return f, nil
		}
		err = fmt.Errorf("%v: %w", server, err)
		if errors.Is(err, ErrNotFound) || ctx.Err() != nil {
			break
		}
	}
	return found{}, err
}

// try asks one server, by TCP if the answer does not fit into a datagram, and takes
// no more than one part in left of the time.
func (q *question) try(ctx context.Context, server netip.AddrPort, left int) (found, error) {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
	defer cancel()

	f, err := q.exchange(ctx, "udp", server)
	if errors.Is(err, errTruncated) {
		f, err = q.exchange(ctx, "tcp", server)
	}
	if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrServer) {
		return f, err
	}
	// The socket's own deadline may be noticed a moment before that of ctx.
	if e, ok := errors.AsType[net.Error](err); ctx.Err() != nil || ok && e.Timeout() {
		return f, ErrTimeout
	}
	return f, fmt.Errorf("%w: %w", ErrServer, err)
}

// exchange has a socket of its own, connected and on a random port: an answer that
// was forged from afar must guess that port and the ID.
func (q *question) exchange(ctx context.Context, network string, server netip.AddrPort) (found, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return found{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()

	var random [2]byte
	rand.Read(random[:])
	id := binary.BigEndian.Uint16(random[:])
	if network == "tcp" {
		return q.overTCP(c, id)
	}
	return q.overUDP(c, id)
}

// maxUDP is the most that is read of a datagram, and more than is asked for.
const maxUDP = 4096

// overUDP waits until an answer to this very question comes. What else arrives may
// be forged, or late, and does not end the wait.
func (q *question) overUDP(c net.Conn, id uint16) (found, error) {
	if _, err := c.Write(q.message(id)); err != nil {
		return found{}, err
	}
	buf := make([]byte, maxUDP)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return found{}, err
		}
		if f, err := q.read(id, buf[:n]); !errors.Is(err, errStray) {
			return f, err
		}
	}
}

// overTCP puts the length of a message before it, two bytes: RFC 1035, section 4.2.2.
func (q *question) overTCP(c net.Conn, id uint16) (found, error) {
	query := q.message(id)
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(query)))
	if _, err := c.Write(append(framed, query...)); err != nil {
		return found{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return found{}, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		return found{}, err
	}
	return q.read(id, msg)
}
