package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// keys are all keys that may be accepted. What is below "*" has names of its own,
// and a list is as what stands in it.
var keys = map[string]any{
	"log":      map[string]any{"level": nil, "format": nil},
	"admin":    map[string]any{"listen": nil, "clients": nil},
	"limits":   map[string]any{"connections": nil, "per_client": nil, "head": nil, "dial": nil, "idle": nil, "half_closed": nil, "lifetime": nil, "user_timeout": nil, "first_byte": nil, "udp_idle": nil, "drain": nil},
	"resolver": map[string]any{"servers": nil, "timeout": nil, "prefer": nil, "cache": nil},
	"geo":      map[string]any{"database": nil},
	"pools": map[string]any{"*": map[string]any{
		"sources":  map[string]any{"interface": nil, "mac": nil, "address": nil, "prefix": nil, "spread": nil, "upstream": nil, "upstream_srv": nil, "ca": nil, "send_proxy": nil, "resolve": nil, "forward_session": nil, "weight": nil, "labels": map[string]any{"*": nil}},
		"strategy": nil, "hash_by": nil, "spacing": nil, "wait": nil, "refresh": nil, "max_tunnel_age": nil, "max_tunnel_bytes": nil,
		"cooldown": map[string]any{"after": nil, "for": nil, "most": nil, "keep": nil, "when_all_cool": nil},
	}},
	"listeners": map[string]any{
		"name": nil, "listen": nil, "mode": nil, "pool": nil, "users": nil, "clients": nil, "accept_proxy": nil, "ipv4_in_tcp6": nil, "mark": nil, "transparent": nil, "verify_name": nil,
		"opaque": nil, "capture": nil, "otherwise": map[string]any{"no-route": nil, "no-name": nil, "not-tls": nil, "malformed": nil, "timeout": nil, "too-large": nil},
		"routes": map[string]any{"names": nil, "alpn": nil, "to": nil, "balance": nil, "send_proxy": nil, "check": nil, "pool": nil},
		"from":   nil, "to": nil, "source": nil, "udp_header": nil, "allow_sources": nil,
		"sessions":     map[string]any{"time": nil, "idle": nil, "on_gone": nil},
		"users_may":    map[string]any{"users": nil, "ask": nil, "pools": nil},
		"tls":          map[string]any{"certificate": nil, "key": nil},
		"labels":       map[string]any{"*": nil},
		"select":       map[string]any{"users": nil, "names": nil, "labels": map[string]any{"*": nil}},
		"destinations": map[string]any{"allow": nil, "deny": nil, "ports": nil},
	},
}

// FuzzParse: whatever the file, it is accepted with known keys only, as a
// configuration that is valid, or refused with lines that say where.
func FuzzParse(f *testing.F) {
	f.Add(sample)
	for _, tt := range refused {
		f.Add(tt.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f.yaml", []byte(text))
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "f.yaml:") || strings.ContainsFunc(line, func(r rune) bool { return !strconv.IsPrint(r) }) {
					t.Errorf("error line %q", line)
				}
			}
			return
		}
		var tree any
		if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
			t.Fatalf("accepted, but the library says: %v", err)
		}
		checkKeys(t, tree, keys)
		checkValid(t, c)
		if again, err := Parse("f.yaml", []byte(text)); err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%+v became %+v, %v", c, again, err)
		}
	})
}

func checkKeys(t *testing.T, tree any, known map[string]any) {
	switch tree := tree.(type) {
	case []any:
		for _, v := range tree {
			checkKeys(t, v, known)
		}
	case map[any]any: // one of the keys is no text for the library
		for k, v := range tree {
			checkKeys(t, map[string]any{fmt.Sprint(k): v}, known)
		}
	case map[string]any:
		for k, v := range tree {
			below, ok := known[k]
			if any, all := known["*"]; all {
				below, ok = any, true
			}
			if !ok {
				t.Errorf("key %q was accepted", k)
			}
			next, _ := below.(map[string]any)
			checkKeys(t, v, next)
		}
	}
}

func checkValid(t *testing.T, c *Config) {
	var names []string
	for _, p := range c.Pools {
		names = append(names, p.Name)
		for _, s := range p.Sources {
			kinds := 0
			for _, is := range []bool{s.Interface != "", s.MAC != nil, s.Address.IsValid(), s.Prefix.IsValid(), s.Upstream != nil} {
				if is {
					kinds++
				}
			}
			if kinds != 1 || s.Weight < 1 || s.MAC != nil && len(s.MAC) != 6 {
				t.Errorf("source %+v", s)
			}
		}
	}
	for _, p := range c.Pools {
		for _, s := range p.Sources {
			if u := s.Upstream; u != nil && ((u.SRV == "") == (u.Host == "" || u.Port == 0) || u.CA != "" && u.Scheme != "https" || u.Session && u.User == "") {
				t.Errorf("upstream %+v", u)
			}
		}
	}
	m := c.Limits
	if m.Connections < 1 || m.PerClient < 1 || m.Head <= 0 || m.Dial <= 0 || m.UserTimeout <= 0 || m.Idle < 0 || m.HalfClosed < 0 || m.Lifetime < 0 || m.Drain < 0 {
		t.Errorf("limits %+v", m)
	}
	if c.Admin.Listen != "" && exposed([]string{c.Admin.Listen}) != "" && len(c.Admin.Clients) == 0 {
		t.Errorf("admin for everyone: %+v", c.Admin)
	}
	if len(c.Listeners) == 0 {
		t.Error("no listeners")
	}
	for _, l := range c.Listeners {
		if l.Name == "" || len(l.Listen) == 0 || len(l.Destinations.Ports) == 0 {
			t.Errorf("listener %+v", l)
		}
		if l.Mode == "unwrap" {
			checkUnwrap(t, l)
		} else if l.Mode == "sni" {
			checkSNI(t, l, names)
		} else if !slices.Contains(names, l.Pool) || l.Mode != "connect" || l.Unwrap != nil || l.SNI != nil {
			t.Errorf("listener %+v", l)
		}
		for _, s := range l.Listen {
			if again, err := parseListen(s); err != nil || again.String() != s {
				t.Errorf("listens on %q, which is %q, %v", s, again, err)
			}
			ap, err := netip.ParseAddrPort(s)
			if local := err == nil && ap.Addr().IsLoopback(); !local && l.Users == "" && len(l.Clients) == 0 && l.Mode == "connect" {
				t.Errorf("open proxy on %s", s)
			}
		}
	}
}

func checkUnwrap(t *testing.T, l Listener) {
	u := l.Unwrap
	if u == nil || l.Pool != "" || len(u.From) == 0 || len(u.To) > 2 ||
		len(u.To) == 2 && u.To[0].Addr().Is4() == u.To[1].Addr().Is4() ||
		!slices.Contains([]string{"keep-port", "any-port", "own"}, u.Source) || !slices.Contains([]string{"every", "first"}, u.UDPHeader) {
		t.Errorf("listener %+v, %+v", l, u)
	}
	for _, to := range u.To {
		if !to.Addr().IsValid() || to.Addr().Is4In6() || to.Addr().IsUnspecified() || to.Addr().Zone() != "" {
			t.Errorf("to %v", to)
		}
	}
}

func checkSNI(t *testing.T, l Listener, pools []string) {
	s := l.SNI
	if s == nil || l.Unwrap != nil || l.Pool != "" && !slices.Contains(pools, l.Pool) || len(s.Opaque) > 0 && s.Transparent == TransparentOff {
		t.Errorf("listener %+v, %+v", l, s)
		return
	}
	for _, out := range s.Otherwise.outcomes() {
		checkTo(t, s, *out.to)
		if out.to.Kind == ToName {
			t.Errorf("%s: %+v", out.key, out.to)
		}
	}
	seen := make(map[string]bool)
	for _, r := range s.Routes {
		checkTo(t, s, r.To)
		if len(r.Names) == 0 || r.Pool != "" && !slices.Contains(pools, r.Pool) || r.Balance == "" || r.SendProxy == "" {
			t.Errorf("route %+v", r)
		}
		for _, name := range r.Names {
			if again, err := parseRouteName(name); err != nil || again != name || len(r.ALPN) == 0 && seen[name] {
				t.Errorf("route for %q, which is %q, %v", name, again, err)
			}
			seen[name] = seen[name] || len(r.ALPN) == 0
		}
	}
}

func checkTo(t *testing.T, s *SNI, to To) {
	switch to.Kind {
	case ToOriginal:
		if s.Transparent == TransparentOff {
			t.Errorf("to: %+v", to)
		}
	case ToBackends:
		if len(to.Backends) == 0 {
			t.Errorf("to: %+v", to)
		}
	case ToClose, ToName:
	default:
		t.Errorf("to: %+v", to)
	}
}
