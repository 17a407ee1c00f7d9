// Package sni finds the server name in the first bytes of a TLS connection, and
// decrypts nothing.
//
// A Parser is given what has arrived so far, again when there is more, and says
// which name the client asks for, or why there is none. It is strict where
// strictness decides who sees which name: the name that it returns is the one that
// every conforming server sees in the same bytes.
//
//	sni.go    the hello over any number of records (RFC 8446 section 5.1)
//	hello.go  the hello itself (RFC 8446 section 4.1.2)
//	name.go   the server name (RFC 6066 section 3)
//	buffer.go a buffer that grows with what arrives
//	alert.go  how TLS says no
//
// It sets no deadline, keeps no bytes, and does not know what a name leads to. Of
// an encrypted hello (ECH) it sees the outer one, as everyone does who has no key.
package sni

import (
	"encoding/binary"
	"errors"
)

// MaxHello bounds the body of a hello. It may come in any number of records.
const MaxHello = 64 << 10

// What a Parser says of bytes that are no hello, or not yet one. ErrMalformed is
// wrapped, and the text goes on with what is wrong.
var (
	ErrIncomplete = errors.New("hello incomplete")
	ErrNotTLS     = errors.New("not TLS")
	ErrMalformed  = errors.New("malformed hello")
	ErrTooLarge   = errors.New("hello too large")
)

// malformed is an ErrMalformed, and says what is wrong. A constant costs nothing
// to return.
type malformed string

func (m malformed) Error() string        { return "malformed hello: " + string(m) }
func (m malformed) Is(target error) bool { return target == ErrMalformed }

// Parser finds the hello at the beginning of a stream. The zero Parser is ready. It
// is not to be copied once it was used.
type Parser struct {
	at      int // where in the stream the record begins that is not whole yet
	records int // before it
	have    int // bytes of the message in those
	head    [messageHeader]byte
	name    [maxName]byte // Hello.Name
}

// Of a record and of a handshake message, RFC 8446 sections 5.1 and 4.
const (
	recordHeader  = 5
	maxRecord     = 1 << 14
	messageHeader = 4

	typeChangeCipherSpec = 20
	typeAlert            = 21
	typeHandshake        = 22
	typeApplicationData  = 23
	typeClientHello      = 1
	majorVersion         = 3
)

// Parse judges b, all that has arrived of the stream so far: what it was given
// before, and more. Its error is ErrIncomplete when more bytes may change that, or
// says for good what is wrong. What follows the hello is not looked at.
//
// The Hello is valid as long as b and p are. Nothing is allocated, but for a hello
// in several records: once all of it is there, it is put together.
func (p *Parser) Parse(b []byte) (Hello, error) {
	for {
		length, err := p.record(b)
		if err != nil {
			return Hello{}, err
		}
		fragment := b[p.at+recordHeader:]
		fragment = fragment[:min(length, len(fragment))]
		size, err := p.message(fragment)
		if err != nil {
			return Hello{}, err
		}
		if size > 0 && p.have+length > size {
			// The client is to wait for an answer before it says anything else. What it
			// sends all the same is 0-RTT data, in a record of another type.
			return Hello{}, malformed("it ends within a record")
		}
		if len(fragment) < length {
			return Hello{}, ErrIncomplete
		}
		p.at += recordHeader + length
		p.have += length
		p.records++
		if p.have == size {
			return p.parse(b)
		}
	}
}

// record judges the header of the record that is not whole yet, as much of it as is
// there, and returns the record's length.
func (p *Parser) record(b []byte) (length int, err error) {
	h := b[p.at:]
	if len(h) > 0 && h[0] != typeHandshake {
		switch {
		case p.records > 0:
			return 0, malformed("another record within it")
		case h[0] != typeChangeCipherSpec && h[0] != typeAlert && h[0] != typeApplicationData:
			return 0, ErrNotTLS
		case len(h) > 1 && h[1] != majorVersion:
			return 0, ErrNotTLS
		case len(h) > 1:
			return 0, malformed("another record in front of it")
		}
	}
	if len(h) > 1 && h[1] != majorVersion {
		return 0, malformed("record version")
	}
	if len(h) < recordHeader {
		return 0, ErrIncomplete
	}
	switch length = int(binary.BigEndian.Uint16(h[3:])); {
	case length == 0:
		return 0, malformed("empty record")
	case length > maxRecord:
		return 0, ErrTooLarge
	}
	return length, nil
}

// message judges the header of the message, of which fragment is what the record
// that is not whole yet has. It returns the message's size with its header, 0 when
// that is not known yet.
func (p *Parser) message(fragment []byte) (size int, err error) {
	known := p.have + len(fragment)
	if p.have < messageHeader {
		copy(p.head[p.have:], fragment)
	}
	if known > 0 && p.head[0] != typeClientHello {
		return 0, malformed("another handshake message")
	}
	if known < messageHeader {
		return 0, nil
	}
	length := int(p.head[1])<<16 | int(p.head[2])<<8 | int(p.head[3])
	if length > MaxHello {
		return 0, ErrTooLarge
	}
	return messageHeader + length, nil
}

// parse parses the message, all of which is in b.
func (p *Parser) parse(b []byte) (Hello, error) {
	m := b[recordHeader:p.at]
	if p.records > 1 {
		m = make([]byte, 0, p.have)
		for at := 0; at < p.at; {
			end := at + recordHeader + int(binary.BigEndian.Uint16(b[at+3:]))
			m = append(m, b[at+recordHeader:end]...)
			at = end
		}
	}
	h := Hello{Records: p.records, Size: p.at}
	return h, h.parse(m[messageHeader:], &p.name)
}
