package egress_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// get is a forwarded request without anything special.
func get(o *origin) string { return "GET http://" + o.String() + "/ HTTP/1.1\r\nHost: a\r\n\r\n" }

// fieldLines are the first line of a head, and its fields in order.
func fieldLines(head string) []string {
	list := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
	slices.Sort(list[1:])
	return list
}

// The origin gets what the client sent it, and nothing of what the client said to
// the proxy, or the proxy thinks of the client.
func TestForwardFields(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	c := r.dial(t)
	send(t, c, "GET http://"+o.String()+"/a%2fb//?a;b=%zz HTTP/1.1\r\n"+
		"Host: elsewhere.test\r\nProxy-Authorization: Basic "+marker+"\r\nProxy-Connection: keep-alive\r\n"+
		"Connection: X-Secret, X-Forwarded-Host\r\nConnection: keep-alive\r\nX-Secret: "+marker+"\r\nX-Forwarded-Host: "+marker+"\r\n"+
		"Keep-Alive: 5\r\nX-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\nTE: trailers\r\nX-Kept: yes\r\n\r\n")
	up := o.accept(t)
	got := fieldLines(readHead(t, up))
	want := []string{
		"GET /a%2fb//?a;b=%zz HTTP/1.1",
		"Connection: close", "Forwarded: for=192.0.2.1", "Host: " + o.String(), "Te: trailers",
		"X-Forwarded-For: 192.0.2.1", "X-Kept: yes",
	}
	if !slices.Equal(got, want) {
		t.Errorf("origin got %q, want %q", got, want)
	}

	const date = "Date: Thu, 01 Jan 1970 00:00:00 GMT"
	send(t, up, "HTTP/1.1 299 Fine\r\nConnection: X-Hop\r\nX-Hop: "+marker+"\r\nProxy-Authenticate: "+marker+"\r\n"+
		date+"\r\nVia: 1.1 cdn\r\nContent-Length: 6\r\n\r\n<html>")
	got = fieldLines(readHead(t, c))
	want = []string{
		"HTTP/1.1 299 Fine", "Content-Length: 6", date,
		`Proxy-Status: swivel; next-hop="` + o.String() + `"`, "Swivel-Source: 127.0.0.2", "Via: 1.1 cdn",
	}
	want[0] = got[0] // net/http has its own phrases
	if !slices.Equal(got, want) || !strings.HasPrefix(got[0], "HTTP/1.1 299 ") {
		t.Errorf("client got %q, want %q", got, want)
	}
	wantText(t, c, "<html>")
	l := r.line(t)
	if l.Mode != "http" || l.Status != 299 || l.Target != o.String() || l.Source != "127.0.0.2" || l.Reason != "done" {
		t.Errorf("line: %+v", l)
	}
	c.Close()
}

// Each request on a connection leaves by the next source, and has its own line.
func TestForwardKeepAlive(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	c := r.dial(t)
	in := bufio.NewReader(c)
	for _, source := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.2"} {
		send(t, c, get(o))
		up := o.accept(t)
		if got := up.RemoteAddr().String(); !strings.HasPrefix(got, source+":") {
			t.Errorf("came from %s, want %s", got, source)
		}
		readHead(t, up)
		send(t, up, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body := readAll(t, res.Body); body != "hello" || res.Header.Get("Swivel-Source") != source {
			t.Errorf("got %q, %v", body, res.Header)
		}
		if l := r.line(t); l.Source != source || l.Status != 200 || l.Attempts != 1 || l.Up == 0 || l.Down == 0 {
			t.Errorf("line: %+v", l)
		}
		wantEnd(t, up) // the connection is not kept for the next request
	}
	c.CloseWrite()
	wantEnd(t, c)
	r.accepting() // waits for the client
	r.noLine(t)
}

// webClient is Go's own client, which speaks to the proxy.
func webClient(t *testing.T, r *rig) *http.Client {
	t.Helper()
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: r.addr})}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func webServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestForwardBodies(t *testing.T) {
	t.Parallel()
	up, down := random(3_000_000), random(5_000_000)
	r := newRig(t, nil)
	server := webServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(body, up) {
			t.Errorf("server read %d bytes, %v", len(body), err)
		}
		w.Header().Set("Trailer", "X-Announced")
		w.Header().Set("X-Trailer", r.Trailer.Get("X-Trailer"))
		w.Write(down)
		w.Header().Set("X-Announced", "yes")
		w.Header().Set(http.TrailerPrefix+"X-Not-Announced", "yes")
	})
	for _, length := range []int64{int64(len(up)), -1} {
		t.Run(fmt.Sprint("length ", length), func(t *testing.T) {
			req, _ := http.NewRequestWithContext(t.Context(), "POST", server, io.NopCloser(bytes.NewReader(up)))
			req.ContentLength = length
			want := ""
			if length < 0 {
				want = "yes"
				req.Trailer = http.Header{"X-Trailer": {want}}
			}
			res, err := webClient(t, r).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			wantSum(t, res.Body, down)
			if got := res.Header.Get("X-Trailer"); got != want {
				t.Errorf("server got the trailer %q, want %q", got, want)
			}
			if res.Trailer.Get("X-Announced") != "yes" || res.Trailer.Get("X-Not-Announced") != "yes" {
				t.Errorf("client got the trailers %v", res.Trailer)
			}
			l := r.line(t)
			if l.Up < int64(len(up)) || l.Down < int64(len(down)) || l.Reason != "done" {
				t.Errorf("line: %+v", l)
			}
		})
	}
}

func TestForwardWithoutBody(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	c := r.dial(t)
	for _, tt := range []struct{ method, response, want string }{
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "Content-Length: 1000"},
		{"GET", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content"},
		{"GET", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", "Etag: x"},
		{"DELETE", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "Content-Length: 0"},
		{"PROPFIND", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "Content-Length: 0"},
	} {
		send(t, c, tt.method+" http://"+o.String()+" HTTP/1.1\r\nHost: a\r\n\r\n")
		up := o.accept(t)
		if got := readHead(t, up); !strings.HasPrefix(got, tt.method+" / HTTP/1.1\r\n") {
			t.Errorf("origin got %q", got)
		}
		send(t, up, tt.response)
		up.Close()
		if got := fieldLines(readHead(t, c)); !slices.Contains(got, tt.want) {
			t.Errorf("client got %q", got)
		}
		r.line(t)
	}
	c.Close()
}

func TestForwardContinue(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	o := newOrigin(t)
	request := "POST http://" + o.String() + "/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
	t.Run("when the origin says so", func(t *testing.T) {
		c := r.dial(t)
		send(t, c, request)
		up := o.accept(t)
		if head := readHead(t, up); !strings.Contains(head, "\r\nExpect: 100-continue\r\n") {
			t.Errorf("origin got %q", head)
		}
		send(t, up, "HTTP/1.1 100 Continue\r\n\r\n")
		wantText(t, c, "HTTP/1.1 100 Continue\r\n\r\n")
		send(t, c, "body")
		wantText(t, up, "body")
		send(t, up, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
		if got := readHead(t, c); got != "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" {
			t.Errorf("got %q", got)
		}
		if got := readHead(t, c); !strings.HasPrefix(got, "HTTP/1.1 201 Created\r\n") || strings.Contains(got, "Link") {
			t.Errorf("got %q", got)
		}
		if l := r.line(t); l.Status != 201 {
			t.Errorf("line: %+v", l)
		}
		c.Close()
	})
	t.Run("when the origin does not want it", func(t *testing.T) {
		c := r.dial(t)
		send(t, c, request)
		up := o.accept(t)
		readHead(t, up)
		send(t, up, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
		if got := readHead(t, c); !strings.HasPrefix(got, "HTTP/1.1 417 ") {
			t.Errorf("got %q", got)
		}
		wantEnd(t, c)
		if l := r.line(t); l.Status != 417 {
			t.Errorf("line: %+v", l)
		}
	})
}

// An answer that is given before the request has been read reaches the client, also
// when the origin then resets the connection (U7).
func TestForwardEarlyAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	o := newOrigin(t)
	body := strings.Repeat("x", 1<<20)
	for range 20 {
		c := r.dial(t)
		go io.WriteString(c, "POST http://"+o.String()+"/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n"+body)
		up := o.accept(t)
		readHead(t, up)
		send(t, up, "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
		up.Close() // with unread input
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, res.Body); res.StatusCode != 413 || got != "large" {
			t.Fatalf("got %d, %q", res.StatusCode, got)
		}
		c.Close()
		if l := r.line(t); l.Status != 413 || l.Reason != "done" {
			t.Errorf("line: %+v", l)
		}
	}
}

// The time that a head may take is over when it has come.
func TestForwardSlowerThanHead(t *testing.T) {
	t.Parallel()
	const head = 500 * time.Millisecond
	r := newRig(t, func(r *rig) { r.Head = head })
	o := newOrigin(t)
	c := r.dial(t)
	for range 2 { // the first request, and another
		send(t, c, "POST http://"+o.String()+"/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
		up := o.accept(t)
		readHead(t, up)
		<-time.After(head)
		send(t, c, "body")
		wantText(t, up, "body")
		<-time.After(head)
		send(t, up, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		if got := readHead(t, c); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("got %q", got)
		}
		wantText(t, c, "ok")
		if l := r.line(t); l.Reason != "done" {
			t.Errorf("line: %+v", l)
		}
	}
	c.Close()
}
