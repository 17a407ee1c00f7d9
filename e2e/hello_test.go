//go:build linux

package e2e

import (
	"crypto/tls"
	bits "encoding/binary"
	"net"
	"strings"
	"testing"
)

// hello is a ClientHello that can be changed: crypto/tls's own, for a name.
type hello struct {
	before     []byte // of the message, up to its extensions
	extensions []extension
}

type extension struct {
	typ  uint16
	data []byte
}

const (
	extServerName = 0
	extPadding    = 21
	maxRecord     = 1 << 14
)

func newHello(t testing.TB, name string) *hello {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go tls.Client(client, &tls.Config{ServerName: "name.invalid", NextProtos: []string{"h2", "http/1.1"}}).Handshake() // until server is closed
	buf := make([]byte, maxRecord)
	n, err := server.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	b := buf[9:n] // behind the headers of record and message
	at := 2 + 32
	at += 1 + int(b[at])
	at += 2 + int(bits.BigEndian.Uint16(b[at:]))
	at += 1 + int(b[at])
	h := &hello{before: b[:at]}
	for b = b[at+2:]; len(b) > 0; {
		size := int(bits.BigEndian.Uint16(b[2:]))
		h.extensions = append(h.extensions, extension{bits.BigEndian.Uint16(b), b[4 : 4+size]})
		b = b[4+size:]
	}
	return h.names(name)
}

// names makes the server name extension hold these.
func (h *hello) names(names ...string) *hello {
	var list []byte
	for _, name := range names {
		list = append(append(list, 0), vector16(name)...)
	}
	for i := range h.extensions {
		if h.extensions[i].typ == extServerName {
			h.extensions[i].data = vector16(string(list))
		}
	}
	return h
}

// with adds an extension.
func (h *hello) with(typ uint16, data []byte) *hello {
	h.extensions = append(h.extensions, extension{typ, data})
	return h
}

// padded makes the message as long as that, or more.
func (h *hello) padded(size int) *hello {
	for n := size - len(h.message()) - 4; n > 0; n = size - len(h.message()) - 4 {
		// As clients that want a size do it, but for types that are GREASE or unknown:
		// no extension may come twice.
		h.with(extPadding+uint16(len(h.extensions))<<8, make([]byte, min(n, 30000)))
	}
	return h
}

func (h *hello) message() []byte {
	var list []byte
	for _, e := range h.extensions {
		list = append(bits.BigEndian.AppendUint16(list, e.typ), vector16(string(e.data))...)
	}
	body := append(h.before[:len(h.before):len(h.before)], vector16(string(list))...)
	return append([]byte{1, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

// record returns the hello in one record, if it fits.
func (h *hello) record() string { return h.records(maxRecord) }

// records returns the hello in records of at most that many bytes.
func (h *hello) records(size int) string {
	var b strings.Builder
	for msg := h.message(); len(msg) > 0; msg = msg[min(size, len(msg)):] {
		b.WriteString("\x16\x03\x01" + string(vector16(string(msg[:min(size, len(msg))]))))
	}
	return b.String()
}

func vector16(s string) []byte {
	return append(bits.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}
