package egress

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"swivel/internal/auth"
	"swivel/internal/target"
	"swivel/listener"
)

// segments is the connection of a client that has sent what is in data, of which a
// Read returns step bytes, twice as many the next time, and so on: step 0 is all
// at once. What is written to it, it keeps.
type segments struct {
	data    []byte
	step    int
	most    int // bytes that were asked for at once
	written bytes.Buffer
}

func (s *segments) Read(p []byte) (int, error) {
	s.most = max(s.most, len(p))
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := len(p)
	if s.step > 0 {
		n = min(n, s.step)
		s.step *= 2
	}
	n = copy(p[:n], s.data)
	s.data = s.data[n:]
	return n, nil
}

func (s *segments) Write(p []byte) (int, error)      { return s.written.Write(p) }
func (s *segments) Close() error                     { return nil }
func (s *segments) CloseWrite() error                { return nil }
func (s *segments) LocalAddr() net.Addr              { return nil }
func (s *segments) RemoteAddr() net.Addr             { return nil }
func (s *segments) SetDeadline(time.Time) error      { return nil }
func (s *segments) SetReadDeadline(time.Time) error  { return nil }
func (s *segments) SetWriteDeadline(time.Time) error { return nil }

// verdict is what became of a head: a target, or an error; and what is left for the
// tunnel.
type verdict struct {
	target target.Target
	err    string
	rest   string
	answer string
}

func (v *verdict) fail(err error) verdict { return verdict{err: err.Error(), answer: v.answer} }

// readConnect reads a CONNECT request as a session does.
func readConnect(t *testing.T, data []byte, step int) (v verdict) {
	c := &segments{data: data, step: step}
	r := reader{c: c}
	line, err := r.requestLine()
	if err != nil {
		return v.fail(err)
	}
	if line.method != "CONNECT" {
		return v.fail(errMethod)
	}
	req, err := r.connectRequest(line)
	if err != nil {
		return v.fail(err)
	}
	wantBounded(t, &r, c)
	return verdict{target: req.target, rest: string(r.buf) + string(c.data)}
}

func wantBounded(t *testing.T, r *reader, c *segments) {
	if c.most > maxHead || cap(r.buf) > maxHead {
		t.Errorf("holds %d bytes, asked for %d at once", cap(r.buf), c.most)
	}
}

func wantSameTarget(t *testing.T, got target.Target) {
	if again, err := target.Parse(got.String()); err != nil || again != got {
		t.Errorf("%v parses to %v, %v", got, again, err)
	}
}

func FuzzConnect(f *testing.F) {
	for _, s := range []string{
		"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\nearly",
		"\r\nCONNECT [2001:db8::1]:443 HTTP/1.0\r\n\r\n",
		"CONNECT 192.0.2.1:1 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YTpi\r\nContent-Length: 0\r\nX:\t\xff\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\nHost: a\n\n",
		"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\n\r\n\x00\r\nQUIT\n",
		"CONNECT " + strings.Repeat("a", maxHead),
	} {
		f.Add([]byte(s), 1)
	}
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		got := readConnect(t, data, 0)
		for _, step := range []int{1, max(1, step)} {
			if other := readConnect(t, data, step); other != got {
				t.Errorf("in one segment %+v, from %d bytes on %+v", got, step, other)
			}
		}
		if got.err != "" {
			return
		}
		wantSameTarget(t, got.target)
		if !bytes.HasSuffix(data, []byte(got.rest)) {
			t.Errorf("%q is not the end of %q", got.rest, data)
		}
		wantAgreement(t, strings.TrimPrefix(string(data), "\r\n"), got)
	})
}

// wantAgreement checks that net/http reads a head that was accepted in the same way.
// It refuses an empty line in front, which has been cut off.
func wantAgreement(t *testing.T, data string, got verdict) {
	r := bufio.NewReaderSize(strings.NewReader(data), len(data)+16)
	req, err := http.ReadRequest(r)
	if err != nil || req.Method != "CONNECT" {
		t.Fatalf("net/http on %q: %v", data, err)
	}
	if theirs, err := target.Parse(req.URL.Host); err != nil || theirs != got.target {
		t.Errorf("target %v, net/http has %v", got.target, theirs)
	}
	if req.ContentLength > 0 || len(req.TransferEncoding) > 0 {
		t.Errorf("net/http sees a body of %d bytes, %q", req.ContentLength, req.TransferEncoding)
	}
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != got.rest {
		t.Errorf("rest %q, net/http has %q, %v", got.rest, rest, err)
	}
}

// readSOCKS negotiates as a session without users does.
func readSOCKS(t *testing.T, data []byte, step int) (v verdict) {
	c := &segments{data: data, step: step}
	s := &session{Door: &Door{}, c: &listener.Client{}, conn: c, in: reader{c: c}}
	err := s.in.need(1)
	var method byte
	if err == nil {
		method, err = s.socksMethod()
	}
	if err == nil && method == socksPassword {
		_, err = s.socksPassword()
	}
	if err == nil {
		v.target, err = s.socksRequest()
	}
	wantBounded(t, &s.in, c)
	v.answer = c.written.String()
	if err != nil {
		return v.fail(err)
	}
	v.rest = string(s.in.buf) + string(c.data)
	return v
}

// readLogin reads a user and a password.
func readLogin(t *testing.T, data []byte, step int) (v verdict) {
	c := &segments{data: data, step: step}
	s := &session{Door: &Door{Users: new(auth.Users)}, c: &listener.Client{}, conn: c, in: reader{c: c}}
	user, password, err := s.socksCredentials()
	wantBounded(t, &s.in, c)
	if err != nil {
		return v.fail(err)
	}
	if user == "" || password == "" {
		t.Errorf("user %q, password %q", user, password)
	}
	return verdict{answer: user + "\x00" + password, rest: string(s.in.buf) + string(c.data)}
}

func FuzzSOCKS(f *testing.F) {
	for _, s := range []string{
		"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbbearly",
		"\x05\x02\x02\x00\x05\x01\x00\x03\x06a.test\x01\xbb",
		"\x05\x01\x00\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x01\xbb",
		"\x05\x01\x02\x01\x03ann\x06secret\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbb",
		"\x05\x01\x00\x05\x02\x00\x01",
		"\x01\x03ann\x06secret",
		"\x05\xff",
	} {
		f.Add([]byte(s), 1)
	}
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		for _, read := range []func(*testing.T, []byte, int) verdict{readSOCKS, readLogin} {
			got := read(t, data, 0)
			for _, step := range []int{1, max(1, step)} {
				if other := read(t, data, step); other != got {
					t.Errorf("in one segment %+v, from %d bytes on %+v", got, step, other)
				}
			}
			if got.target != (target.Target{}) && got.err == "" {
				wantSameTarget(t, got.target)
			}
			if got.err == "" && !bytes.HasSuffix(data, []byte(got.rest)) {
				t.Errorf("%q is not the end of %q", got.rest, data)
			}
		}
	})
}

// A head that is too large says so, however it comes, and takes no more room.
func TestHeadBound(t *testing.T) {
	const start = "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nX: "
	for _, size := range []int{maxHead - 1, maxHead, maxHead + 1} {
		head := start + strings.Repeat("x", size-len(start)-4) + "\r\n\r\n"
		for _, step := range []int{0, 1, 700} {
			c := &segments{data: []byte(head), step: step}
			r := reader{c: c}
			_, err := r.connectRequest(requestLine{"CONNECT", "a:443", 1})
			if want := size > maxHead; errors.Is(err, errTooBig) != want || err == nil == want {
				t.Errorf("%d bytes in steps of %d: %v", size, step, err)
			}
			wantBounded(t, &r, c)
		}
	}
}

func BenchmarkParseConnect(b *testing.B) {
	line := []byte("CONNECT www.example.com:443 HTTP/1.1")
	fields := []byte("Host: www.example.com:443\r\n" +
		"User-Agent: curl/8.5.0\r\nProxy-Connection: Keep-Alive\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n")
	b.ReportAllocs()
	for b.Loop() {
		l, err := parseRequestLine(line)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := parseConnect(l, fields); err != nil {
			b.Fatal(err)
		}
	}
}
