// Package config turns a YAML file, or flags and SWIVEL_ variables, into one
// validated Config.
//
// Reading is strict: a key or a value that is not known is an error that says
// where it stands and what would be right. All errors of a file are reported at once.
//
// It does not look at the host: whether an interface, a users file or a
// certificate exists is found out by whoever uses it.
package config

import (
	"net"
	"net/netip"
	"time"

	"swivel/internal/target"
)

// Config is a whole configuration, valid and with every default filled in.
type Config struct {
	File      string // the file it was read from; "" when it came from flags
	Log       Log
	Admin     Admin
	Limits    Limits
	Resolver  Resolver
	Geo       Geo
	Pools     []Pool // in the order of the file; none when no listener needs one
	Listeners []Listener
}

// Log says what the log looks like.
type Log struct {
	Level  string // debug, info, warn or error; default info
	Format string // json or console; default json
}

// Limits bound what clients can use up.
type Limits struct {
	Connections int           // clients at once, all listeners; default 100000
	PerClient   int           // clients at once of one address, /64 for IPv6; default 1000
	Head        time.Duration // reading all that precedes the relay; default 10s
	Dial        time.Duration // resolving, choosing and connecting; default 10s
	Idle        time.Duration // a tunnel in which nothing moves; default 1h, zero means no limit
	HalfClosed  time.Duration // a half-closed tunnel in which nothing moves; default 5m, zero means no limit
	Lifetime    time.Duration // a tunnel; default zero, which means no limit
	UserTimeout time.Duration // TCP_USER_TIMEOUT of both legs; default 30s, whole milliseconds
	UDPIdle     time.Duration // a UDP flow in which nothing moves; default 60s
	FirstByte   time.Duration // mode sni: how long a client may be silent; default zero, which means Head
	Drain       time.Duration // how long tunnels may go on after SIGTERM; default 30s, zero ends them at once
}

// Resolver says how names are looked up.
type Resolver struct {
	Servers []netip.AddrPort // asked in this order; none means the system's
	Timeout time.Duration    // one lookup; default 5s
	Cache   time.Duration    // how long an answer is kept; default 5s, zero means not at all
	Prefer  string           // any, ipv4 or ipv6; default any
}

// Pool is a set of sources that connections leave by.
type Pool struct {
	Name     string
	Sources  []Source      // none means the addresses of the interfaces that hold a default route
	Strategy string        // round-robin, random, least-used, per-target or hash; default round-robin
	HashBy   string        // client, user, session or target; default session
	Spacing  time.Duration // a source is used for one target no more often than that; default zero, which means no limit
	Wait     time.Duration // how long a client waits when Spacing leaves it no source; default zero
	Cooldown Cooldown
	MaxAge   time.Duration // of a tunnel; default zero, which means no limit
	MaxBytes int           // that a tunnel moves, both ways together; default zero, which means no limit
	Refresh  time.Duration // how often the host's addresses are read, beside the kernel's news of them; default 30m
}

// Source stands for one or more addresses of this host, or other proxies. Exactly
// one of Interface, MAC, Address, Prefix and Upstream is set.
type Source struct {
	Interface string           // every usable address of the interface of this name
	MAC       net.HardwareAddr // every usable address of the interface with this address, 6 bytes
	Address   netip.Addr       // this address, without zone, never IPv4-mapped
	Prefix    netip.Prefix     // any address of it
	Spread    int              // of Prefix, the bits of an address that count as one source; default 64, or all bits of IPv4 and of a longer prefix
	Upstream  *Upstream        // not nil: another proxy, or several
	Weight    int              // turns it gets for one turn of a source of weight 1; 1 to 1000, default 1
	Labels    map[string]string
}

// Listener is one front door.
type Listener struct {
	Name         string         // in logs and metrics; default its first address
	Listen       []string       // host:port for net.Listen, such as 127.0.0.1:8080, :8080 or [::1]:8080; port 0 is the kernel's choice
	Mode         string         // connect, sni or unwrap
	Pool         string         // name of one of Config.Pools; "" in mode unwrap, and in mode sni where the kernel chooses the source
	Users        string         // path of the htpasswd file; "" means no users are asked for
	Clients      []netip.Prefix // who may connect, by the address that a PROXY header names; none means everyone who can reach it
	VerifyName   string         // what happens when the TLS in a tunnel asks for another host: log or deny; "" means nothing
	AcceptProxy  []netip.Prefix // peers whose connections begin with a PROXY header, none of others; not of mode unwrap
	IPv4InTCP6   bool           // PROXY headers of version 1 may say TCP6 of IPv4 addresses
	TLS          *TLS           // what clients speak to swivel; nil means plain TCP only
	Labels       []Want         // of the sources that all of its clients leave by; none means any
	Select       []Selection    // the same for some; all that apply count
	Sessions     Sessions
	Rights       []Rights // the first that is for a user counts; none means that all may ask for all but source
	Destinations Destinations
	Mark         int     // SO_MARK of outgoing sockets, 32 bits; zero means none
	SNI          *SNI    // not nil in mode sni
	Unwrap       *Unwrap // not nil in mode unwrap
}

// TLS names the files of a certificate and its key.
type TLS struct {
	Certificate string // path, PEM
	Key         string // path, PEM
}

// Destinations is where clients may go.
type Destinations struct {
	Allow []target.Rule      // allowed although denied by default
	Deny  []target.Rule      // denied in any case
	Ports []target.PortRange // default 443 and 80
}
