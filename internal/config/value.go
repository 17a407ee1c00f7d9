package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

func parseText(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("empty (leave the key out, or give it text)")
	case strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }):
		return "", fmt.Errorf("%q: characters that do not print", shorten(s))
	}
	return s, nil
}

// choice reads one of the words.
func choice(words []string) func(string) (string, error) {
	return func(s string) (string, error) {
		if slices.Contains(words, s) {
			return s, nil
		}
		all := words[0]
		if n := len(words) - 1; n > 0 {
			all = strings.Join(words[:n], ", ") + " or " + words[n]
		}
		return "", fmt.Errorf("%q: use %s", shorten(s), all)
	}
}

var (
	parseLevel    = choice([]string{"debug", "info", "warn", "error"})
	parseFormat   = choice([]string{"json", "console"})
	parsePrefer   = choice([]string{"any", "ipv4", "ipv6"})
	parseMode     = choice([]string{modeConnect, modeSNI, modeUnwrap})
	parseStrategy = choice([]string{"round-robin", "random", "least-used", "per-target", "hash"})
	parseAllCool  = choice([]string{"use", "refuse"})
	parseHashBy   = choice([]string{"client", "user", "session", "target"})
)

// parseNumber reads a whole number, in decimal or as 0x1f. A leading zero is
// refused: it is octal for some readers of YAML.
func parseNumber(least, most uint64) func(string) (int, error) {
	return func(s string) (int, error) {
		digits, base := s, 10
		if hex, ok := strings.CutPrefix(s, "0x"); ok {
			digits, base = hex, 16
		}
		v, err := strconv.ParseUint(digits, base, 64)
		if err != nil || v < least || v > most || base == 10 && len(s) > 1 && s[0] == '0' {
			return 0, fmt.Errorf("%q: want a whole number, %d to %d", shorten(s), least, most)
		}
		return int(v), nil
	}
}

// parsePercent reads a share of 0% to 100%.
func parsePercent(s string) (int, error) {
	digits, ok := strings.CutSuffix(s, "%")
	v, err := parseNumber(0, 100)(digits)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q: want a share, 0%% to 100%%", shorten(s))
	}
	return v, nil
}

// parseSize reads a number of bytes, with a unit or without.
func parseSize(s string) (int, error) {
	digits, unit := s, uint64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if d, ok := strings.CutSuffix(s, suffix); ok {
			digits, unit = strings.TrimSpace(d), 1<<(10*(i+1))
		}
	}
	v, err := parseNumber(0, math.MaxInt64/unit)(digits)
	if err != nil {
		return 0, fmt.Errorf("%q: not a size (write it as 1000000, 500MiB or 2GiB)", shorten(s))
	}
	return v * int(unit), nil
}

// longest keeps a duration far from where adding it to a time would overflow.
const longest = 10 * 365 * 24 * time.Hour

func parseDuration(least, most time.Duration) func(string) (time.Duration, error) {
	return func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if _, nerr := strconv.ParseFloat(s, 64); err != nil && nerr == nil {
			return 0, fmt.Errorf("%q: no unit (write %ss)", shorten(s), shorten(s))
		}
		switch {
		case err != nil:
			return 0, fmt.Errorf("%q: not a duration (write it as 10s, 5m or 1h30m)", shorten(s))
		case d < 0:
			return 0, fmt.Errorf("%q: negative", shorten(s))
		case d < least:
			return 0, fmt.Errorf("%q: want at least %v", shorten(s), least)
		case d > most:
			return 0, fmt.Errorf("%q: want at most %dh", shorten(s), most/time.Hour)
		}
		return d, nil
	}
}

// parseClients reads who may connect: a prefix, or one address.
func parseClients(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q: not an address or prefix (write it as 192.0.2.0/24 or 2001:db8::/32)", shorten(s))
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q: matches nothing (write it as IPv4)", s)
	case p != p.Masked():
		return p, fmt.Errorf("%q: bits are set behind the prefix (did you mean %v?)", s, p.Masked())
	}
	return p, nil
}

// parseServer reads a DNS server: "IP" or "IP:port".
func parseServer(s string) (netip.AddrPort, error) {
	if addr, err := parseIP(s); err == nil {
		return netip.AddrPortFrom(addr, 53), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err == nil && ap.Port() != 0 {
		if addr, err := parseIP(ap.Addr().String()); err == nil {
			return netip.AddrPortFrom(addr, ap.Port()), nil
		}
	}
	return ap, fmt.Errorf("%q: not an address (write it as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:5353)", shorten(s))
}

// parseIP reads an address. Its zone, if any, must be the name of an interface.
func parseIP(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err == nil && addr.Zone() != "" {
		_, err = parseInterface(addr.Zone())
	}
	return addr.Unmap(), err
}

// parseInterface reads the name of an interface; what it may be is in
// dev_valid_name of the kernel.
func parseInterface(s string) (string, error) {
	if _, err := netip.ParseAddr(s); err == nil && !strings.Contains(s, "%") {
		return "", fmt.Errorf("%q: an address (write address: %s)", s, s)
	}
	if _, err := parseText(s); err != nil || len(s) > 15 || s == "." || s == ".." || strings.ContainsAny(s, "/: ") {
		return "", fmt.Errorf("%q: not the name of an interface", shorten(s))
	}
	return s, nil
}

func parseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("%q: not a MAC address (write it as 5e:88:52:b0:f7:5b)", shorten(s))
	}
	return mac, nil
}

// parseAddress reads an address that connections can leave by.
func parseAddress(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	addr = addr.Unmap()
	switch {
	case err != nil && strings.Contains(s, "/"):
		return addr, fmt.Errorf("%q: not an address (write prefix: %s)", shorten(s), shorten(s))
	case err != nil:
		return addr, fmt.Errorf("%q: not an address (write it as 192.0.2.1 or 2001:db8::1)", shorten(s))
	case addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast():
		return addr, fmt.Errorf("%q: nothing can leave by this address", s)
	}
	return addr, nil
}

// parseSourcePrefix reads a prefix that connections can leave by any address of.
func parseSourcePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q: not a prefix (write it as 2001:db8:1::/48 or 192.0.2.0/24)", shorten(s))
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q: write it as IPv4", s)
	case p != p.Masked():
		return p, fmt.Errorf("%q: bits are set behind the prefix (did you mean %v?)", s, p.Masked())
	case p.Bits() == 0 || p.Addr().IsMulticast():
		return p, fmt.Errorf("%q: nothing can leave by these addresses", s)
	}
	return p, nil
}

// parseSource reads an interface, a MAC, an address or the URL of a proxy, told apart
// by their form.
func parseSource(s string) (Source, error) {
	src := Source{Weight: 1}
	_, macErr := net.ParseMAC(s)
	_, addrErr := netip.ParseAddr(s)
	var err error
	switch {
	case strings.Contains(s, "://"):
		src.Upstream, err = parseUpstream(s)
	case strings.Contains(s, "/"):
		src.Prefix, err = parseSourcePrefix(s)
		src.checkSpread(false)
	case addrErr == nil:
		src.Address, err = parseAddress(s)
	case macErr == nil:
		src.MAC, err = parseMAC(s)
	case strings.Contains(s, ":"):
		err = fmt.Errorf("%q: neither a MAC address nor IPv6", shorten(s))
	default:
		src.Interface, err = parseInterface(s)
	}
	return src, err
}
