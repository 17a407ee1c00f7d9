package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"swivel/internal/target"
)

// Upstream is another proxy that connections leave through, or several that DNS
// tells of.
type Upstream struct {
	Scheme         string // http, https or socks5
	Host           string // a name or an address; with SRV empty
	Port           uint16 // with SRV zero
	SRV            string // the name of SRV records (RFC 2782)
	User, Password string // "" means that it asks for none
	CA             string // path, PEM: who signs its certificate; "" means whom the system trusts
	SendProxy      string // v1 or v2: the PROXY header that it gets; "" means none
	Names          bool   // it looks names up itself
	Session        bool   // it is told of sessions
}

// The schemes of upstream proxies.
const (
	schemeHTTP   = "http"
	schemeHTTPS  = "https"
	schemeSOCKS5 = "socks5"
)

const upstreamExample = "http://user:password@node2.example:8080"

// parseUpstream reads where a proxy is. Its errors repeat nothing of a text that may
// have a password in it.
func parseUpstream(s string) (*Upstream, error) {
	u, host, port, err := parseProxyURL(s)
	if err != nil {
		return nil, err
	}
	if port == "" {
		return nil, fmt.Errorf("no port (write it as %s)", upstreamExample)
	}
	t, err := target.Parse(joinHost(host, port))
	if err != nil {
		return nil, fmt.Errorf("not a host and port (write it as %s)", upstreamExample)
	}
	u.Host, u.Port = t.Host(), t.Port
	return u, nil
}

// parseSRV reads a name of SRV records, alone or as the host of a URL.
func parseSRV(s string) (*Upstream, error) {
	if !strings.Contains(s, "://") {
		s = schemeHTTP + "://" + s
	}
	u, host, port, err := parseProxyURL(s)
	if err != nil {
		return nil, err
	}
	if port != "" {
		return nil, errors.New("a port (the records have the ports)")
	}
	t, err := target.ParseHost(host, 1)
	if err != nil || t.Name == "" || !strings.HasPrefix(t.Name, "_") {
		return nil, errors.New("not the name of SRV records (write it as _swivel._tcp.example, or http://user:password@_swivel._tcp.example)")
	}
	u.SRV = t.Name
	return u, nil
}

// parseProxyURL reads what both have in common.
func parseProxyURL(s string) (u *Upstream, host, port string, err error) {
	p, err := url.Parse(s)
	if err != nil || p.Host == "" || p.Opaque != "" {
		return nil, "", "", fmt.Errorf("not a URL (write it as %s; what is special in a password as %%40)", upstreamExample)
	}
	u = &Upstream{Scheme: p.Scheme, User: p.User.Username()}
	u.Password, _ = p.User.Password()
	switch {
	case p.Scheme != schemeHTTP && p.Scheme != schemeHTTPS && p.Scheme != schemeSOCKS5:
		err = fmt.Errorf("not a kind of proxy (use %s, %s or %s)", schemeHTTP, schemeHTTPS, schemeSOCKS5)
	case strings.Trim(p.Path, "/") != "" || p.RawQuery != "" || p.Fragment != "":
		err = fmt.Errorf("more than a host and port (write it as %s)", upstreamExample)
	case strings.Contains(u.User, ":"):
		err = errors.New("a colon in the user name (no proxy could tell it from the password)")
	case len(u.User) > maxUser || len(u.Password) > maxPassword:
		err = errors.New("a user name or password that is too long")
	case u.User == "" && u.Password != "":
		err = errors.New("a password and no user")
	}
	return u, p.Hostname(), p.Port(), err
}

// What SOCKS5 has room for, and in the user name for a session as well.
const (
	maxPassword = 255
	maxUser     = 200
)

func joinHost(host, port string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + port
}

var (
	parseResolve = choice([]string{"local", "remote"})
	parseSwitch  = choice([]string{"on", "off"})
)

// upstreamKeys are those that an upstream proxy has beside the one that says where
// it is; read puts into s.Upstream what they say.
func (s *Source) upstreamKeys() (keys []field, read func(n node)) {
	var ca, sendProxy, resolve, session string
	keys = []field{
		key("ca", text(&ca)),
		key("send_proxy", value(&sendProxy, parseSendProxy)),
		key("resolve", value(&resolve, parseResolve)),
		key("forward_session", value(&session, parseSwitch)),
	}
	return keys, func(n node) {
		u := s.Upstream
		switch {
		case u != nil:
			u.CA, u.SendProxy, u.Names, u.Session = n.file.beside(ca), strings.TrimSuffix(sendProxy, "off"), resolve == "remote", session == "on"
			u.check(n)
		case !n.has("upstream") && !n.has("upstream_srv"):
			for _, k := range keys {
				if n.has(k.key) {
					n.child(k.key).refuse("a key of upstream and upstream_srv")
				}
			}
		}
	}
}

// check finds what does not go together; n is the source.
func (u *Upstream) check(n node) {
	switch {
	case u.CA != "" && u.Scheme != schemeHTTPS:
		n.child("ca").errorf("nobody shows a certificate (write https://, or leave the key out)")
	case u.Session && u.User == "":
		n.child("forward_session").errorf("the user name tells of the session, and there is none (write it as %s)", upstreamExample)
	case u.SRV != "" && n.has("weight"):
		n.child("weight").errorf("the SRV records have weights (leave the key out)")
	}
}
