// Package geo knows in which country an address is, from a MaxMind database of
// countries or cities (GeoLite2, GeoIP2, DB-IP).
//
// It is asked about the few addresses that this host leaves by, not about those of
// clients. So it holds their countries and not the database, which is opened when
// it has changed or when there is an address that was not asked about before.
package geo

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"
)

// Countries tells the countries of addresses by one database file. Its methods may
// be called by several goroutines at once.
type Countries struct {
	path string

	mu sync.Mutex
	// guards
	file  os.FileInfo // as it was when it was last read; nil: it is to be read
	known map[netip.Addr]string
}

// Open returns the Countries of the database at path, or says why it cannot be read.
func Open(path string) (*Countries, error) {
	c := &Countries{path: path}
	_, err := c.Of(nil)
	return c, err
}

// Changed reports whether the file is another than the one that was read last.
func (c *Countries) Changed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed()
}

func (c *Countries) changed() bool {
	info, err := os.Stat(c.path)
	return err == nil && (c.file == nil || !os.SameFile(info, c.file) || info.Size() != c.file.Size() || !info.ModTime().Equal(c.file.ModTime()))
}

// settled is the age from which a file is believed not to change again without a
// new time of modification: file systems count in steps of up to 2 seconds.
const settled = 3 * time.Second

// Of returns the country of each address that has one, as ISO 3166-1 has it: "DE".
// The map is not changed any more. When the file cannot be read, Of says why, and
// returns what it knew before.
func (c *Countries) Of(addrs []netip.Addr) (map[netip.Addr]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known != nil && !c.changed() && c.knows(addrs) {
		return c.known, nil
	}
	info, err := os.Stat(c.path)
	switch {
	case err != nil:
		return c.known, err
	case !info.Mode().IsRegular(): // opening a FIFO waits for its writer
		return c.known, fmt.Errorf("%s: not a file", c.path)
	}
	c.file = nil
	if time.Since(info.ModTime()).Abs() > settled {
		c.file = info
	}
	known, err := read(c.path, addrs)
	if err != nil {
		return c.known, err
	}
	c.known = known
	return known, nil
}

func (c *Countries) knows(addrs []netip.Addr) bool {
	for _, a := range addrs {
		if _, ok := c.known[a]; !ok {
			return false
		}
	}
	return true
}

// read looks addrs up in the database at path. Those without a country have "".
func read(path string, addrs []netip.Addr) (known map[netip.Addr]string, err error) {
	// The file is mapped. When somebody truncates it meanwhile, reading the pages
	// that are gone faults, which would end the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch p := recover().(type) {
		case nil:
		case runtime.Error:
			known, err = nil, fmt.Errorf("%s: changed while it was read: %w", path, p)
		default:
			panic(p)
		}
	}()
	db, err := maxminddb.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer db.Close()
	known = make(map[netip.Addr]string, len(addrs))
	for _, a := range addrs {
		if known[a], err = country(db, a); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return known, nil
}

// country prefers where an address is used to where it is registered.
func country(db *maxminddb.Reader, a netip.Addr) (code string, err error) {
	if a.Is6() && db.Metadata.IPVersion == 4 {
		return "", nil
	}
	r := db.Lookup(a)
	for _, which := range []string{"country", "registered_country"} {
		if err := r.DecodePath(&code, which, "iso_code"); err != nil || code != "" {
			return strings.Clone(code), err
		}
	}
	return "", nil
}
