package egress_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"testing"

	"swivel/relay"
)

// post is a request whose body is not complete.
func post(o *origin) string {
	return "POST http://" + o.String() + "/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nonly a part"
}

// A response that the origin cut off reaches the client as far as it came, and then
// looks cut.
func TestForwardCutResponse(t *testing.T) {
	part := strings.Repeat("part of it", 10_000)
	r := newRig(t, nil)
	o := newOrigin(t)
	for _, tt := range []struct {
		name, head, part string
		close            func(*net.TCPConn)
		want             relay.Reason
	}{
		{"length, RST", "Content-Length: 1000000\r\n\r\n", part, reset, relay.UpstreamReset},
		{"length, FIN", "Content-Length: 1000000\r\n\r\n", part, closeConn, relay.UpstreamClosed},
		{"length, nothing, RST", "Content-Length: 1000000\r\n\r\n", "", reset, relay.UpstreamReset},
		{"chunked, RST", "Transfer-Encoding: chunked\r\n\r\n", chunk(part), reset, relay.UpstreamReset},
		{"chunked, FIN", "Transfer-Encoding: chunked\r\n\r\n", chunk(part), closeConn, relay.UpstreamClosed},
		{"chunked, FIN in the last chunk", "Transfer-Encoding: chunked\r\n\r\n", chunk(part) + "0\r\n", closeConn, relay.UpstreamClosed},
		{"chunked, garbage", "Transfer-Encoding: chunked\r\n\r\n", chunk(part) + "xyz\r\n", closeLater, "http_protocol_error"},
		{"until it closes, RST", "\r\n", part, reset, relay.UpstreamReset},
	} {
		for _, version := range []string{"1.1", "1.0"} {
			t.Run(tt.name+", HTTP/"+version, func(t *testing.T) {
				c := r.dial(t)
				send(t, c, "GET http://"+o.String()+"/ HTTP/"+version+"\r\nHost: a\r\n\r\n")
				up := o.accept(t)
				readHead(t, up)
				send(t, up, "HTTP/1.1 200 OK\r\n"+tt.head+tt.part)
				if got := readHead(t, c); !strings.HasPrefix(got, "HTTP/"+version+" 200 ") && !strings.HasPrefix(got, "HTTP/1.1 200 ") {
					t.Errorf("got %q", got)
				}
				if tt.want == relay.UpstreamClosed {
					tt.close(up) // net/http gives the last bytes out when it has seen what follows
				}
				got := make([]byte, min(len(tt.part), len(part))) // some of it may be chunk headers
				if _, err := io.ReadFull(c, got); err != nil {
					t.Fatal(err)
				}
				tt.close(up)
				if rest := wantReset(t, c); strings.HasSuffix(rest, "0\r\n\r\n") {
					t.Errorf("the response looks complete: %q", rest)
				}
				if l := r.line(t); l.Reason != string(tt.want) || l.Status != 200 {
					t.Errorf("line: %+v", l)
				}
			})
		}
	}
}

func closeConn(c *net.TCPConn)  { c.Close() }
func closeLater(c *net.TCPConn) {}

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// The reset goes to the upload, and the response reads as if it had ended.
func TestForwardResetDuringUpload(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	o := newOrigin(t)
	for range 50 {
		c := r.dial(t)
		send(t, c, "POST http://"+o.String()+"/ HTTP/1.0\r\nContent-Length: 100000000\r\n\r\n")
		go io.Copy(c, zeros{}) // ends with c
		up := o.accept(t)
		readHead(t, up)
		send(t, up, "HTTP/1.0 200 OK\r\n\r\npart")
		readHead(t, c)
		wantText(t, c, "part")
		reset(up)
		io.Copy(io.Discard, c) // the reset may have gone to the upload here, too
		if !isReset(t, c) {
			t.Error("the response looks complete")
		}
		if l := r.line(t); l.Reason != "upstream-reset" {
			t.Fatalf("line: %+v", l)
		}
		c.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// An origin that speaks first has nobody's attention, and does not write to our
// standard error.
func TestForwardOriginSpeaksFirst(t *testing.T) {
	var said bytes.Buffer
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	r := newRig(t, nil)
	o := newOrigin(t)
	o.serve(t, func(c *net.TCPConn) {
		io.WriteString(c, "220 "+marker+"\r\n")
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	for range 50 {
		if got := r.talk(t, get(o), 1000); got != refusal("502 http_protocol_error") && got != refusal("502 connection_terminated") {
			t.Errorf("got %q", got)
		}
		r.line(t)
	}
	if said.Len() > 0 {
		t.Errorf("logged %q", said.String())
	}
}

// An upstream that connected and gives no response.
func TestForwardNoResponse(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	o := newOrigin(t)
	for _, tt := range []struct {
		name, request, response string
		close                   func(*net.TCPConn)
		want                    string
	}{
		{"FIN", get(o), "", closeConn, "502 connection_terminated"},
		{"RST", get(o), "", reset, "502 connection_terminated"},
		{"FIN, the client waits as well", post(o), "", closeConn, "502 connection_terminated"},
		{"FIN in the head", get(o), "HTTP/1.1 200 OK\r\nX:", closeConn, "502 connection_terminated"},
		{"garbage", get(o), marker + "\r\n", closeLater, "502 http_protocol_error"},
		{"garbage, the client waits as well", post(o), marker + "\r\n", closeLater, "502 http_protocol_error"},
		{"no HTTP version", get(o), "HTTP/x 200 " + marker + "\r\n\r\n", closeLater, "502 http_protocol_error"},
		{"300 KiB head", get(o), "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 300<<10), closeLater, "502 http_protocol_error"},
		{"an upgrade nobody asked for", get(o), "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", closeLater, "502 http_protocol_error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := r.dial(t)
			send(t, c, tt.request)
			up := o.accept(t)
			readHead(t, up)
			io.WriteString(up, tt.response) // of the long one not everything is taken
			tt.close(up)
			if got, want := readAll(t, c), refusal(tt.want); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			c.Close()
			l := r.line(t)
			if l.Reason != reasonOf(tt.want) || l.Status != 502 || l.Source == "" || l.Error == "" {
				t.Errorf("line: %+v", l)
			}
		})
	}
}

// A body that cannot be read is the client's fault, not the upstream's.
func TestForwardMalformedBody(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	c := r.dial(t)
	send(t, c, "POST http://"+o.String()+"/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"+marker+"\r\n")
	up := o.accept(t)
	readHead(t, up)
	if got := readAll(t, up); got != "4\r\npart\r\n" && got != "" {
		t.Errorf("origin got %q", got)
	}
	if got, want := readAll(t, c), refusal("400 http_request_error bad request body"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c.Close()
	if l := r.line(t); l.Status != 400 || l.Reason != "http_request_error" {
		t.Errorf("line: %+v", l)
	}
}
