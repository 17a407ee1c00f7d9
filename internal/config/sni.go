package config

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"time"

	"swivel/internal/target"
)

// SNI is what a listener of mode sni has and others have not.
//
// A file without routes is that of a listener which lets everything pass: every
// name goes to its original destination. With routes, what they do not name is
// closed, unless Otherwise says something else.
type SNI struct {
	Transparent string             // off, redirect or tproxy; default off
	Source      string             // who upstream sees: own or client; default own
	Routes      []Route            // in the order of the file, which decides nothing; never empty when transparent
	Otherwise   Otherwise          // what happens to connections that no route is for
	Opaque      []target.PortRange // original ports whose bytes are not looked at; empty unless transparent
	Capture     []target.PortRange // ports that the kernel sends here; default the ports of Listen, 1-65535 for "all"; empty unless transparent
}

// The values of SNI.Transparent.
const (
	TransparentOff      = "off"
	TransparentRedirect = "redirect"
	TransparentTProxy   = "tproxy"
)

// The values of SNI.Source.
const (
	SourceOwn    = "own"
	SourceClient = "client" // the client's address; what upstream answers must come back to this host
)

// Route is where connections for some names go. No two routes of a listener have a
// name in common, unless their ALPN tells them apart.
type Route struct {
	Names     []string // a.example.com, *.example.com (one label) or *; lower case, no trailing dot, no address
	ALPN      []string // protocols, one of which the client must offer; none means any client
	To        To
	Balance   string        // of backends: round-robin, least or client; default round-robin
	SendProxy string        // the PROXY header in front of the client's bytes: off, v1 or v2; default off
	Check     time.Duration // how often each backend is connected to, to see whether it is there; zero means never
	Pool      string        // name of one of Config.Pools; "" means the listener's
}

// To is where a connection goes.
type To struct {
	Kind     string          // one of the To constants
	Backends []target.Target // of ToBackends: at least one, no two the same
}

// The values of To.Kind.
const (
	ToClose    = "close"    // it is closed
	ToOriginal = "original" // where the client was going; only when transparent
	ToName     = "name"     // what the server name resolves to, on the port that the client wanted; not in Otherwise
	ToBackends = "backends"
)

// Otherwise says what happens to connections that no route is for. Without routes
// NoName, NotTLS and Timeout default to the original destination; everything else
// defaults to close.
type Otherwise struct {
	NoRoute   To // a name that no route has
	NoName    To // a hello without a name
	NotTLS    To // neither TLS nor HTTP
	Malformed To // a hello that no server would understand
	Timeout   To // nothing, or not all of a hello, in time
	TooLarge  To // a hello above 64 KiB
}

var allPorts = target.PortRange{From: 1, To: 65535}

var (
	parseTransparent = choice([]string{TransparentOff, TransparentRedirect, TransparentTProxy})
	parseOwn         = choice([]string{SourceOwn, SourceClient})
	parseBalance     = choice([]string{"round-robin", "least", "client"})
	parseSendProxy   = choice([]string{"off", "v1", "v2"})
)

// sni makes l a listener of mode sni, with the defaults of that. all is whether it
// lets everything through that it understands.
func (l *Listener) sni(all bool) {
	closed := To{Kind: ToClose}
	l.SNI = &SNI{Transparent: TransparentOff, Source: SourceOwn, Otherwise: Otherwise{closed, closed, closed, closed, closed, closed}}
	l.Destinations.Ports = []target.PortRange{allPorts}
	if !all {
		return
	}
	original := To{Kind: ToOriginal}
	r := defaultRoute()
	r.Names, r.To = []string{"*"}, original
	l.SNI.Routes = []Route{r}
	l.SNI.Otherwise.NoName, l.SNI.Otherwise.NotTLS, l.SNI.Otherwise.Timeout = original, original, original
}

// passesAll reports whether n is a listener that restricts nothing: a transparent
// one without routes.
func passesAll(n node) bool {
	t := n.child("transparent").yaml.Value
	return (t == TransparentRedirect || t == TransparentTProxy) && !n.has("routes")
}

// sniKeys are what mode sni adds to the keys of every listener.
func (l *Listener) sniKeys() []field {
	s := cmp.Or(l.SNI, new(SNI)) // a listener of another mode is refused these keys
	return []field{
		key("transparent", s.readTransparent),
		key("source", value(&s.Source, parseOwn)),
		key("routes", some(s.readRoutes)),
		key("otherwise", s.Otherwise.read),
		key("opaque", list(&s.Opaque, target.ParsePorts)),
		key("capture", s.readCapture),
	}
}

// outcomes are the keys of otherwise, and their values.
func (o *Otherwise) outcomes() []outcome {
	return []outcome{
		{"no-route", &o.NoRoute},
		{"no-name", &o.NoName},
		{"not-tls", &o.NotTLS},
		{"malformed", &o.Malformed},
		{"timeout", &o.Timeout},
		{"too-large", &o.TooLarge},
	}
}

type outcome struct {
	key string
	to  *To
}

func (o *Otherwise) read(n node) {
	var known []field
	for _, out := range o.outcomes() {
		known = append(known, key(out.key, out.to.read))
	}
	n.fields(known...)
	for _, out := range o.outcomes() {
		if out.to.Kind == ToName {
			n.child(out.key).errorf("%q: there is no name to go by (use close, original or a list of backends)", ToName)
		}
	}
}

func (s *SNI) readTransparent(n node) {
	s.Transparent = "" // until it is found to be valid
	value(&s.Transparent, parseTransparent)(n)
}

func (s *SNI) readCapture(n node) {
	if n.kind() == kindText && n.yaml.Value == "all" {
		s.Capture = []target.PortRange{allPorts}
		return
	}
	oneOrMore(&s.Capture, target.ParsePorts)(n)
}

// checkSNI fills in what depends on other keys, and notes keys that exclude one
// another.
func (l *Listener) checkSNI(n node) {
	s := l.SNI
	if n.has("routes") {
		s.findTwins(n.child("routes"))
	}
	if s.Source == SourceClient {
		for _, at := range append(n.child("routes").items(), n) {
			if at.kind() == kindFields && at.has("pool") {
				at.child("pool").refuse("means nothing with  source: client")
			}
		}
	}
	switch s.Transparent {
	case TransparentOff:
		s.checkPlain(n)
		return
	case "":
		return
	}
	if s.Capture == nil && !n.has("capture") {
		s.Capture = portsOf(l.Listen)
	}
	for i := range s.Routes {
		s.Routes[i].To.Kind = cmp.Or(s.Routes[i].To.Kind, ToOriginal)
	}
}

const needsTransparent = "needs  transparent: redirect  or tproxy"

// checkPlain notes what a listener cannot do to which clients connect themselves.
func (s *SNI) checkPlain(n node) {
	for _, key := range []string{"opaque", "capture"} {
		if n.has(key) {
			n.child(key).refuse(needsTransparent)
		}
	}
	routes := n.child("routes").items()
	for i, r := range s.Routes {
		switch {
		case r.To.Kind == ToOriginal:
			routes[i].child("to").errorf("%q: %s", ToOriginal, needsTransparent)
		case r.To.Kind == "" && routes[i].kind() == kindFields && !routes[i].has("to"):
			routes[i].errorf("to: missing (such as [127.0.0.1:8443], name or close)")
		}
	}
	useless := !n.has("routes")
	for _, out := range s.Otherwise.outcomes() {
		if out.to.Kind == ToOriginal {
			n.child("otherwise").child(out.key).errorf("%q: %s", ToOriginal, needsTransparent)
		}
		useless = useless && out.to.Kind == ToClose
	}
	if useless {
		n.errorf("every connection would be closed (add routes, or  transparent: redirect)")
	}
}

// portsOf returns the ports of these addresses, without 0, in as few ranges as there
// can be.
func portsOf(listen []string) (ranges []target.PortRange) {
	var ports []uint16
	for _, s := range listen {
		_, text, _ := net.SplitHostPort(s)
		if port, _ := strconv.ParseUint(text, 10, 16); port != 0 {
			ports = append(ports, uint16(port))
		}
	}
	slices.Sort(ports)
	for _, port := range slices.Compact(ports) {
		if last := len(ranges) - 1; last >= 0 && ranges[last].To == port-1 {
			ranges[last].To = port
			continue
		}
		ranges = append(ranges, target.PortRange{From: port, To: port})
	}
	return ranges
}

// sni makes of the flags a listener of mode sni, which lets everything through: routes
// are in a file.
func (b *builder) sni(l *Listener) {
	l.sni(true)
	l.Name = "router"
	if b.Pool == "" {
		l.Pool = ""
	}
	if b.Listen == "" && b.given["listen"] == "" {
		b.errorf("-listen: missing in mode sni (such as :8443)")
	}
	one(b, "transparent", &l.SNI.Transparent, b.Transparent, parseTransparent)
	if l.SNI.Transparent == TransparentOff {
		b.errorf("-transparent: needs redirect or tproxy (routes for clients that connect themselves are in a file)")
	}
}

// capture reads which ports the kernel sends to l.
func (b *builder) capture(l *Listener) {
	if b.Capture == "all" {
		l.SNI.Capture = []target.PortRange{allPorts}
		return
	}
	if many(b, "capture", &l.SNI.Capture, b.Capture, target.ParsePorts); b.Capture == "" {
		l.SNI.Capture = portsOf(l.Listen)
	}
}
