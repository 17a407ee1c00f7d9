//go:build linux

package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"swivel/iface"
	"swivel/internal/auth"
	"swivel/internal/config"
	"swivel/internal/geo"
	"swivel/internal/logqueue"
	"swivel/internal/sockopt"
	"swivel/listener"
	"swivel/relay"
	"swivel/rotate"
)

// proxy is a running swivel. What a reload may change belongs to the goroutine of
// serve, but for what atomics and mu guard.
type proxy struct {
	log    zerolog.Logger
	format *formatter
	id     string // what other proxies know this process by
	gate   *listener.Gate
	table  listener.Table

	host  atomic.Pointer[iface.Host]
	ports atomic.Pointer[listening]

	clients  context.Context // done when every client is to end
	draining atomic.Bool

	serving sync.WaitGroup     // listening sockets, each until its last client has gone
	sockets map[string]*socket // by generation.listen's key
	udp     datagrams
	admin   *adminSocket // nil: there is none
	users   map[string]*auth.Users

	refresh  time.Duration // of follow
	unfollow func()        // ends it

	endChecks        context.CancelFunc // of check
	unfollowServices func()

	mu sync.Mutex
	// guards
	config   *config.Config
	pools    map[string]*rotate.Pool
	used     map[netip.Prefix]*time.Timer // what clients may be leaving by: all that was in a pool and is not gone
	entries  map[string][]found           // what setPools found last for each pool
	said     map[string]string            // what was logged last of each pool
	lost     string                       // what was wrong with countries last
	watching bool                         // a timer will look at countries

	countries *geo.Countries // nil: there is no database
	exits     *exits
	recheck   *time.Timer // nil unless the host is to be looked at again
}

// socket is a listening socket that is in use.
type socket struct {
	ln     *listener.Listener
	server *listener.Server
	close  context.CancelFunc
}

// logSize bounds the lines that wait to be written.
const logSize = 4 << 20

// serve implements the command run.
func serve(load loader, stdout *os.File) error {
	// A reader of the log that goes away must not end the process.
	signal.Ignore(syscall.SIGPIPE)
	// Package signal drops what does not fit into a channel. Two that are sent
	// while a reload takes its time are one reload, but none may displace an end.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	end := make(chan os.Signal, 2)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)

	cfg, err := load()
	if err != nil {
		return err
	}
	queue := logqueue.New(stdout, logSize)
	go queue.Run() // until Close
	defer queue.Close(time.Second)

	clients, endClients := context.WithCancel(context.Background())
	defer endClients()
	go giveBack(clients) // until endClients
	relay.Open()
	p := newProxy(clients, queue)
	if err := p.start(cfg); err != nil {
		return err
	}
	for {
		select {
		case <-hangup:
			p.reload(load)
		case <-end:
			return p.drain(end, endClients)
		}
	}
}

func newProxy(clients context.Context, queue *logqueue.Queue) *proxy {
	f := newFormatter(queue)
	return &proxy{
		log:     zerolog.New(f).With().Timestamp().Logger(),
		format:  f,
		id:      newID(),
		gate:    listener.NewGate(descriptors()),
		clients: clients,
		sockets: make(map[string]*socket),
		udp:     datagrams{sockets: make(map[string]*relay.FlowSocket)},
		used:    make(map[netip.Prefix]*time.Timer),
		entries: make(map[string][]found),
		said:    make(map[string]string),

		unfollow:  func() {},
		endChecks: func() {},

		unfollowServices: func() {},
	}
}

// descriptors is how many this process may have open. The Go runtime has raised
// the soft limit to the hard one.
func descriptors() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<30))
}

func (p *proxy) start(cfg *config.Config) error {
	h, err := iface.Read()
	if err != nil {
		return err
	}
	p.host.Store(h)
	g, err := p.build(cfg)
	if err != nil {
		return err
	}
	p.commit(g)
	if n := listener.Capacity(descriptors()); n < cfg.Limits.Connections {
		p.log.Warn().Int("connections", n).Int("limit", cfg.Limits.Connections).
			Msg("descriptor limit is lower than limits.connections")
	}
	return nil
}

// reload puts a new configuration into effect, or leaves everything as it is.
func (p *proxy) reload(load loader) {
	cfg, err := load()
	var g *generation
	if err == nil {
		g, err = p.build(cfg)
	}
	if err != nil {
		p.log.Error().Err(err).Msg("reload failed, the old configuration stays")
		return
	}
	p.commit(g)
	p.log.Info().Msg("reloaded")
}

// commit puts g into effect. Nothing here can fail. Clients that are here go on as
// they are; listening sockets that stay are not closed.
func (p *proxy) commit(g *generation) {
	p.format.set(g.config.Log)
	p.gate.Limit(g.config.Limits.Connections, g.config.Limits.PerClient)

	p.mu.Lock()
	g.exits.keep(p.exits)
	p.config, p.pools, p.countries, p.exits = g.config, g.pools, g.countries, g.exits
	p.mu.Unlock()
	p.users = g.users
	p.setPools()
	p.follow(shortestRefresh(g.config.Pools))
	p.followServices(g)
	p.notePorts(g)
	p.useAdmin(g)
	p.check(g.checks)
	p.useDatagrams(g)

	for key, svc := range g.services {
		if s := p.sockets[key]; s != nil {
			s.server.Use(svc)
			if rc, err := s.ln.SyscallConn(); err == nil {
				sockopt.Apply(rc, acceptOptions(g.config.Limits, s.ln.Addr().String())...)
			}
		}
	}
	for key, s := range p.sockets {
		if g.services[key] == nil {
			s.close()
			delete(p.sockets, key)
			p.log.Info().Stringer("address", s.ln.Addr()).Msg("listener closed")
		}
	}
	for key, ln := range g.opened {
		p.open(key, ln, g.services[key])
	}
}

func (p *proxy) open(key string, ln *listener.Listener, svc *listener.Service) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &socket{ln: ln, close: cancel, server: &listener.Server{Gate: p.gate, Table: &p.table, Log: p.log}}
	s.server.Use(svc)
	p.sockets[key] = s
	p.serving.Go(func() { s.server.Serve(ctx, p.clients, ln) }) // until s.close, and its last client has gone
	p.log.Info().Str("listener", svc.Name).Stringer("address", ln.Addr()).Msg("listening")
}

// check looks after backends until it is called again.
func (p *proxy) check(checks []func(context.Context)) {
	p.endChecks()
	var ctx context.Context
	ctx, p.endChecks = context.WithCancel(p.clients)
	for _, c := range checks {
		go c(ctx) // until endChecks
	}
}

// notePorts notes where g listens, before its clients can ask to be connected there.
func (p *proxy) notePorts(g *generation) {
	ports := make(listening)
	note := func(ln interface{ Addr() net.Addr }) { ports.note(addrOf(ln)) }
	for key := range g.services {
		ln := g.opened[key]
		if s := p.sockets[key]; s != nil {
			ln = s.ln
		}
		note(ln)
	}
	switch {
	case g.admin != nil:
		note(g.admin)
	case p.admin != nil && p.admin.address == g.config.Admin.Listen:
		note(p.admin.ln)
	}
	p.ports.Store(&ports)
}

// drainGrace is how long clients that were ended have for their last log line.
const drainGrace = 2 * time.Second

// drain closes the listening sockets of clients at once, lets those who are here
// end for as long as the configuration says, and then ends them. A second signal
// ends everything. The admin address is there to the end.
func (p *proxy) drain(end <-chan os.Signal, endClients context.CancelFunc) error {
	p.draining.Store(true)
	for _, s := range p.sockets {
		s.close()
	}
	p.drainDatagrams()
	limit := p.config.Limits.Drain
	p.log.Info().Int("clients", p.here()).Stringer("drain", limit).Msg("draining")
	served := make(chan struct{})
	go func() { // ends with the last client
		p.serving.Wait()
		close(served)
	}()
	timeout, ended := time.After(limit), false
	for {
		select {
		case <-served:
			p.log.Info().Msg("stopped")
			return nil
		case <-timeout:
			if ended {
				p.log.Warn().Int("clients", p.here()).Msg("stopped with clients left")
				return nil
			}
			p.table.End(relay.Drained)
			p.endDatagrams()
			endClients()
			timeout, ended = time.After(drainGrace), true
		case <-end:
			return errStopped
		}
	}
}
