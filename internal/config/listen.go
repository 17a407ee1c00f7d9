package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// parseListen reads where to listen and returns the one way of writing it.
func parseListen(s string) (string, error) {
	if _, ok := strings.CutPrefix(s, "udp/"); ok {
		return "", fmt.Errorf("%q: UDP is %w", shorten(s), errLater)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q: %s", shorten(s), listenHint(s))
	}
	if from, to, ok := strings.Cut(port, "-"); ok && isPort(from) && isPort(to) {
		return "", fmt.Errorf("%q: port ranges are %w", shorten(s), errLater)
	}
	if !isPort(port) {
		return "", fmt.Errorf("%q: a port is 0 to 65535", shorten(s))
	}
	switch host {
	case "":
		return ":" + port, nil
	case "localhost":
		host = "127.0.0.1"
	}
	addr, err := parseIP(host)
	if err != nil {
		return "", fmt.Errorf("%q: not an address (write :%s for every address, 127.0.0.1:%s for this host alone)", shorten(s), port, port)
	}
	return net.JoinHostPort(addr.String(), port), nil
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
