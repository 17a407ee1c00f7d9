package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"swivel/rotate"
)

// ask is what a client asks for in its user name, behind the user's own:
//
//	alice-session-x1-sesstime-10-country-de-pool-main-label-line-b-source-203.0.113.5
//
// Keys and values are separated by hyphens, and so have none themselves, but for the
// names of pools.
type ask struct {
	session string
	time    time.Duration // of the session; zero means that it was not said
	pool    string
	source  netip.Addr
	wants   []rotate.Want
}

// Asks are the keys of an ask that a user may be allowed.
var Asks = []string{"session", "country", "label", "pool", "source"}

// Rights are what users may ask for.
type Rights struct {
	Users []string // none: everyone
	Ask   []string // of Asks
	Pools []string // none: each
}

// ordinary are the rights of everyone where none are configured.
var ordinary = Rights{Ask: []string{"session", "country", "label", "pool"}}

// errMayNot: the user may not ask for that.
type errMayNot string

func (e errMayNot) Error() string { return string(e) + " may not be asked for" }

// rightsOf returns the rights of a user: the first that are for him.
func (d *Door) rightsOf(user string) Rights {
	if d.Rights == nil {
		return ordinary
	}
	for _, r := range d.Rights {
		if len(r.Users) == 0 || slices.Contains(r.Users, user) {
			return r
		}
	}
	return Rights{}
}

// check judges what user asks for.
func (d *Door) check(user string, a *ask) error {
	r := d.rightsOf(user)
	for _, key := range Asks {
		if a.has(key) && !slices.Contains(r.Ask, key) {
			return errMayNot(key)
		}
	}
	if a.pool != "" && len(r.Pools) > 0 && !slices.Contains(r.Pools, a.pool) {
		return errMayNot("this pool")
	}
	return nil
}

// has reports whether a asks for that one of Asks.
func (a *ask) has(key string) bool {
	switch key {
	case "session":
		return a.session != ""
	case "pool":
		return a.pool != ""
	case "source":
		return a.source.IsValid()
	case "country":
		return slices.ContainsFunc(a.wants, isCountry)
	default:
		return slices.ContainsFunc(a.wants, func(w rotate.Want) bool { return !isCountry(w) })
	}
}

func isCountry(w rotate.Want) bool { return w.Label == "country" }

// maxAskValue bounds a value.
const maxAskValue = 64

// readAsk reads what follows the user's name: nothing, or a hyphen and keys with
// their values. Its error is a malformed that names the key.
func (d *Door) readAsk(text string) (a ask, err error) {
	rest, ok := strings.CutPrefix(text, "-")
	if !ok {
		return a, nil
	}
	seen := make(map[string]bool)
	for words := strings.Split(rest, "-"); len(words) > 0; {
		key := words[0]
		n, err := d.readKey(&a, key, words[1:])
		if err != nil {
			return ask{}, malformed(fmt.Sprintf("user name: %s: %v", shown(key), err))
		}
		if seen[key] && key != "label" {
			return ask{}, malformed("user name: " + key + " comes twice")
		}
		seen[key] = true
		words = words[1+n:]
	}
	if a.time != 0 && a.session == "" {
		return ask{}, malformed("user name: sesstime without session")
	}
	return a, nil
}

// shown is a key as a client may be told of it: what is not a word stays out of the
// answer.
func shown(key string) string {
	if key == "" || len(key) > 32 {
		return "a key"
	}
	for i := range len(key) {
		if c := key[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_') {
			return "a key"
		}
	}
	return key
}

var (
	errNoValue = errors.New("no value")
	errValue   = errors.New("bad value")
)

// readKey reads the value of a key from the words behind it, and returns how many
// those were.
func (d *Door) readKey(a *ask, key string, words []string) (n int, err error) {
	switch key {
	case "session", "sesstime", "country", "source", "label", "pool":
	default:
		return 0, errors.New("unknown key")
	}
	if len(words) == 0 || words[0] == "" {
		return 0, errNoValue
	}
	value := words[0]
	if len(value) > maxAskValue {
		return 0, errValue
	}
	switch key {
	case "session":
		a.session = value
	case "sesstime":
		a.time, err = readSessionTime(value)
	case "country":
		a.wants = append(a.wants, rotate.Want{Label: "country", Values: []string{value}})
	case "source":
		// A colon ends the user name of HTTP (RFC 7617).
		a.source, err = netip.ParseAddr(strings.ReplaceAll(value, "_", ":"))
		if err != nil || a.source.Zone() != "" {
			return 0, errValue
		}
		a.source = a.source.Unmap()
	case "label":
		if len(words) < 2 || words[1] == "" {
			return 0, errNoValue
		}
		if len(words[1]) > maxAskValue {
			return 0, errValue
		}
		a.wants = append(a.wants, rotate.Want{Label: value, Values: []string{words[1]}})
		return 2, nil
	case "pool":
		return d.readPool(a, words)
	}
	return 1, err
}

// readPool finds the pool with the longest name that words begin with.
func (d *Door) readPool(a *ask, words []string) (n int, err error) {
	for n := min(len(words), maxAskValue); n > 0; n-- {
		name := strings.Join(words[:n], "-")
		if d.Pools[name] != nil {
			a.pool = name
			return n, nil
		}
	}
	return 0, errors.New("no such pool")
}

// longestSession is the longest time that a session may ask for.
const longestSession = 24 * time.Hour

// readSessionTime reads minutes, or a number with a unit.
func readSessionTime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if minutes, nerr := strconv.ParseUint(s, 10, 16); nerr == nil {
		d, err = time.Duration(minutes)*time.Minute, nil
	}
	if err != nil || d < time.Second || d > longestSession {
		return 0, errValue
	}
	return d, nil
}

// identify tells the user in a name from what it asks for. Where there are users, it
// is the longest of them that the name begins with; otherwise a user has no hyphen.
func (d *Door) identify(name string) (user, rest string) {
	if d.Users != nil {
		user = d.Users.Longest(name)
	} else {
		user, _, _ = strings.Cut(name, "-")
	}
	return user, name[len(user):]
}
