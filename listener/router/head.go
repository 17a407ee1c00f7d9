package router

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"swivel/internal/target"
	"swivel/sni"
)

// Outcome is why no route is looked for, or none found.
type Outcome string

const (
	NoRoute   Outcome = "no-route"  // a name that no route has
	NoName    Outcome = "no-name"   // a hello or a request without a name
	NotTLS    Outcome = "not-tls"   // neither TLS nor HTTP
	Malformed Outcome = "malformed" // a hello or a request that could be read in two ways, or in none
	Timeout   Outcome = "timeout"   // nothing, or not all of it, in time
	TooLarge  Outcome = "too-large"
)

// Why a client is closed.
var (
	errNoRoute   = errors.New("no route for the name")
	errRoute     = errors.New("closed by a route")
	errNoName    = errors.New("no server name")
	errNotTLS    = errors.New("neither TLS nor HTTP")
	errTimeout   = errors.New("no name in time")
	errMalformed = errors.New("malformed request")
	errTooLarge  = errors.New("request head too large")

	// errGone is wrapped when the connection ended or broke before it said what it
	// wants.
	errGone = errors.New("client has gone")
)

// kind is what a client speaks.
type kind int

const (
	unknown kind = iota
	tlsHello
	httpRequest
)

func (k kind) String() string {
	return [...]string{"", "tls", "http"}[k]
}

// head is the first bytes of a client, and what they say.
type head struct {
	c    net.Conn
	buf  sni.Buffer
	kind kind

	hello   sni.Parser
	request requestParser

	name    []byte // canonical; empty when there is none
	alpn    sni.Protocols
	records int
	ech     bool
}

// readHead reads until it is known what the client wants. Its error says why that is
// nothing to find a route for; with Outcome "" the client has gone.
func (s *session) readHead() (Outcome, error) {
	h := &s.head
	limit := s.c.Line.Start.Add(s.Head)
	first := limit
	if s.FirstByte > 0 && s.FirstByte < s.Head {
		first = s.c.Line.Start.Add(s.FirstByte)
	}
	// One deadline for the whole head. A client that is silent, or sends a byte now
	// and then, would otherwise hold its goroutine and descriptor for ever.
	h.c.SetReadDeadline(first)
	for {
		err := h.buf.More(h.c)
		if err != nil {
			return h.ended(err)
		}
		if first != limit {
			first = limit
			h.c.SetReadDeadline(limit)
		}
		if err = h.parse(); err != errIncomplete {
			return outcomeOf(err), err
		}
	}
}

// errIncomplete: what has arrived does not say yet what it is.
var errIncomplete = sni.ErrIncomplete

// outcomeOf is the Outcome of what parse says.
func outcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return ""
	case err == errNoName:
		return NoName
	case err == errNotTLS:
		return NotTLS
	case errors.Is(err, sni.ErrTooLarge), err == errTooLarge:
		return TooLarge
	}
	return Malformed
}

// ended is what there is to say when no more will be read.
func (h *head) ended(err error) (Outcome, error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout, errTimeout
	case err != io.EOF || len(h.buf) == 0:
		return "", fmt.Errorf("%w: %w", errGone, err)
	case h.kind == unknown:
		return NotTLS, errNotTLS // it may wait for an answer to as little as this
	}
	return Malformed, fmt.Errorf("%w: cut short", errMalformed)
}

// parse judges what has arrived so far. Its error is errIncomplete when more may
// change that.
func (h *head) parse() error {
	if h.kind == unknown {
		var err error
		if h.kind, err = kindOf(h.buf); err != nil {
			return err
		}
	}
	if h.kind == tlsHello {
		return h.parseHello()
	}
	host, err := h.request.parse(h.buf)
	if err == errNotTLS {
		h.kind = unknown
	}
	if err != nil {
		return err
	}
	return h.setHost(host)
}

func (h *head) parseHello() error {
	hello, err := h.hello.Parse(h.buf)
	if errors.Is(err, sni.ErrNotTLS) {
		h.kind = unknown
		return errNotTLS
	}
	if err != nil {
		return err
	}
	h.name, h.alpn, h.records, h.ech = hello.Name, hello.ALPN, hello.Records, hello.ECH
	if len(h.name) == 0 {
		return errNoName
	}
	return nil
}

// setHost takes the value of a Host field. An address in it is no name.
func (h *head) setHost(host string) error {
	if host == "" {
		return errNoName
	}
	t, err := target.ParseHost(host, 1)
	switch {
	case err != nil:
		return fmt.Errorf("%w: Host", errMalformed)
	case t.Name == "":
		return errNoName
	}
	h.name = []byte(t.Name)
	return nil
}

// maxMethod is how long the method of a request may be for this to be HTTP at all;
// the longest in use, of WebDAV, has 17 letters.
const maxMethod = 20

// The types of TLS records, RFC 8446 section 5.1.
const (
	firstRecordType = 20
	lastRecordType  = 23
)

// kindOf tells protocols apart by their first bytes. A record of TLS begins with its
// type, a request of HTTP with a word in capitals and a space.
func kindOf(b []byte) (kind, error) {
	if firstRecordType <= b[0] && b[0] <= lastRecordType {
		return tlsHello, nil // or not: the parser knows
	}
	for i, c := range b {
		switch {
		case c == ' ' && i >= 3:
			return httpRequest, nil
		case c < 'A' || c > 'Z', i == maxMethod:
			return unknown, errNotTLS
		}
	}
	return unknown, errIncomplete
}
