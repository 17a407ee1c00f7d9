package egress

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"

	"swivel/internal/target"
)

// request is a CONNECT request, as far as swivel looks at it.
type request struct {
	target      target.Target
	text        string // of the target, as the client has it
	credentials string // the value of Proxy-Authorization
	via         string // the value of Via
}

// malformed is a head that is refused with 400. It names the part that is wrong,
// and holds nothing that a peer sent.
type malformed string

func (m malformed) Error() string { return "bad " + string(m) }

// Heads that are refused with another status.
var (
	errMethod        = fmt.Errorf("method is not served")
	errVersion       = fmt.Errorf("HTTP version is not served")
	errTooManyFields = fmt.Errorf("more than 100 header fields")
)

const maxFields = 100

// connectRequest reads the whole head of a CONNECT request, whose line is known.
func (r *reader) connectRequest(line requestLine) (request, error) {
	head, err := r.head()
	if err != nil {
		return request{}, err
	}
	_, fields, _ := bytes.Cut(head, crlf)
	return parseConnect(line, fields)
}

// parseConnect reads what makes a CONNECT request: its line, and the lines of its
// fields, each with its CRLF.
//
// It is stricter than RFC 9112 asks for, since what one side takes for a line end,
// a name or a length another may not: no bare LF, no folded lines, no space before
// a colon, no body.
func parseConnect(line requestLine, fields []byte) (request, error) {
	r := request{text: line.target}
	seen, err := parseFields(fields, &r)
	if err != nil {
		return request{}, err
	}
	if !seen.host && line.minor > 0 {
		return request{}, malformed("head: no Host")
	}
	r.target, err = target.Parse(line.target)
	return r, err
}

var crlf = []byte("\r\n")

// requestLine is RFC 9112 section 3.
type requestLine struct {
	method, target string
	minor          byte // of HTTP/1
}

// parseRequestLine reads a request line without its CRLF. errVersion is an HTTP
// version other than 1.
func parseRequestLine(b []byte) (requestLine, error) {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return requestLine{}, malformed("request line")
		}
	}
	method, rest, _ := bytes.Cut(b, []byte(" "))
	uri, v, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(uri) == 0 || bytes.IndexByte(v, ' ') >= 0 || !isToken(method) {
		return requestLine{}, malformed("request line")
	}
	if len(v) != len("HTTP/1.1") || string(v[:5]) != "HTTP/" || v[6] != '.' || !isDigit(v[5]) || !isDigit(v[7]) {
		return requestLine{}, malformed("HTTP version")
	}
	if v[5] != '1' {
		return requestLine{}, errVersion
	}
	return requestLine{knownMethod(method), string(uri), v[7] - '0'}, nil
}

// knownMethod is string(b), which most clients need no copy of.
func knownMethod(b []byte) string {
	for _, m := range methods {
		if m == string(b) {
			return m
		}
	}
	return string(b)
}

// fieldsSeen is which fields that may occur once have occurred.
type fieldsSeen struct{ host, credentials bool }

func parseFields(b []byte, r *request) (seen fieldsSeen, err error) {
	for n := 1; len(b) > 0; n++ {
		if n > maxFields {
			return seen, errTooManyFields
		}
		var line []byte
		line, b, _ = bytes.Cut(b, crlf)
		name, value, err := parseField(line)
		if err != nil {
			return seen, err
		}
		if err := r.field(name, value, &seen); err != nil {
			return seen, err
		}
	}
	return seen, nil
}

// parseField reads a field line, RFC 9112 section 5. A folded line begins with
// white space and so has no name.
func parseField(line []byte) (name, value []byte, err error) {
	before, after, ok := bytes.Cut(line, []byte(":"))
	if !ok || !isToken(before) {
		return nil, nil, malformed("header field")
	}
	after = bytes.Trim(after, " \t")
	for _, c := range after {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, malformed("header field")
		}
	}
	return before, after, nil
}

// field takes one field into account. The value of Host is not used: the request
// target says where to, RFC 9112 section 3.2.3.
func (r *request) field(name, value []byte, seen *fieldsSeen) error {
	is := func(b []byte, field string) bool { return bytes.EqualFold(b, []byte(field)) }
	switch {
	case is(name, "Host"):
		if seen.host || bytes.ContainsAny(value, ", \t") {
			return malformed("Host")
		}
		seen.host = true
	case is(name, "Proxy-Authorization"):
		if seen.credentials {
			return malformed("Proxy-Authorization")
		}
		seen.credentials = true
		r.credentials = string(value)
	case is(name, "Via"):
		r.via = strings.TrimPrefix(r.via+", "+string(value), ", ")
	case is(name, "Transfer-Encoding"):
		return malformed("Transfer-Encoding")
	case is(name, "Content-Length"):
		// A CONNECT request has no body: what follows is the tunnel's. Anything but
		// 0 would be a length that one side believes in and the other does not.
		if string(value) != "0" {
			return malformed("Content-Length")
		}
	}
	return nil
}

// basicAuth reads credentials as RFC 7617 has them.
func basicAuth(credentials string) (user, password string, ok bool) {
	scheme, rest, _ := strings.Cut(credentials, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimLeft(rest, " "))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(b), ":")
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !isTokenByte(c) {
			return false
		}
	}
	return len(b) > 0
}

// isTokenByte: RFC 9110 section 5.6.2.
func isTokenByte(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
