package config

import "flag"

const envPrefix = "SWIVEL_"

// Flags are the settings of the simple cases, each also a variable: SWIVEL_LISTEN
// is -listen, SWIVEL_LOG_LEVEL is -log-level. Lists are separated by commas. The
// zero Flags are a proxy on 127.0.0.1:8080.
type Flags struct {
	Config      string // path of a file; goes with LogLevel and LogFormat only
	Listen      string // addresses; "" means 127.0.0.1:8080
	Mode        string // "" means connect
	Pool        string // interfaces, MACs, addresses, prefixes and proxies; "" means those of the default route
	Strategy    string // "" means round-robin
	Users       string // path of the htpasswd file; "" means no users are asked for
	Clients     string // prefixes; "" means everyone who can reach a loopback address
	Allow       string // rules
	Deny        string // rules
	Ports       string // ports and ranges; "" means 443,80, in mode sni every port
	Cert, Key   string // paths, PEM; "" means no TLS
	Transparent string // mode sni: redirect or tproxy; never ""
	Capture     string // mode sni: ports, or all; "" means those of Listen
	From        string // mode unwrap: prefixes; never ""
	To          string // mode unwrap: targets, or destination; never ""
	LogLevel    string // "" means info
	LogFormat   string // "" means json
	Mark        int    // SO_MARK of outgoing sockets; zero means none
}

// setting is one flag and its variable.
type setting struct {
	name  string
	value flag.Value
	usage string
}

func (f *Flags) settings() []setting {
	return []setting{
		{"config", (*textFlag)(&f.Config), "read everything from this `file`"},
		{"listen", (*textFlag)(&f.Listen), "`addresses` to listen on (default 127.0.0.1:8080)"},
		{"mode", (*textFlag)(&f.Mode), "`connect`, which is CONNECT, plain HTTP and SOCKS5 on one port (default), sni or unwrap"},
		{"pool", (*textFlag)(&f.Pool), "interfaces, MACs, addresses, prefixes and other proxies (http://user:password@host:port, https, socks5) to leave by: `sources` (default those of the default route)"},
		{"strategy", (*textFlag)(&f.Strategy), "`order` of the pool: round-robin (default), random, least-used, per-target or hash"},
		{"users", (*textFlag)(&f.Users), "htpasswd `file`"},
		{"clients", (*textFlag)(&f.Clients), "`prefixes` that may connect (default everyone who can reach a loopback address)"},
		{"allow", (*textFlag)(&f.Allow), "`prefixes` and names to allow, although denied by default"},
		{"deny", (*textFlag)(&f.Deny), "`prefixes` and names to deny"},
		{"ports", (*textFlag)(&f.Ports), "destination `ports` (default 443,80; in mode sni every port)"},
		{"cert", (*textFlag)(&f.Cert), "certificate `file`: clients speak TLS to the proxy"},
		{"key", (*textFlag)(&f.Key), "key `file` of -cert"},
		{"transparent", (*textFlag)(&f.Transparent), "mode sni: `how` the kernel brings connections here: redirect or tproxy"},
		{"capture", (*textFlag)(&f.Capture), "mode sni: `ports` that the kernel is to send here (default those of -listen), or all"},
		{"from", (*textFlag)(&f.From), "mode unwrap: `prefixes` of those who may send a PROXY header"},
		{"to", (*textFlag)(&f.To), "mode unwrap: `addresses` to connect to, one of a family; 127.0.0.1:* is the port that the client came to; or destination, which is the header's"},
		{"mark", (*numberFlag)(&f.Mark), "SO_MARK of outgoing sockets, a `number`"},
		{"log-level", (*textFlag)(&f.LogLevel), "`level` of the log: debug, info (default), warn or error"},
		{"log-format", (*textFlag)(&f.LogFormat), "`format` of the log: json (default) or console"},
	}
}

// Register defines the flags in fs.
func (f *Flags) Register(fs *flag.FlagSet) {
	for _, s := range f.settings() {
		fs.Var(s.value, s.name, s.usage)
	}
}

// Build returns the configuration that flags and variables ask for, after
// fs.Parse. A flag wins over its variable. environ is what os.Environ returns. The
// error has a line for each mistake.
func (f *Flags) Build(fs *flag.FlagSet, environ []string) (*Config, error) {
	b := builder{Flags: *f}
	b.gather(fs, environ)
	if b.Config != "" {
		return b.load()
	}
	return b.build()
}
