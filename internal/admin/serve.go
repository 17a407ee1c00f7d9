package admin

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
)

// What clients can use up. Nothing here is needed for a client of swivel to be
// served, and nothing of it may keep one from that.
const (
	maxConnections = 64
	maxHeader      = 16 << 10
	readTimeout    = 10 * time.Second
	writeTimeout   = 30 * time.Second
)

// Server serves one listening socket.
type Server struct {
	Handler http.Handler

	clients atomic.Pointer[[]netip.Prefix]
}

// Admit says who may connect from now on; empty means everyone.
func (s *Server) Admit(clients []netip.Prefix) { s.clients.Store(&clients) }

// Serve serves ln, which it closes, until ctx is done and the requests that are
// under way have been answered.
func (s *Server) Serve(ctx context.Context, ln net.Listener) {
	srv := &http.Server{
		Handler:        s.Handler,
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	// Idle connections would keep others out.
	srv.SetKeepAlivesEnabled(false)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		limit, cancel := context.WithTimeout(context.Background(), writeTimeout)
		defer cancel()
		srv.Shutdown(limit)
	})
	srv.Serve(netutil.LimitListener(&door{Listener: ln, server: s, ctx: ctx}, maxConnections))
	if !stop() {
		<-ended
	}
}

// door accepts those who may connect, whatever else happens.
type door struct {
	net.Listener
	server *Server
	ctx    context.Context
}

const acceptRetry = 100 * time.Millisecond

// Accept does not fail before the socket is closed: net/http would end the service
// for a lack of memory that passes.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil:
			select {
			case <-time.After(acceptRetry):
			case <-d.ctx.Done():
			}
		case d.server.admits(c.RemoteAddr()):
			return c, nil
		default:
			c.Close()
		}
	}
}

func (s *Server) admits(a net.Addr) bool {
	clients := s.clients.Load()
	if clients == nil || len(*clients) == 0 {
		return true
	}
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	addr := t.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(*clients, func(p netip.Prefix) bool { return p.Contains(addr) })
}
