package sni

import (
	"encoding/binary"
	"iter"
)

// Hello is what a ClientHello says.
type Hello struct {
	Name    []byte    // the server name: lower case, no trailing dot; empty when the client sends none
	ALPN    Protocols // the protocols that it offers
	ECH     bool      // it holds an encrypted hello, or pretends to (GREASE); Name is the outer one's
	Records int       // that it came in
	Size    int       // its bytes in the stream, with the headers of the records
}

// Protocols is the list of an ALPN extension, RFC 7301 section 3.1.
type Protocols []byte

// All returns the protocols in the client's order. They are what a peer sent, any
// bytes.
func (p Protocols) All() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for rest := []byte(p); len(rest) > 0; {
			end := 1 + int(rest[0])
			if !yield(rest[1:end]) {
				return
			}
			rest = rest[end:]
		}
	}
}

const (
	randomLength    = 32
	maxSessionID    = 32
	extServerName   = 0
	extALPN         = 16
	extPreSharedKey = 41
	extECH          = 0xfe0d // RFC 9849 section 5
	echOuter        = 0
)

// parse reads the body of a ClientHello. name is where the name is written to.
func (h *Hello) parse(body []byte, name *[maxName]byte) error {
	c := cursor{rest: body}
	version := c.take(2)
	c.take(randomLength)
	sessionID := c.vector8()
	suites := c.vector16()
	compressions := c.vector8()
	switch {
	case c.short:
		return malformed("cut short")
	case version[0] != majorVersion:
		return malformed("version")
	case len(sessionID) > maxSessionID:
		return malformed("session id")
	case len(suites) == 0, len(suites)%2 != 0:
		return malformed("cipher suites")
	case len(compressions) == 0:
		return malformed("compression methods")
	case len(c.rest) == 0:
		return malformed("no extensions")
	}
	extensions := c.vector16()
	if c.short || len(c.rest) > 0 {
		return malformed("length of the extensions")
	}
	return h.parseExtensions(extensions, name)
}

func (h *Hello) parseExtensions(list []byte, name *[maxName]byte) error {
	var seen typeSet
	c := cursor{rest: list}
	for len(c.rest) > 0 {
		typ := c.uint16()
		data := c.vector16()
		if c.short {
			return malformed("length of an extension")
		}
		if !seen.add(typ) {
			return malformed("an extension comes twice")
		}
		var err error
		switch typ {
		case extServerName:
			h.Name, err = serverName(data, name)
		case extALPN:
			h.ALPN, err = protocols(data)
		case extECH:
			h.ECH = len(data) > 0 && data[0] == echOuter
		case extPreSharedKey:
			if len(c.rest) > 0 {
				err = malformed("pre_shared_key is not the last extension")
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func protocols(data []byte) (Protocols, error) {
	c := cursor{rest: data}
	list := c.vector16()
	if c.short || len(c.rest) > 0 || len(list) == 0 {
		return nil, malformed("length of the ALPN list")
	}
	c = cursor{rest: list}
	for len(c.rest) > 0 {
		if len(c.vector8()) == 0 {
			return nil, malformed("an ALPN protocol")
		}
	}
	return list, nil
}

// typeSet is the extension types seen so far. A hello has some twenty; one with
// many more is not worth a search through all of them for each.
type typeSet struct {
	few  [32]uint16
	n    int
	many map[uint16]bool
}

// add reports whether typ is new.
func (s *typeSet) add(typ uint16) bool {
	for _, t := range s.few[:s.n] {
		if t == typ {
			return false
		}
	}
	switch {
	case s.n < len(s.few):
		s.few[s.n] = typ
		s.n++
		return true
	case s.many == nil:
		s.many = make(map[uint16]bool)
	case s.many[typ]:
		return false
	}
	s.many[typ] = true
	return true
}

// cursor reads what TLS calls vectors, RFC 8446 section 3.4. Once it was asked for
// more than there is, it is short, and returns nothing any more.
type cursor struct {
	rest  []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if c.short || n > len(c.rest) {
		c.short, c.rest = true, nil
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// vector16 takes a vector whose length has 16 bits.
func (c *cursor) vector16() []byte { return c.take(int(c.uint16())) }

// vector8 takes a vector whose length has 8 bits.
func (c *cursor) vector8() []byte {
	if b := c.take(1); b != nil {
		return c.take(int(b[0]))
	}
	return nil
}
