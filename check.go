//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"swivel/iface"
	"swivel/internal/auth"
	"swivel/internal/config"
	"swivel/internal/sockopt"
	"swivel/listener"
	"swivel/rotate"
)

// report is what check finds, as it goes to the user.
type report struct {
	w       io.Writer
	missing bool
	sockets []io.Closer // all at once, since :8080 and 127.0.0.1:8080 exclude each other
}

func (r *report) ok(format string, args ...any) {
	fmt.Fprintf(r.w, "ok       "+format+"\n", args...)
}

// note tells of something that works and could be better.
func (r *report) note(hint, format string, args ...any) {
	fmt.Fprintf(r.w, "note     "+format+"\n         %s\n", append(args, hint)...)
}

// miss tells of something that keeps swivel from working, and what mends it.
func (r *report) miss(hint, format string, args ...any) {
	r.missing = true
	fmt.Fprintf(r.w, "missing  "+format+"\n         %s\n", append(args, hint)...)
}

// check implements the command of that name.
func check(load loader, stdout *os.File) error {
	cfg, err := load()
	if err != nil {
		return err
	}
	h, err := iface.Read()
	if err != nil {
		return err
	}
	r := &report{w: stdout}
	defer r.close()
	r.ok("configuration")
	x := r.exits(cfg)
	r.countries(cfg, h, x)
	for _, p := range cfg.Pools {
		r.pool(p, h, x)
	}
	for _, l := range cfg.Listeners {
		r.listener(cfg, l)
	}
	if cfg.Admin.Listen != "" {
		r.socket("admin", cfg.Admin.Listen)
	}
	r.kernel(cfg)
	r.descriptors(cfg.Limits.Connections)
	r.names(cfg.Resolver)
	if r.missing {
		return errStopped
	}
	return nil
}

func (r *report) close() {
	for _, ln := range r.sockets {
		ln.Close()
	}
}

func (r *report) pool(p config.Pool, h *iface.Host, x *exits) {
	entries := find(p, h, x)
	n := len(allSources(entries))
	hint := "it is used as soon as it is there"
	if n > 0 {
		hint += "; clients are served by the other sources"
	}
	for _, f := range entries {
		if f.missing != "" {
			r.miss(hint, "pool %s: source %s: %s", p.Name, f.name(), f.missing)
		} else {
			r.onLink(p.Name, f.Source)
		}
	}
	if n == 0 {
		r.miss("clients are answered 503 until it has one", "pool %s has no source", p.Name)
		return
	}
	r.ok("pool %s: %d sources", p.Name, n)
}

// countries looks at the database, and for sources of which it knows nothing.
func (r *report) countries(cfg *config.Config, h *iface.Host, x *exits) {
	c, err := countriesOf(cfg.Geo)
	var all [][]found
	if err == nil {
		all, err = findAll(cfg.Pools, h, c, x)
	}
	switch {
	case err != nil:
		r.miss("swivel does not start without", "geo: %v", err)
		return
	case c == nil:
		return
	}
	r.ok("geo: database %s", cfg.Geo.Database)
	each(all, func(s *rotate.Source) {
		if !isLocated(s) {
			r.note("write labels: {country: …}", "source %s: no country is known", s)
		}
	})
}

func (r *report) listener(cfg *config.Config, l config.Listener) {
	for _, address := range l.Listen {
		r.socket("listener "+l.Name, address)
	}
	if l.Users != "" {
		if _, err := auth.Load(l.Users); err != nil {
			r.miss("swivel does not start without, as nobody could log in", "listener %s: users: %v", l.Name, err)
		} else {
			r.ok("listener %s: users file %s", l.Name, l.Users)
		}
	}
	if l.TLS != nil {
		if _, err := loadTLS(l.TLS, time.Now()); err != nil {
			r.miss(mendTLS(l.TLS), "listener %s: tls: %v", l.Name, err)
		} else {
			r.ok("listener %s: certificate %s", l.Name, l.TLS.Certificate)
		}
	}
	if l.Unwrap != nil && l.Unwrap.Source != "own" || l.SNI != nil && l.SNI.Source == config.SourceClient {
		r.leaveAsClient(cfg, l)
	}
	if l.Mark != 0 {
		r.mark(l)
	}
}

// mendTLS is the command for a certificate that cannot be used: one that makes it,
// where there is none that it would destroy, or else one that shows it.
func mendTLS(files *config.TLS) string {
	if _, err := os.Stat(files.Certificate); errors.Is(err, fs.ErrNotExist) {
		return "openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=NAME -keyout " + files.Key + " -out " + files.Certificate
	}
	return "openssl x509 -noout -subject -dates -in " + files.Certificate
}

func (r *report) socket(name, address string) {
	ln, err := tryListen(address)
	if err != nil {
		r.miss(mendListen(address, err), "%s: %v", name, explainListen(address, err))
		return
	}
	r.sockets = append(r.sockets, ln)
	r.ok("%s: %s is free", name, address)
}

func tryListen(address string) (io.Closer, error) {
	if bare, ok := isUDP(address); ok {
		return new(net.ListenConfig).ListenPacket(context.Background(), "udp", bare)
	}
	return listener.Listen(context.Background(), address)
}

func mendListen(address string, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "fine if that is swivel itself; otherwise end it, or listen elsewhere"
	case errors.Is(err, syscall.EACCES):
		return "setcap cap_net_bind_service+ep swivel, or a port above 1023"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		bare, _ := isUDP(address)
		host, _, _ := net.SplitHostPort(bare)
		return "ip address add " + host + " dev …, or another address"
	}
	return "listen elsewhere"
}

func (r *report) leaveAsClient(cfg *config.Config, l config.Listener) {
	if err := canBeTransparent(); err != nil {
		r.miss("setcap cap_net_admin,cap_net_bind_service+ep swivel, or source: own", "listener %s: %v", l.Name, err)
		return
	}
	r.ok("listener %s: may leave by the addresses of clients", l.Name)
	r.waysBack(cfg, l)
}

func (r *report) mark(l config.Listener) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		err = sockopt.Mark(l.Mark)(fd)
	}
	if err != nil {
		r.miss("setcap cap_net_admin+ep swivel", "listener %s: mark %d: %v", l.Name, l.Mark, err)
		return
	}
	r.ok("listener %s: mark %d", l.Name, l.Mark)
}

func (r *report) descriptors(connections int) {
	n := descriptors()
	if c := listener.Capacity(n); c < connections {
		r.note(fmt.Sprintf("ulimit -n %d, or LimitNOFILE=%[1]d in the unit; or a lower limits.connections", 2*connections+256),
			"%d descriptors are enough for %d connections, limits.connections is %d: beyond, clients wait", n, c, connections)
		return
	}
	r.ok("descriptors: %d", n)
}

func (r *report) names(c config.Resolver) {
	if len(c.Servers) > 0 {
		r.ok("name servers: %v", c.Servers)
		return
	}
	if _, err := os.Stat("/etc/resolv.conf"); err != nil {
		r.miss("set resolver.servers", "name servers: %v", err)
		return
	}
	r.ok("name servers: those of /etc/resolv.conf")
}
