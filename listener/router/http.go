package router

import (
	"bytes"
	"fmt"
	"strings"
)

// maxRequest bounds the head of a request, as sni.MaxHello does a hello.
const maxRequest = 64 << 10

// requestParser finds the Host of the HTTP request at the beginning of a stream. The
// zero requestParser is ready.
//
// It refuses what servers are known to read in different ways: line ends that are
// not CRLF, lines that are continued, space around a field's name, two Hosts, a Host
// that is not the one in the target (RFC 9112 sections 2.2, 3.2 and 5).
type requestParser struct {
	line  int  // where the line begins that is not whole yet
	seen  int  // bytes that hold no other line end
	begun bool // the first line has been read
	host  string
	hosts int
	url   string // the authority of a target in absolute form; "" in other forms
}

// parse judges b, all that has arrived so far, and returns the host that is asked
// for without its port, "" if none is. Its errors are errIncomplete, errNotTLS when
// this is no HTTP, errTooLarge, and errMalformed.
func (p *requestParser) parse(b []byte) (host string, err error) {
	for {
		i := bytes.IndexByte(b[p.seen:], '\n')
		if i < 0 {
			p.seen = len(b)
			if len(b) >= maxRequest {
				return "", errTooLarge
			}
			return "", errIncomplete
		}
		end := p.seen + i
		line := b[p.line:end]
		p.line, p.seen = end+1, end+1
		switch {
		case p.line > maxRequest:
			return "", errTooLarge
		case !p.begun:
			p.begun = true
			err = p.request(line)
		case string(line) == "\r":
			return p.answer()
		default:
			err = p.field(line)
		}
		if err != nil {
			return "", err
		}
	}
}

// request reads the first line. If it does not end as one of HTTP does, it is of
// another protocol made of lines.
func (p *requestParser) request(line []byte) error {
	s, crlf := strings.CutSuffix(string(line), "\r")
	rest, version, _ := cutLast(s, " ")
	switch {
	case !strings.HasPrefix(version, "HTTP/"):
		return errNotTLS
	case version == "HTTP/2.0": // the preface of a client that knows (RFC 9113 section 3.4)
		return errNoName
	case !crlf, version != "HTTP/1.1" && version != "HTTP/1.0", !printable(rest):
		return fmt.Errorf("%w: request line", errMalformed)
	}
	_, target, _ := strings.Cut(rest, " ")
	if target == "" || strings.Contains(target, " ") {
		return fmt.Errorf("%w: request line", errMalformed)
	}
	if _, after, ok := strings.Cut(target, "://"); ok && !strings.HasPrefix(target, "/") {
		p.url, _, _ = strings.Cut(after, "/")
		if p.url, _, _ = strings.Cut(p.url, "?"); p.url == "" {
			return fmt.Errorf("%w: request target", errMalformed)
		}
	}
	return nil
}

func (p *requestParser) field(line []byte) error {
	line, crlf := bytes.CutSuffix(line, []byte("\r"))
	name, value, ok := bytes.Cut(line, []byte(":"))
	switch {
	case !crlf, bytes.ContainsAny(line, "\r\x00"):
		return fmt.Errorf("%w: line end", errMalformed)
	case !ok, len(name) == 0, bytes.ContainsAny(name, " \t"):
		return fmt.Errorf("%w: field", errMalformed)
	case strings.EqualFold(string(name), "host"):
		p.hosts++
		p.host = strings.Trim(string(value), " \t")
	}
	return nil
}

func (p *requestParser) answer() (string, error) {
	switch {
	case p.hosts > 1:
		return "", fmt.Errorf("%w: several Hosts", errMalformed)
	case p.url != "" && p.hosts > 0 && !strings.EqualFold(p.url, p.host):
		return "", fmt.Errorf("%w: Host is not that of the target", errMalformed)
	case p.url != "":
		p.host = p.url
	}
	host, port, hasPort := cutLast(p.host, ":")
	switch {
	case !hasPort || strings.HasSuffix(p.host, "]"):
		host = p.host
	case strings.Trim(port, "0123456789") != "":
		return "", fmt.Errorf("%w: port of Host", errMalformed)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
		if !strings.Contains(host, ":") {
			return "", fmt.Errorf("%w: Host", errMalformed)
		}
	}
	return host, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
