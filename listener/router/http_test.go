package router

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"swivel/internal/target"
)

// request is the head of a request with these fields.
func request(fields ...string) string {
	return "GET / HTTP/1.1\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
}

func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		name, bytes, want string
		err               error
	}{
		{"a request", request("Host: a.example.com"), "a.example.com", nil},
		{"upper case, a dot and a port", request("HOST:\tA.Example.com.:80 "), "a.example.com", nil},
		{"behind others", request("Accept: */*", "X: host: b", "Host: a.example.com"), "a.example.com", nil},
		{"and its body", "POST / HTTP/1.1\r\nHost: a.example.com\r\nContent-Length: 3\r\n\r\nHost: b\r\n\r\n", "a.example.com", nil},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a.example.com\r\n\r\n", "a.example.com", nil},
		{"absolute form", "GET http://A.example.com:8080/x?http://b/ HTTP/1.1\r\nHost: a.example.com:8080\r\n\r\n", "a.example.com", nil},
		{"absolute form alone", "GET http://a.example.com?x HTTP/1.0\r\n\r\n", "a.example.com", nil},
		{"absolute form of another", "GET http://a.example.com/ HTTP/1.1\r\nHost: b.example.com\r\n\r\n", "", errMalformed},
		{"a URL in the path", "GET /http://b.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "a.example.com", nil},
		{"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "a.example.com", nil},
		{"WebDAV", "VERSION-CONTROL / HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "", errNotTLS},
		{"PROPFIND", "PROPFIND / HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "a.example.com", nil},
		{"no Host", request("Accept: */*"), "", errNoName},
		{"no fields", "GET / HTTP/1.0\r\n\r\n", "", errNoName},
		{"an empty Host", request("Host:"), "", errNoName},
		{"an address", request("Host: 192.0.2.1:80"), "", errNoName},
		{"an IPv6 address", request("Host: [2001:db8::1]:80"), "", errNoName},
		{"an IPv6 address without a port", request("Host: [2001:db8::1]"), "", errNoName},
		{"a number", request("Host: 2130706433"), "", errMalformed},
		{"two Hosts", request("Host: a.example.com", "Host: b.example.com"), "", errMalformed},
		{"the same Host twice", request("Host: a.example.com", "host: a.example.com"), "", errMalformed},
		{"a list of Hosts", request("Host: a.example.com, b.example.com"), "", errMalformed},
		{"space in front of the colon", request("Host : a.example.com"), "", errMalformed},
		{"a continued line", request("X: y", " Host: b", "Host: a.example.com"), "", errMalformed},
		{"no colon", request("Host"), "", errMalformed},
		{"no name", request(": a"), "", errMalformed},
		{"a bare LF", "GET / HTTP/1.1\nHost: a.example.com\r\n\r\n", "", errMalformed},
		{"a bare LF behind", "GET / HTTP/1.1\r\nHost: a.example.com\n\r\n", "", errMalformed},
		{"a bare LF at the end", "GET / HTTP/1.1\r\nHost: a.example.com\r\n\n", "", errMalformed},
		{"a bare CR", request("X: y\rHost: b", "Host: a.example.com"), "", errMalformed},
		{"NUL", request("Host: a.example.com\x00.b"), "", errMalformed},
		{"NUL elsewhere", request("X: \x00", "Host: a.example.com"), "", errMalformed},
		{"userinfo", request("Host: user@a.example.com"), "", errMalformed},
		{"percent", request("Host: a%2eexample.com"), "", errMalformed},
		{"brackets", request("Host: [a.example.com]"), "", errMalformed},
		{"a port of letters", request("Host: a.example.com:http"), "", errMalformed},
		{"a line of its own", "GET / HTTP/1.1 X\r\nHost: a.example.com\r\n\r\n", "", errNotTLS},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "", errMalformed},
		{"three words", "GET / x HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "", errMalformed},
		{"no target", "GET HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "", errMalformed},
		{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a.example.com\r\n\r\n", "", errMalformed},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", errNoName},
		{"HTTP/0.9", "GET /\r\n", "", errNotTLS},
		{"SMTP", "EHLO a.example.com\r\n", "", errNotTLS},
		{"SSH", "SSH-2.0-x\r\n", "", errNotTLS},
		{"lower case", "get / HTTP/1.1\r\n", "", errNotTLS},
		{"half a head", "GET / HTTP/1.1\r\nHost: a.example.com\r\n", "", errIncomplete},
		{"64 KiB", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", maxRequest-len("GET / HTTP/1.1\r\nX: \r\nHost: a.example.com\r\n\r\n")) + "\r\nHost: a.example.com\r\n\r\n", "a.example.com", nil},
		{"64 KiB + 1", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", maxRequest+1-len("GET / HTTP/1.1\r\nX: \r\nHost: a.example.com\r\n\r\n")) + "\r\nHost: a.example.com\r\n\r\n", "", errTooLarge},
		{"a line that does not end", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", maxRequest), "", errTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := head{buf: []byte(tt.bytes)}
			if err := h.parse(); !errors.Is(err, tt.err) || string(h.name) != tt.want {
				t.Errorf("got %q, %v, want %q, %v", h.name, err, tt.want, tt.err)
			}
			if name, err := gradually(tt.bytes); !errors.Is(err, tt.err) || name != tt.want {
				t.Errorf("byte by byte: got %q, %v, want %q, %v", name, err, tt.want, tt.err)
			}
		})
	}
}

// gradually parses b as it arrives, byte by byte.
func gradually(b string) (string, error) {
	h, err, all := head{}, errIncomplete, []byte(b)
	for n := 1; n <= len(b) && err == errIncomplete; n++ {
		h.buf = all[:n]
		err = h.parse()
	}
	return string(h.name), err
}

// What is taken for the Host is what net/http takes for it, and it does not depend on
// how the head arrives.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(request("Host: a.example.com")))
	f.Add([]byte("GET http://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		h := head{buf: slices.Clone(b)}
		err := h.parse()
		name, gerr := gradually(string(b))
		if name != string(h.name) || (err == nil) != (gerr == nil) {
			t.Fatalf("got %q, %v; byte by byte: %q, %v", h.name, err, name, gerr)
		}
		if err != nil || h.kind != httpRequest {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		host := r.Host
		if i := strings.LastIndexByte(host, ':'); i >= 0 {
			host = host[:i]
		}
		if want, err := target.ParseHost(host, 1); err != nil || want.Name != name {
			t.Fatalf("got %q, net/http has %q", name, r.Host)
		}
	})
}
