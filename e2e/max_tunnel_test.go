//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// A pool may make its clients come back now and then, to leave by another source.
// What they had is cut, and looks cut.
func TestMaxTunnel(t *testing.T) {
	for name, pool := range map[string]string{
		"max-tunnel-age":   "max_tunnel_age: 300ms",
		"max-tunnel-bytes": "max_tunnel_bytes: 1MiB",
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, "-config", config(t, fmt.Sprintf(fiveSources, pool)))
			c, err := net.Dial("tcp", s.addr("egress"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			if head, err := connect(c, newEcho(t, nil)); err != nil {
				t.Fatalf("%q, %v", head, err)
			}
			written := make(chan error, 1)
			go func() { // until the tunnel is cut
				for {
					if _, err := c.Write(make([]byte, 64<<10)); err != nil {
						written <- err
						return
					}
				}
			}()
			n, err := io.Copy(io.Discard, c)
			// The kernel reports a reset once: to the reader, or to the writer.
			if werr := <-written; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(werr, syscall.ECONNRESET) {
				t.Errorf("the end after %d bytes looks as if that were all: %v, %v", n, err, werr)
			}
			e := s.line(closed)
			if e.text("reason") != name {
				t.Errorf("reason %q", e.text("reason"))
			}
		})
	}
}
