// Package listener takes clients from accept to close: the accept loop, the
// limits on how many there are, the table of those that are here, and the access
// line that each leaves.
//
// What a client wants is read and done by a Door, of which this package knows
// nothing: see the packages below it. Only a PROXY header is read here, since it
// says who the client is.
//
// The access line has the fields listener, mode (connect, socks5, http, tls, unwrap or
// unwrap-udp), client, user, session, target (as asked for), address (as dialed), source,
// attempts, dns_ms, connect_ms, up and down (bytes from and to the client), took (in
// milliseconds), status, reason and, when there is one, error; cooling, when the
// source was, as all were; of a client that a
// PROXY header named also peer, who sent it, and what it says of authority and
// unique_id; of one that is routed by its first bytes also outcome, original (where
// it was going), alpn, records, ech and hello_ms (until it was known where to). They
// are an interface: others parse them.
package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"swivel/relay"
)

// Door reads what a client wants and does it.
type Door interface {
	// Serve returns when c is done with, or is a tunnel by Client.Relay, after which
	// it leaves c alone. The caller closes c; ctx is done when everything is to end.
	Serve(ctx context.Context, c *Client)

	// Refuse tells c, in whatever protocol c speaks, why it is not served: one of
	// ErrClient, ErrPerClient and ErrConnections. It must return within a second
	// or so.
	Refuse(c *Client, why error)
}

// Service is what a listening socket does with its clients. It is not changed
// once it is in use.
type Service struct {
	Name    string
	Clients []netip.Prefix // who may connect; empty: everyone
	Door    Door

	// Proxies are the peers whose connections begin with a PROXY header, which says
	// who the client is. Of others none is read: what a connection begins with is
	// not guessed at.
	Proxies []netip.Prefix
	Proxied bool          // others than Proxies are closed before a byte is read, and the Door judges what addresses are claimed
	Head    time.Duration // for reading the header

	IPv4InTCP6 bool // headers may be as proxyproto.ParseLax takes them
}

// Server serves the clients of one listening socket.
type Server struct {
	Gate  *Gate
	Table *Table
	Log   zerolog.Logger

	service atomic.Pointer[inUse]
	serving sync.WaitGroup // clients that are here
}

// inUse is a Service until another one is used.
type inUse struct {
	*Service
	using context.Context
	end   context.CancelFunc
}

// Use makes svc serve the clients that come from now on; those of the one before
// are not kept for more than they are at. It must have been called before Serve.
func (s *Server) Use(svc *Service) {
	using, end := context.WithCancel(context.Background())
	if before := s.service.Swap(&inUse{svc, using, end}); before != nil {
		before.end()
	}
}

const (
	minAcceptDelay = 5 * time.Millisecond
	maxAcceptDelay = time.Second
)

// Serve accepts from ln until accept is done. It then closes ln, waits for the
// clients that are still here, and returns nil. It returns an error only if
// someone else closed ln. clients is what the Door gets.
func (s *Server) Serve(accept, clients context.Context, ln Acceptor) error {
	defer ln.Close()
	stop := context.AfterFunc(accept, func() {
		ln.Close()
		if svc := s.service.Load(); svc != nil {
			svc.end()
		}
	})
	defer stop()

	defer s.serving.Wait()

	var trouble every
	delay := minAcceptDelay
	for s.Gate.reserve(accept, s.Log) {
		c, err := ln.Accept()
		if err == nil {
			delay = minAcceptDelay
			s.serving.Add(1) // until Client.finish
			go s.serveClient(clients, c)
			continue
		}
		s.Gate.release()
		switch {
		case accept.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		}
		// Out of descriptors or memory, or a client that left while it was queued.
		// Accepting again at once would spin; returning would end the service for
		// a passing condition.
		if trouble.due(time.Second) {
			s.Log.Warn().Err(err).Dur("retry", delay).Msg("accept")
		}
		select {
		case <-time.After(delay):
		case <-accept.Done():
		}
		delay = min(2*delay, maxAcceptDelay)
	}
	return nil
}

// serveClient takes conn from accept to its Door. It ends when the Door has served
// the client, or has made a tunnel of it, which then goes on without this
// goroutine; Table.End and Client.End bring both about from outside.
func (s *Server) serveClient(ctx context.Context, conn *relay.Socket) {
	growStack()
	svc := s.service.Load()
	c := newClient(s, svc, conn)
	s.Table.add(c)
	defer func() {
		if !c.relayed {
			c.finish()
		}
	}()
	defer c.rescue()
	if svc.Proxied || len(svc.Proxies) > 0 {
		if err := s.proxied(svc.Service, c); err != nil {
			c.Line.Err = err
			if c.Ended() == "" {
				c.Line.Reason = reasonUnnamed(err)
			}
			return
		}
	}
	if err := s.admit(svc.Service, c); err != nil {
		c.Line.Err = err
		if s.Gate.refuse() {
			defer s.Gate.refused()
			svc.Door.Refuse(c, err)
		}
		return
	}
	svc.Door.Serve(ctx, c)
}

// proxied reads the PROXY header of a client that has one. It counts from before
// that, so that connections which never have one are bounded like others.
func (s *Server) proxied(svc *Service, c *Client) error {
	if !contain(svc.Proxies, c.Remote().Addr()) {
		if svc.Proxied {
			return errPeer
		}
		return nil
	}
	if err := s.Gate.enter(); err != nil {
		return err
	}
	c.admitted = true
	if err := c.name(svc); err != nil {
		return err
	}
	if svc.Proxied || c.Claim.Local || plausible(c.Addr.Addr(), c.Remote().Addr()) {
		return nil
	}
	return fmt.Errorf("%w: %v", errSource, c.Addr)
}

func (s *Server) admit(svc *Service, c *Client) error {
	if len(svc.Clients) > 0 && !contain(svc.Clients, c.Addr.Addr()) {
		return ErrClient
	}
	if !c.admitted {
		if err := s.Gate.enter(); err != nil {
			return err
		}
		c.admitted = true
	}
	if err := s.Gate.name(c.Addr.Addr()); err != nil {
		return err
	}
	c.named = true
	return nil
}

func contain(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// every is a limit on how often something is said. It belongs to one goroutine.
type every struct{ last time.Time }

func (e *every) due(interval time.Duration) bool {
	now := time.Now()
	if now.Sub(e.last) < interval {
		return false
	}
	e.last = now
	return true
}
