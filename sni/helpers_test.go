package sni

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// recording is a connection whose peer says what is in r and then nothing more. What
// is written to it, it keeps.
type recording struct {
	r io.Reader
	w bytes.Buffer
}

func (c *recording) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *recording) Write(p []byte) (int, error)      { return c.w.Write(p) }
func (c *recording) Close() error                     { return nil }
func (c *recording) LocalAddr() net.Addr              { return nil }
func (c *recording) RemoteAddr() net.Addr             { return nil }
func (c *recording) SetDeadline(time.Time) error      { return nil }
func (c *recording) SetReadDeadline(time.Time) error  { return nil }
func (c *recording) SetWriteDeadline(time.Time) error { return nil }

// clientHello returns the hello that crypto/tls sends.
func clientHello(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	conn := &recording{r: bytes.NewReader(nil)}
	tls.Client(conn, c).Handshake()
	if conn.w.Len() == 0 {
		t.Fatal("crypto/tls sent nothing")
	}
	return conn.w.Bytes()
}

// seen is what crypto/tls sees in the first bytes of a connection: the name, and
// whether it got as far as that.
func seen(b []byte) (name string, alpn []string, ok bool) {
	errSeen := errors.New("seen")
	s := tls.Server(&recording{r: bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name, alpn, ok = h.ServerName, h.SupportedProtos, true
			return nil, errSeen
		},
	})
	s.HandshakeContext(context.Background())
	return name, alpn, ok
}

// parseAll gives a fresh Parser all of b.
func parseAll(b []byte) (Hello, error) { return new(Parser).Parse(b) }

// wantName checks that b is a hello for this name.
func wantName(t *testing.T, b []byte, want string) {
	t.Helper()
	if h, err := parseAll(b); string(h.Name) != want || err != nil {
		t.Errorf("got %q, %v, want %q", h.Name, err, want)
	}
}

// body returns a hello without its headers.
func body(hello []byte) []byte { return hello[recordHeader+messageHeader:] }

// message puts the header of a handshake message in front of a body.
func message(body []byte) []byte {
	n := len(body)
	return append([]byte{typeClientHello, byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}

// records cuts a message into records of these sizes; the last size is that of all
// the others, too.
func records(message []byte, sizes ...int) (b []byte) {
	for len(message) > 0 {
		n := min(sizes[0], len(message))
		if len(sizes) > 1 {
			sizes = sizes[1:]
		}
		b = append(b, typeHandshake, 3, 1, byte(n>>8), byte(n))
		b = append(b, message[:n]...)
		message = message[n:]
	}
	return b
}

// parts of a hello, each as it is on the wire.
type parts struct {
	version      []byte
	sessionID    []byte
	suites       []byte
	compressions []byte
	extensions   [][]byte
	tail         []byte
}

// simple is the hello of which the tests change one thing each.
func simple(extensions ...[]byte) parts {
	return parts{
		version:      []byte{3, 3},
		sessionID:    vec8(nil),
		suites:       vec16([]byte{0x13, 0x01}),
		compressions: vec8([]byte{0}),
		extensions:   extensions,
	}
}

func (p parts) body() []byte {
	b := slices.Concat(p.version, make([]byte, randomLength), p.sessionID, p.suites, p.compressions)
	if p.extensions != nil {
		b = append(b, vec16(slices.Concat(p.extensions...))...)
	}
	return append(b, p.tail...)
}

func (p parts) hello() []byte { return records(message(p.body()), maxRecord) }

func vec8(b []byte) []byte  { return append([]byte{byte(len(b))}, b...) }
func vec16(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

func extension(typ uint16, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, typ), vec16(data)...)
}

// name is a server_name extension with one host name.
func name(s string) []byte {
	return extension(extServerName, vec16(slices.Concat([]byte{hostName}, vec16([]byte(s)))))
}

// captured returns the hellos in testdata, by their file's name.
func captured(t testing.TB) map[string][]byte {
	t.Helper()
	files, _ := filepath.Glob("testdata/*.bin")
	all := make(map[string][]byte)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(f)] = b
	}
	return all
}
