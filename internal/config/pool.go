package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

func defaultPool(name string) Pool {
	return Pool{Name: name, Strategy: "round-robin", HashBy: "session", Refresh: 30 * time.Minute, Cooldown: defaultCooldown()}
}

// Cooldown is what becomes of sources that fail where others succeed.
type Cooldown struct {
	After       int           // failures in a row; default 3, zero means that none cools
	For         time.Duration // the first time; default 30s
	Most        time.Duration // the time doubles up to this; default 10m, never less than For
	Keep        int           // percent of the sources that do not cool; default 50
	WhenAllCool string        // when all cool: use or refuse; default use
}

func defaultCooldown() Cooldown {
	return Cooldown{After: 3, For: 30 * time.Second, Most: 10 * time.Minute, Keep: 50, WhenAllCool: "use"}
}

func (c *Cooldown) read(n node) {
	n.fields(
		key("after", number(&c.After, 0, 1000)),
		key("for", duration(&c.For, time.Millisecond)),
		key("most", duration(&c.Most, time.Millisecond)),
		key("keep", value(&c.Keep, parsePercent)),
		key("when_all_cool", value(&c.WhenAllCool, parseAllCool)),
	)
	if c.Most < c.For && n.has("most") {
		n.child("most").errorf("less than for, %v", c.For)
	}
	c.Most = max(c.Most, c.For)
}

func (c *Config) readPools(n node) {
	n.pairs(func(name string, v node) {
		if _, err := parseText(name); err != nil {
			v.errorf("%v", err)
			return
		}
		p := defaultPool(name)
		p.read(v)
		c.Pools = append(c.Pools, p)
	})
}

func (p *Pool) read(n node) {
	n.fields(
		key("sources", some(p.readSources)),
		key("strategy", value(&p.Strategy, parseStrategy)),
		key("hash_by", value(&p.HashBy, parseHashBy)),
		key("spacing", duration(&p.Spacing, 0)),
		key("wait", duration(&p.Wait, 0)),
		key("refresh", duration(&p.Refresh, time.Second)),
		key("cooldown", p.Cooldown.read),
		key("max_tunnel_age", duration(&p.MaxAge, 0)),
		key("max_tunnel_bytes", value(&p.MaxBytes, parseSize)),
	)
	if p.Wait > 0 && p.Spacing == 0 && !n.has("spacing") {
		n.child("wait").errorf("waits for nothing (add spacing, such as  spacing: 1s)")
	}
}

func (p *Pool) readSources(n node) {
	n.each(func(n node) {
		s := Source{Weight: 1}
		s.read(n)
		p.Sources = append(p.Sources, s)
	})
}

func (s *Source) read(n node) {
	more, readMore := s.upstreamKeys()
	n.fields(append([]field{
		key("interface", value(&s.Interface, parseInterface)),
		key("mac", value(&s.MAC, parseMAC)),
		key("address", value(&s.Address, parseAddress)),
		key("prefix", value(&s.Prefix, parseSourcePrefix)),
		key("spread", number(&s.Spread, 1, 128)),
		key("upstream", value(&s.Upstream, parseUpstream)),
		key("upstream_srv", value(&s.Upstream, parseSRV)),
		key("weight", number(&s.Weight, 1, 1000)),
		key("labels", s.readLabels),
	}, more...)...)
	readMore(n)
	if err := s.checkSpread(n.has("spread")); err != nil {
		n.child("spread").errorf("%v", err)
	}
	kinds := slices.DeleteFunc([]string{"interface", "mac", "address", "prefix", "upstream", "upstream_srv"}, func(key string) bool { return !n.has(key) })
	switch {
	case len(kinds) == 0:
		n.errorf("what is it? (write one of interface, mac, address, prefix, upstream and upstream_srv)")
	case len(kinds) > 1:
		n.errorf("%s exclude each other (write a source for each)", strings.Join(kinds, " and "))
	}
}

// checkSpread fills in the default, unless a spread is given.
func (s *Source) checkSpread(given bool) error {
	width, bits := s.Prefix.Addr().BitLen(), s.Prefix.Bits()
	switch {
	case !s.Prefix.IsValid() && given:
		return errors.New("of what? (a key of prefix)")
	case !s.Prefix.IsValid():
		return nil
	case !given && s.Prefix.Addr().Is6() && bits <= 64:
		s.Spread = 64
	case !given:
		s.Spread = width
	case s.Spread < bits || s.Spread > width:
		return fmt.Errorf("%d: want %d to %d", s.Spread, bits, width)
	case s.Spread == width-1 && bits < width-1:
		return fmt.Errorf("%d: parts of two addresses (write %d)", s.Spread, width)
	}
	return nil
}

func (s *Source) readLabels(n node) {
	s.Labels = make(map[string]string)
	n.pairs(func(name string, v node) {
		var label string
		text(&label)(v)
		s.Labels[name] = label
	})
}
