package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// until lets a stream pass once it has a line, unless that is "no"; at its end,
// anything.
func until(first []byte, last bool) (more bool, err error) {
	line, _, ok := bytes.Cut(first, []byte("\n"))
	if ok && string(line) == "no" {
		return false, errors.New("no is no")
	}
	return !ok, nil
}

// screened is a Pipe of which the client's first bytes are seen by until. head was
// read of them already.
func screened(t *testing.T, head string, spliced bool) (p *Pipe, client, upstream *net.TCPConn) {
	client, in := tcpPair(t)
	out, upstream := tcpPair(t)
	c := NewConn(in, []byte(head))
	c.Screen(until)
	var to Duplex = NewConn(out, nil)
	if !spliced {
		to = struct{ *net.TCPConn }{out}
	}
	return NewPipe(c, to, Limits{}), client, upstream
}

func TestScreen(t *testing.T) {
	long := strings.Repeat("x", 5*bufferSize)
	for _, tt := range []struct{ name, head, sent string }{
		{"at once", "", "yes\nand more"},
		{"in the head", "yes\n", "and more"},
		{"in part in the head", "ye", "s\n"},
		{"long, and much behind it", "", long + "\n" + long + long},
		{"the end comes first", "", "yes"},
		{"the end comes first, behind a head", "yes", ""},
		{"nothing", "", ""},
	} {
		for _, spliced := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, spliced %t", tt.name, spliced), func(t *testing.T) {
				p, client, upstream := screened(t, tt.head, spliced)
				ended := make(chan struct{})
				go func() {
					p.Run()
					close(ended)
				}()
				// Upstream speaks first, and is heard at once.
				if _, err := io.WriteString(upstream, "hello"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(client, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
				go func() {
					for i := range min(len(tt.sent), 7) { // in several segments
						io.WriteString(client, tt.sent[i:i+1])
					}
					io.WriteString(client, tt.sent[min(len(tt.sent), 7):])
					client.CloseWrite()
				}()
				got, err := io.ReadAll(upstream)
				if want := tt.head + tt.sent; string(got) != want || err != nil {
					t.Errorf("upstream got %d bytes, %v; want %d", len(got), err, len(want))
				}
				upstream.Close()
				<-ended
			})
		}
	}
}

func TestScreenDenies(t *testing.T) {
	for _, head := range []string{"", "no\n"} {
		for _, spliced := range []bool{true, false} {
			p, client, upstream := screened(t, head, spliced)
			if head == "" {
				if _, err := io.WriteString(client, "no\nnever"); err != nil {
					t.Fatal(err)
				}
			}
			reason, err := p.Run()
			if _, denied := errors.AsType[*Denial](err); reason != Denied || !denied || err.Error() != "no is no" {
				t.Errorf("head %q: ended by %s, %v; want %s", head, reason, err, Denied)
			}
			for name, c := range map[string]net.Conn{"client": client, "upstream": upstream} {
				if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || err == io.EOF {
					t.Errorf("head %q: %s got %d bytes, %v; want a reset", head, name, n, err)
				}
			}
		}
	}
}

func TestScreenReader(t *testing.T) {
	for _, tt := range []struct{ sent, want string }{{"yes\nand more", "yes\nand more"}, {"yes", "yes"}, {"", ""}, {"no\n", "denied"}} {
		r := ScreenReader(struct{ io.Reader }{&byteByByte{tt.sent}}, until)
		got, err := io.ReadAll(r)
		if _, denied := errors.AsType[*Denial](err); denied {
			got = append(got, "denied"...)
		} else if err != nil {
			t.Error(err)
		}
		if string(got) != tt.want {
			t.Errorf("of %q: got %q", tt.sent, got)
		}
	}
}

type byteByByte struct{ rest string }

func (b *byteByByte) Read(p []byte) (int, error) {
	if b.rest == "" {
		return 0, io.EOF
	}
	n := copy(p[:1], b.rest)
	b.rest = b.rest[n:]
	return n, nil
}
