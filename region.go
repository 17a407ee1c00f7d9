//go:build linux

package main

import (
	"maps"
	"net/netip"
	"strings"
	"time"

	"swivel/iface"
	"swivel/internal/config"
	"swivel/internal/geo"
	"swivel/internal/target"
	"swivel/rotate"
)

// countriesOf opens the database that cfg names; nil when there is none.
func countriesOf(cfg config.Geo) (*geo.Countries, error) {
	if cfg.Database == "" {
		return nil, nil
	}
	return geo.Open(cfg.Database)
}

// findAll finds the sources of all pools, and where they are. Its error is that of
// the database, and then the countries are what they were before.
func findAll(pools []config.Pool, h *iface.Host, c *geo.Countries, x *exits) ([][]found, error) {
	all := make([][]found, len(pools))
	for i, p := range pools {
		all[i] = find(p, h, x)
	}
	if c == nil {
		return all, nil
	}
	var addrs []netip.Addr
	each(all, func(s *rotate.Source) {
		if net := s.ID().Net; net.IsValid() {
			addrs = append(addrs, net.Addr())
		}
	})
	countries, err := c.Of(addrs)
	each(all, func(s *rotate.Source) { locate(s, countries[s.ID().Net.Addr()]) })
	return all, err
}

func each(all [][]found, do func(*rotate.Source)) {
	for _, entries := range all {
		for _, f := range entries {
			for i := range f.sources {
				do(&f.sources[i])
			}
		}
	}
}

// countryLabel is the label that the database gives.
const countryLabel = "country"

// locate labels s with its country, unless its label was written by hand.
func locate(s *rotate.Source, country string) {
	if country == "" || isLocated(s) {
		return
	}
	labels := maps.Clone(s.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[countryLabel] = country
	s.Labels = labels
}

func isLocated(s *rotate.Source) bool {
	for label := range s.Labels {
		if strings.EqualFold(label, countryLabel) {
			return true
		}
	}
	return false
}

// countriesInterval is how soon another database is noticed.
const countriesInterval = 2 * time.Second

// watchCountries gives the sources their countries anew when the database has
// changed, and goes on for as long as there is one. The caller holds mu.
func (p *proxy) watchCountries() {
	if p.countries == nil || p.watching {
		return
	}
	p.watching = true
	time.AfterFunc(countriesInterval, func() {
		p.mu.Lock()
		c := p.countries
		p.watching = false
		p.watchCountries()
		p.mu.Unlock()
		if c != nil && c.Changed() {
			p.setPools()
		}
	})
}

// sayCountries logs what is wrong with the database when that has changed. The
// caller holds mu.
func (p *proxy) sayCountries(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != p.lost {
		p.log.Warn().Err(err).Msg("reading countries, the old ones stay")
	}
	p.lost = text
}

// wants says what the sources for a listener's clients must be like; nil when any
// will do.
func wants(lc config.Listener) func(user string, t target.Target) []rotate.Want {
	if len(lc.Labels) == 0 && len(lc.Select) == 0 {
		return nil
	}
	always := wantsOf(lc.Labels)
	type selection struct {
		config.Selection
		wants []rotate.Want
	}
	selections := make([]selection, len(lc.Select))
	for i, s := range lc.Select {
		selections[i] = selection{s, wantsOf(s.Wants)}
	}
	return func(user string, t target.Target) []rotate.Want {
		all := always[:len(always):len(always)]
		for i := range selections {
			if s := &selections[i]; s.Applies(user, t) {
				all = append(all, s.wants...)
			}
		}
		return all
	}
}

func wantsOf(list []config.Want) []rotate.Want {
	wants := make([]rotate.Want, len(list))
	for i, w := range list {
		wants[i] = rotate.Want{Label: w.Label, Values: w.Values}
	}
	return wants
}
