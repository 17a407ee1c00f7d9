package egress_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"swivel/internal/netlab"
)

// hold keeps n clients, each of which has said something, until they are all here.
func (r *rig) hold(t *testing.T, n int, says func(i int) string) []*net.TCPConn {
	t.Helper()
	conns := make([]*net.TCPConn, n)
	for i := range conns {
		conns[i] = r.dial(t)
		send(t, conns[i], says(i))
	}
	return conns
}

// Clients that are silent, or stop in their head, leave nothing behind.
func TestLeaksHalfOpen(t *testing.T) {
	netlab.Leaks(t)
	r := newTLSRig(t)
	stops := []string{"", "C", "CONNECT a:443 HTTP/1.1\r\nHost:", "GET http://a/ HTTP/1.1\r\nHost:", "\x05\x01", hello + toName, "\x16\x03\x01"}
	conns := r.hold(t, 2000, func(i int) string { return stops[i%len(stops)] })
	for i, c := range conns {
		if i%2 == 0 {
			reset(c)
		} else {
			c.Close()
		}
	}
	for range conns {
		if l := r.line(t); l.Reason != "no-request" || l.Status != 0 {
			t.Fatalf("line: %+v", l)
		}
	}
	r.noLine(t)
}

// Neither do those that are served and go.
func TestLeaksShort(t *testing.T) {
	const connections, workers = 5000, 20
	netlab.Leaks(t)
	r := newRig(t, nil)
	o := newOrigin(t)
	o.serve(t, func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 4))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	requests := []string{
		connectHead(o.String()) + "ping",
		hello + socksAddr(o.AddrPort) + "ping",
		"GET http://" + o.String() + "/ HTTP/1.0\r\n\r\n",
		connectHead("10.1.2.3:443"),
	}
	var clients sync.WaitGroup
	for w := range workers {
		clients.Go(func() { // ends with its share
			for i := range connections / workers {
				if err := r.once(requests[(w+i)%len(requests)]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	for range connections {
		if l := r.line(t); l.Reason == "" || l.Reason == "proxy_internal_error" {
			t.Errorf("line: %+v", l)
		}
	}
	r.noLine(t)
	for _, use := range r.pool.Sources() {
		if use.Open != 0 {
			t.Errorf("%s: %d connections are counted, want 0", use.Addr, use.Open)
		}
	}
}

// once makes a connection, says what it has to, and reads to the end.
func (r *rig) once(says string) error {
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		return err
	}
	defer reset(c.(*net.TCPConn)) // leaves no TIME_WAIT
	if _, err := io.WriteString(c, says); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	return err
}

func BenchmarkConnect(b *testing.B) {
	r := newRig(b, nil)
	o := newOrigin(b)
	o.echo(b)
	request := []byte(connectHead(o.String()))
	buf := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			b.Fatal(err)
		}
		c.Write(request)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
		reset(c.(*net.TCPConn))
		<-r.log.lines
	}
}
