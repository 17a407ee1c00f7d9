package config

import (
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// sockets is an entry of listen: one port of an address, or a range of them.
type sockets struct {
	network  string // tcp or udp; "" of an entry that is not valid
	host     string // "" is every address
	from, to uint16
}

// maxSockets bounds the ports of a configuration.
const maxSockets = 1 << 16

const udpPrefix = "udp/"

// parseListen reads where to listen.
func parseListen(text string) (sockets, error) {
	s := sockets{network: "tcp"}
	bare, udp := strings.CutPrefix(text, udpPrefix)
	if udp {
		s.network = "udp"
	}
	host, port, err := net.SplitHostPort(bare)
	if err != nil {
		return sockets{}, fmt.Errorf("%q: %s", shorten(text), listenHint(bare))
	}
	if s.from, s.to, err = parsePortRange(port); err != nil {
		return sockets{}, fmt.Errorf("%q: %w", shorten(text), err)
	}
	switch host {
	case "":
		return s, nil
	case "localhost":
		host = "127.0.0.1"
	}
	addr, err := parseIP(host)
	if err != nil {
		return sockets{}, fmt.Errorf("%q: not an address (write :%s for every address, 127.0.0.1:%[2]s for this host alone)", shorten(text), port)
	}
	s.host = addr.String()
	return s, nil
}

func parsePortRange(text string) (from, to uint16, err error) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	if !isPort(first) || !isPort(last) {
		return 0, 0, errors.New("a port is 0 to 65535")
	}
	a, _ := strconv.ParseUint(first, 10, 16)
	b, _ := strconv.ParseUint(last, 10, 16)
	if isRange && (a == 0 || a >= b) {
		return 0, 0, errors.New("a range is from a port above 0 to a higher one (write it as 2000-2100)")
	}
	return uint16(a), uint16(b), nil
}

// listenHint says what is wrong with an address that net.SplitHostPort refuses.
func listenHint(s string) string {
	addr, err := parseIP(strings.Trim(s, "[]"))
	switch {
	case isPort(s):
		return fmt.Sprintf("no address (write :%s for every address, 127.0.0.1:%s for this host alone)", s, s)
	case err == nil:
		return fmt.Sprintf("no port (write %s)", net.JoinHostPort(addr.String(), "8080"))
	default:
		return "not an address and port (write it as 127.0.0.1:8080, [::1]:8080 or :8080)"
	}
}

// isPort reports whether s is a port as it is usually written: no sign, no leading
// zero. Package net takes more than that, and 4294967739 as 443.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && s == strconv.FormatUint(n, 10)
}

func (s sockets) len() int { return int(s.to) - int(s.from) + 1 }

// String is the one way of writing s.
func (s sockets) String() string {
	port := strconv.Itoa(int(s.from))
	if s.to != s.from {
		port += "-" + strconv.Itoa(int(s.to))
	}
	text := net.JoinHostPort(s.host, port)
	if s.network == "udp" {
		text = udpPrefix + text
	}
	return text
}

// each is the sockets of s, one by one.
func (s sockets) each() iter.Seq[sockets] {
	return func(yield func(sockets) bool) {
		for port := int(s.from); port <= int(s.to); port++ {
			if !yield(sockets{s.network, s.host, uint16(port), uint16(port)}) {
				return
			}
		}
	}
}

// listen adds s to where l listens. n is how many sockets the configuration has so
// far.
func (l *Listener) listen(s sockets, n *int) error {
	*n += s.len()
	switch {
	case *n > maxSockets:
		return fmt.Errorf("%q: more than %d ports in all", s, maxSockets)
	case s.network == "udp" && l.Mode != modeUnwrap && l.Mode != "":
		return fmt.Errorf("%q: UDP is for mode %s (this listener's mode is %s)", s, modeUnwrap, l.Mode)
	}
	for one := range s.each() {
		l.Listen = append(l.Listen, one.String())
	}
	if l.Name == "" {
		l.Name = s.String()
	}
	return nil
}

// readListen reads the addresses of a listener.
func (l *Listener) readListen(n node) {
	var entries []sockets
	oneOrMore(&entries, parseListen)(n)
	items := n.items()
	for i, s := range entries {
		if s.network == "" { // that has been said
			continue
		}
		if err := l.listen(s, &n.file.sockets); err != nil {
			items[i].errorf("%v", err)
		}
	}
}

// exposed returns the first of these addresses that others than this host can reach,
// or "".
func exposed(listen []string) string {
	for _, s := range listen {
		ap, err := netip.ParseAddrPort(s)
		if err != nil || !ap.Addr().IsLoopback() {
			return s
		}
	}
	return ""
}
