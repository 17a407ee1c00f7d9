package exit

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
)

// maxAnswer bounds what a proxy can say before there is a tunnel.
const maxAnswer = 16 << 10

var (
	errAnswer = errors.New("not an HTTP answer")
	errLong   = errors.New("the answer is larger than 16 KiB")
)

// connect asks for a tunnel over c, which is TCP or TLS.
func (p *Proxy) connect(c net.Conn, r *Request) (*Tunnel, error) {
	target := p.target(r)
	b := fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", target, target)
	if p.User != "" {
		credentials := base64.StdEncoding.EncodeToString([]byte(p.user(r) + ":" + p.Password))
		b = fmt.Appendf(b, "Proxy-Authorization: Basic %s\r\n", credentials)
	}
	if r.Via != "" {
		b = fmt.Appendf(b, "Via: %s\r\n", r.Via)
	}
	if _, err := c.Write(append(b, "\r\n"...)); err != nil {
		return nil, err
	}
	return readAnswer(c)
}

// readAnswer reads up to the answer that counts: others of 1xx may come before it,
// RFC 9110 section 15.2.
func readAnswer(c net.Conn) (*Tunnel, error) {
	in := answers{c: c}
	for {
		head, err := in.head()
		if err != nil {
			return nil, err
		}
		status, fields, err := parseAnswer(head)
		switch {
		case err != nil:
			return nil, err
		case status == 101: // nobody asked for that
			return nil, errAnswer
		case status < 200:
			continue
		case status < 300:
			return &Tunnel{Early: in.buf, Source: source(fields)}, nil
		}
		return nil, newRefusal(status, fields)
	}
}

// answers reads heads of HTTP answers. buf is what was read behind the last one.
type answers struct {
	c   net.Conn
	buf []byte
	n   int // bytes read in all
}

// head returns the next head, with the blank line that it ends in. A line may end in
// LF alone, RFC 9112 section 2.2.
func (a *answers) head() ([]byte, error) {
	for line, scanned := 0, 0; ; {
		i := bytes.IndexByte(a.buf[scanned:], '\n')
		if i < 0 {
			scanned = len(a.buf)
			if err := a.more(); err != nil {
				return nil, err
			}
			continue
		}
		end := scanned + i
		blank := len(bytes.TrimSuffix(a.buf[line:end], []byte("\r"))) == 0
		line, scanned = end+1, end+1
		if blank {
			head := a.buf[:line:line]
			a.buf = a.buf[line:]
			return head, nil
		}
	}
}

// more reads some bytes. From TLS it is one: reading them is cheap, and there is no
// way to put others in front of what is still to come.
func (a *answers) more() error {
	if a.n == maxAnswer {
		return errLong
	}
	room := min(1<<10, maxAnswer-a.n)
	if _, isTLS := a.c.(*tls.Conn); isTLS {
		room = 1
	}
	at := len(a.buf)
	a.buf = append(a.buf, make([]byte, room)...)
	n, err := a.c.Read(a.buf[at:])
	a.buf, a.n = a.buf[:at+n], a.n+n
	if n > 0 {
		return nil
	}
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fields are those of an answer that swivel looks at. A field that comes several
// times is a list, RFC 9110 section 5.3.
type fields struct{ source, proxyStatus []string }

func parseAnswer(head []byte) (status int, f fields, err error) {
	first := true
	for line := range bytes.Lines(head) {
		line = bytes.TrimRight(line, "\r\n")
		if first {
			first = false
			if status, err = parseStatus(line); err != nil {
				return 0, f, err
			}
			continue
		}
		name, value, _ := strings.Cut(string(line), ":")
		switch value = strings.Trim(value, " \t"); {
		case strings.EqualFold(name, "Swivel-Source"):
			f.source = append(f.source, value)
		case strings.EqualFold(name, "Proxy-Status"):
			f.proxyStatus = append(f.proxyStatus, value)
		}
	}
	return status, f, nil
}

// parseStatus reads a status line, RFC 9112 section 4.
func parseStatus(line []byte) (int, error) {
	const version = "HTTP/1.x "
	if len(line) < len(version)+3 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return 0, errAnswer
	}
	status := 0
	for _, c := range line[len(version) : len(version)+3] {
		if c < '0' || c > '9' {
			return 0, errAnswer
		}
		status = 10*status + int(c-'0')
	}
	if status < 100 || status > 599 {
		return 0, errAnswer
	}
	return status, nil
}

// source is what a proxy says that it leaves by: an address, or where a proxy is.
func source(f fields) string {
	if len(f.source) != 1 || len(f.source[0]) > 255+len(":65535") {
		return ""
	}
	s := f.source[0]
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.String()
	}
	for i := range len(s) {
		if c := s[i]; !isNameByte(c) && c != ':' && c != '[' && c != ']' {
			return ""
		}
	}
	return s
}

func isNameByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '.' || c == '-' || c == '_'
}
