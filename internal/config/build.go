package config

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"swivel/internal/target"
)

// builder makes a configuration of flags and variables.
type builder struct {
	Flags
	given map[string]string // the settings that were given -> what gave them: -listen or SWIVEL_LISTEN
	errs  []error
}

func (b *builder) errorf(format string, args ...any) {
	b.errs = append(b.errs, fmt.Errorf(format, args...))
}

// gather notes which settings were given, and takes over the variables.
func (b *builder) gather(fs *flag.FlagSet, environ []string) {
	settings := b.settings()
	byName := make(map[string]flag.Value)
	for _, s := range settings {
		byName[s.name] = s.value
	}
	b.given = make(map[string]string)
	fs.Visit(func(f *flag.Flag) {
		if byName[f.Name] != nil {
			b.given[f.Name] = "-" + f.Name
		}
	})
	for _, kv := range environ {
		variable, text, _ := strings.Cut(kv, "=")
		name, ours := strings.CutPrefix(variable, envPrefix)
		if !ours || isServiceLink(variable, text) {
			continue
		}
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch v := byName[name]; {
		case v == nil || variable != envName(name):
			b.errorf("%s: unknown variable (%s)", shorten(variable), envHint(variable, settings))
		case b.given[name] == "-"+name: // the flag wins
		default:
			b.given[name] = variable
			if err := v.Set(text); err != nil {
				b.errorf("%s: %w", variable, err)
			}
		}
	}
	for _, s := range settings {
		if from := b.given[s.name]; from != "" && s.value.String() == "" {
			b.errorf("%s: empty (leave it out, or give it a value)", from)
		}
	}
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func envHint(variable string, settings []setting) string {
	var all []string
	for _, s := range settings {
		all = append(all, envName(s.name))
	}
	if near := nearest(variable, all); near != "" {
		return "did you mean " + near + "?"
	}
	return "there are " + strings.Join(all, ", ")
}

// Kubernetes gives every container of a namespace such variables for each Service
// in it. One of a Service called swivel, or swivel-pool, is not meant for us.
var serviceLink = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)`)

func isServiceLink(variable, text string) bool {
	return serviceLink.MatchString(variable) || strings.HasSuffix(variable, "_PORT") && strings.Contains(text, "://")
}

// load reads the file, which is then all there is but for the log.
func (b *builder) load() (*Config, error) {
	for _, s := range b.settings() {
		switch from := b.given[s.name]; {
		case from == "", s.name == "config", s.name == "log-level", s.name == "log-format":
		default:
			b.errorf("%s: does not go with %s (write it into %s)", from, b.given["config"], b.Config)
		}
	}
	var log Log
	b.log(&log)
	if len(b.errs) > 0 {
		return nil, errors.Join(b.errs...)
	}
	c, err := Load(b.Config)
	if err != nil {
		return nil, err
	}
	c.Log.Level = cmp.Or(log.Level, c.Log.Level)
	c.Log.Format = cmp.Or(log.Format, c.Log.Format)
	return c, nil
}

// build makes the configuration of one pool and one listener.
func (b *builder) build() (*Config, error) {
	c := defaults()
	b.log(&c.Log)
	c.Pools = []Pool{b.pool()}
	c.Listeners = []Listener{b.listener(c.Pools[0].Name)}
	if c.Listeners[0].Pool == "" {
		c.Pools = nil
	}
	if len(b.errs) > 0 {
		return nil, errors.Join(b.errs...)
	}
	return c, nil
}

func (b *builder) log(l *Log) {
	one(b, "log-level", &l.Level, b.LogLevel, parseLevel)
	one(b, "log-format", &l.Format, b.LogFormat, parseFormat)
}

func (b *builder) pool() Pool {
	p := defaultPool(poolDefault)
	if b.Pool != "" {
		p.Name = "main"
	}
	many(b, "pool", &p.Sources, b.Pool, parseSource)
	one(b, "strategy", &p.Strategy, b.Strategy, parseStrategy)
	return p
}

func (b *builder) listener(pool string) Listener {
	l := defaultListener()
	l.Name, l.Pool, l.Mark = "egress", pool, b.Mark
	one(b, "mode", &l.Mode, b.Mode, parseMode)
	switch l.Mode {
	case modeSNI:
		b.sni(&l)
	case modeUnwrap:
		b.unwrap(&l)
	}
	b.foreign(l.Mode)
	b.listen(&l, cmp.Or(b.Listen, "127.0.0.1:8080"))
	if l.Mode == modeSNI {
		b.capture(&l)
	}
	one(b, "users", &l.Users, b.Users, parseText)
	many(b, "clients", &l.Clients, b.Clients, parseClients)
	many(b, "allow", &l.Destinations.Allow, b.Allow, target.ParseRule)
	many(b, "deny", &l.Destinations.Deny, b.Deny, target.ParseRule)
	if b.Ports != "" {
		l.Destinations.Ports = nil
		many(b, "ports", &l.Destinations.Ports, b.Ports, target.ParsePorts)
	}
	if (b.Cert == "") != (b.Key == "") {
		b.errorf("%s: needs the other one of -cert and -key", cmp.Or(b.given["cert"], b.given["key"]))
	}
	if b.Cert != "" {
		l.TLS = &TLS{Certificate: b.Cert, Key: b.Key}
	}
	closed := b.given["users"] != "" || b.given["clients"] != "" || cmp.Or(b.Mode, modeConnect) != modeConnect
	if at := exposed(l.Listen); at != "" && !closed {
		b.errorf("%s: an open proxy: whoever reaches %s could use it (add -users or -clients, or listen on 127.0.0.1)", b.given["listen"], at)
	}
	return l
}

func (b *builder) listen(l *Listener, list string) {
	var entries []sockets
	many(b, "listen", &entries, list, parseListen)
	n := 0
	for _, s := range entries {
		if s.network == "" { // that has been said
			continue
		}
		if err := l.listen(s, &n); err != nil {
			b.errorf("%s: %w", b.given["listen"], err)
		}
	}
	seen := make(map[string]bool)
	for _, s := range l.Listen {
		if seen[s] && !strings.HasSuffix(s, ":0") {
			b.errorf("%s: %q comes twice", b.given["listen"], s)
		}
		seen[s] = true
	}
}

// ofModes is which modes have a flag that not every mode has.
var ofModes = map[string][]string{
	"pool":        {modeConnect, modeSNI},
	"strategy":    {modeConnect, modeSNI},
	"users":       {modeConnect},
	"cert":        {modeConnect},
	"key":         {modeConnect},
	"from":        {modeUnwrap},
	"transparent": {modeSNI},
	"capture":     {modeSNI},
	"to":          {modeUnwrap},
}

// foreign notes the flags of other modes.
func (b *builder) foreign(mode string) {
	for _, s := range b.settings() {
		if modes := ofModes[s.name]; b.given[s.name] != "" && modes != nil && !slices.Contains(modes, mode) {
			b.errorf("%s: means nothing in mode %s", b.given[s.name], mode)
		}
	}
}

// one reads the value of a setting, unless it is empty.
func one[T any](b *builder, name string, dst *T, s string, parse func(string) (T, error)) {
	if s == "" {
		return
	}
	v, err := parse(s)
	if err != nil {
		b.errorf("%s: %w", b.given[name], err)
		return
	}
	*dst = v
}

// many reads a setting that is a list, unless it is empty.
func many[T any](b *builder, name string, dst *[]T, list string, parse func(string) (T, error)) {
	if list == "" {
		return
	}
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if s == "" {
			b.errorf("%s: %q: nothing between two commas", b.given[name], shorten(list))
			continue
		}
		var v T
		one(b, name, &v, s, parse)
		*dst = append(*dst, v)
	}
}

// textFlag is a flag.Value that is any text.
type textFlag string

func (t *textFlag) String() string     { return string(*t) }
func (t *textFlag) Set(s string) error { *t = textFlag(s); return nil }

// numberFlag is a flag.Value that is a number of 32 bits.
type numberFlag int

func (n *numberFlag) String() string { return fmt.Sprint(int(*n)) }

func (n *numberFlag) Set(s string) error {
	v, err := parseNumber(0, math.MaxUint32)(s)
	*n = numberFlag(v)
	return err
}
