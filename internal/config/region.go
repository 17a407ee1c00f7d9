package config

import (
	"slices"

	"swivel/internal/target"
)

// Geo says how the countries of sources are known.
type Geo struct {
	Database string // path of a MaxMind database of countries or cities; "" means that they are not
}

// Want is a condition on a source: that it has the label, with one of the values.
type Want struct {
	Label  string
	Values []string // at least one
}

// Selection is what a source must be like for some of a listener's clients or
// destinations.
type Selection struct {
	Users []string      // these alone; none means everyone
	Names []target.Rule // to these destinations alone; none means everywhere
	Wants []Want        // at least one
}

// Applies reports whether s is for a user, "" when nobody logged in, who goes to t.
func (s *Selection) Applies(user string, t target.Target) bool {
	if len(s.Users) > 0 && !slices.Contains(s.Users, user) {
		return false
	}
	return len(s.Names) == 0 || slices.ContainsFunc(s.Names, func(r target.Rule) bool { return r.Match(t) })
}

func (c *Config) readGeo(n node) {
	n.fields(key("database", func(n node) {
		if n.kind() == kindText && n.yaml.Value == "" {
			return // written, and not used
		}
		text(&c.Geo.Database)(n)
		c.Geo.Database = n.file.beside(c.Geo.Database)
	}))
}

func (l *Listener) readSelect(n node) {
	n.each(func(n node) {
		var s Selection
		n.fields(
			key("users", some(list(&s.Users, parseText))),
			key("names", some(list(&s.Names, target.ParseRule))),
			required("labels", "such as {country: [de, at]}", readWants(&s.Wants)),
		)
		if !n.has("users") && !n.has("names") {
			n.errorf("for whom, or where to? (write users or names; what is for all of the listener is its labels)")
		}
		l.Select = append(l.Select, s)
	})
}

// readWants reads labels with the values that will do, in the order of the file.
func readWants(dst *[]Want) func(node) {
	return func(n node) {
		n.pairs(func(name string, v node) {
			w := Want{Label: name}
			if v.kind() == kindList {
				some(func(n node) {
					n.each(func(item node) {
						var value string
						text(&value)(item)
						w.Values = append(w.Values, value)
					})
				})(v)
			} else {
				w.Values = make([]string, 1)
				text(&w.Values[0])(v)
			}
			*dst = append(*dst, w)
		})
		if n.kind() == kindFields && len(n.yaml.Content) == 0 {
			n.errorf("no label (leave the key out, or name one)")
		}
	}
}
