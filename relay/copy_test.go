package relay

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Not for t.Parallel: the counter is the process's.
func TestPipeSplices(t *testing.T) {
	const size = 8 << 20
	hidden := func(c *net.TCPConn) Duplex { return struct{ Duplex }{c} } // of no type that splices

	for _, tt := range []struct {
		name string
		wrap func(*net.TCPConn) Duplex
		want bool
	}{
		{"Conn", func(c *net.TCPConn) Duplex { return NewConn(c, []byte("head")) }, true},
		{"TCPConn", func(c *net.TCPConn) Duplex { return c }, true},
		{"hidden", hidden, false},
	} {
		for _, way := range []string{"up", "down"} {
			t.Run(tt.name+" "+way, func(t *testing.T) {
				client, in := tcpPair(t)
				out, server := tcpPair(t)
				src, dst := client, server
				if way == "down" {
					src, dst = server, client
				}
				before := written(t)
				ended := make(chan error)
				go func() {
					_, err := NewPipe(tt.wrap(in), out, Limits{}).Run()
					ended <- err
				}()
				go func() {
					mustWrite(t, src, make([]byte, size))
					mustCloseWrite(t, src)
				}()
				io.Copy(io.Discard, dst)
				dst.Close()
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				relayed := written(t) - before - size // less what the peer wrote
				if got := relayed < size/8; got != tt.want {
					t.Errorf("relay wrote %d of %d bytes itself; spliced = %t, want %t", relayed, size, got, tt.want)
				}
			})
		}
	}
}

// A direction that splices passes on what has come, and does not wait for more.
// Each message is answered before the next, or the test hangs.
func TestPipeSmallAfterBulk(t *testing.T) {
	bulk := random(4 << 20)
	tn := newTunnel(t, nil, Limits{}).start(t)
	for range 5 {
		go mustWrite(t, tn.client, bulk)
		wantRead(t, tn.server, bulk)
		for _, size := range []int{1, 100, 5000} {
			mustWrite(t, tn.client, bulk[:size])
			wantRead(t, tn.server, bulk[:size])
			mustWrite(t, tn.server, bulk[:size])
			wantRead(t, tn.client, bulk[:size])
		}
	}
}

// At an urgent byte splice(2) says EAGAIN although there is more behind it.
func TestPipeUrgentByte(t *testing.T) {
	for _, inline := range []bool{false, true} {
		bulk, tail := random(2<<20), random(100_000)
		tn := newTunnel(t, nil, Limits{})
		if inline {
			control(t, tn.in, func(fd int) error {
				return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
			})
		}
		tn.start(t)
		for range 5 {
			go func() {
				mustWrite(t, tn.client, bulk)
				control(t, tn.client, func(fd int) error {
					for {
						if err := unix.Sendto(fd, []byte("!"), unix.MSG_OOB, nil); err != unix.EAGAIN {
							return err
						}
					}
				})
				mustWrite(t, tn.client, tail)
			}()
			wantRead(t, tn.server, bulk)
			if inline {
				wantRead(t, tn.server, []byte("!"))
			}
			wantRead(t, tn.server, tail)
		}
	}
}

// A client that hardly reads pins one pipe or one buffer.
func TestPipeSlowReader(t *testing.T) {
	emptyPool(t, 48)
	answer := random(8 << 20)
	tn := newTunnel(t, nil, Limits{})
	tn.client.SetReadBuffer(64 << 10)
	sendBuffer(t, tn.in, 64<<10)
	tn.start(t)
	go func() {
		mustWrite(t, tn.server, answer)
		mustCloseWrite(t, tn.server)
	}()
	for rest := answer; len(rest) > 0; {
		n := min(len(rest), 50_000)
		wantRead(t, tn.client, rest[:n])
		rest = rest[n:]
		if got := openPipes(); got > 1 {
			t.Fatalf("%d pipes exist", got)
		}
	}
}

// With a hundred parts in one, a chunk must not allocate. A pool that the race
// detector empties at random would.
func TestPipeAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool is different under the race detector")
	}
	for _, size := range []int{100, 256 << 10} {
		tn := newTunnel(t, nil, Limits{}).start(t)
		p := make([]byte, size)
		got := testing.AllocsPerRun(200, func() {
			tn.client.Write(p)
			io.ReadFull(tn.server, p)
			tn.server.Write(p)
			io.ReadFull(tn.client, p)
		})
		if got != 0 {
			t.Errorf("%v allocations for a round trip of %d bytes, want 0", got, size)
		}
	}
}
