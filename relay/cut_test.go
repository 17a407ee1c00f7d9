package relay

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPipeUpstreamReset(t *testing.T) {
	for _, size := range []int{0, 1, 1000, bufferSize, 3 * bufferSize, 1 << 20} {
		t.Run(fmt.Sprintf("client reads, %d bytes", size), func(t *testing.T) {
			answer := random(size)
			tn := newTunnel(t, nil, Limits{}).start(t)
			got := make(chan []byte)
			go func() { got <- wantReset(t, tn.client) }()
			mustWrite(t, tn.server, answer)
			settle(tn.server, patience) // or the reset would throw away what has not left
			reset(tn.server)
			wantSame(t, <-got, answer)
			tn.wantEnd(t, UpstreamReset, true)
			if !errors.Is(tn.err, unix.ECONNRESET) {
				t.Errorf("error = %v, want ECONNRESET", tn.err)
			}
		})
		t.Run(fmt.Sprintf("client reads later, %d bytes", size), func(t *testing.T) {
			answer := random(min(size, 100_000)) // no more than the sockets hold
			tn := newTunnel(t, nil, Limits{})
			sendBuffer(t, tn.in, 4096)
			tn.start(t)
			mustWrite(t, tn.server, answer)
			settle(tn.server, patience)
			reset(tn.server)
			wantGone(t, tn.out) // the reset has overtaken the answer
			wantSame(t, wantReset(t, tn.client), answer)
			tn.wantEnd(t, UpstreamReset, true)
		})
	}
}

// An upstream that answers and closes without having read the upload: the
// kernel makes that a reset. The upload must fail, the answer must arrive.
func TestPipeUpstreamClosesUnread(t *testing.T) {
	for _, tt := range []struct {
		size  int
		later bool // the client reads only after the upload has failed
	}{{100, false}, {2 * bufferSize, false}, {1 << 20, false}, {100_000, true}} {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			answer := random(tt.size)
			tn := newTunnel(t, nil, Limits{})
			if tt.later {
				sendBuffer(t, tn.in, 4096) // for most of answer to wait behind it
			}
			tn.start(t)
			upload := make(chan error)
			go func() {
				for {
					if _, err := tn.client.Write(answer); err != nil {
						upload <- err
						return
					}
				}
			}()
			wantRead(t, tn.server, answer)
			mustWrite(t, tn.server, answer)
			settle(tn.server, patience)
			eventually(t, "unread bytes", func() bool { return unread(t, tn.server) > 0 })
			tn.server.Close()
			if tt.later {
				eventually(t, "the upload's failure", tn.isCut)
			}

			got, err := io.ReadAll(tn.client)
			wantSame(t, got, answer)
			// The socket tells its reset once, to the reader or to the writer.
			werr := <-upload
			if !errors.Is(err, unix.ECONNRESET) && !errors.Is(werr, unix.ECONNRESET) {
				t.Errorf("client saw %v reading and %v writing, want ECONNRESET", err, werr)
			}
			tn.wantEnd(t, UpstreamReset, true)
		})
	}
}

// Upstream sends FIN, then closes for good while the client still sends.
func TestPipeUpstreamGoneAfterFIN(t *testing.T) {
	answer := random(200_000)
	tn := newTunnel(t, nil, Limits{}).start(t)
	mustWrite(t, tn.server, answer)
	mustCloseWrite(t, tn.server)
	wantAll(t, tn.client, answer)
	tn.server.Close()
	for {
		if _, err := tn.client.Write(answer); err != nil {
			break
		}
	}
	tn.wantEnd(t, UpstreamReset, true)
}

// The same, but the client has nothing more to say: what TLS clients do, with
// their close_notify. Both have closed; that upstream answered with RST is no
// news to anyone.
func TestPipeUpstreamGoneBeforeFIN(t *testing.T) {
	tn := newTunnel(t, nil, Limits{}).start(t)
	mustCloseWrite(t, tn.server)
	wantAll(t, tn.client, nil)
	tn.server.Close()
	mustWrite(t, tn.client, []byte("bye"))
	wantGone(t, tn.out)
	mustCloseWrite(t, tn.client)
	tn.wantEnd(t, UpstreamClosed, false)
}

func TestPipeClientReset(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		tn := newTunnel(t, []byte("head"), Limits{}).start(t)
		wantRead(t, tn.server, []byte("head"))
		reset(tn.client)
		wantReset(t, tn.server)
		tn.wantEnd(t, ClientReset, true)
	})
	t.Run("after half-close", func(t *testing.T) {
		tn := newTunnel(t, nil, Limits{}).start(t)
		mustCloseWrite(t, tn.server)
		wantAll(t, tn.client, nil)
		reset(tn.client)
		wantReset(t, tn.server)
		tn.wantEnd(t, ClientReset, true)
	})
	t.Run("having sent all", func(t *testing.T) {
		upload := random(500_000)
		tn := newTunnel(t, upload[:10], Limits{}).start(t)
		got := make(chan []byte)
		go func() { got <- wantReset(t, tn.server) }()
		mustWrite(t, tn.client, upload[10:])
		settle(tn.client, patience)
		reset(tn.client)
		wantSame(t, <-got, upload)
		tn.wantEnd(t, ClientReset, true)
	})
}

// The socket's one ECONNRESET may go to the direction that writes. The one that
// reads then sees what looks like FIN; upstream must not.
func TestPipeResetIsNoFIN(t *testing.T) {
	answer := random(64 << 10)
	for range 100 {
		tn := newTunnel(t, nil, Limits{})
		tn.client.SetReadBuffer(4096)
		sendBuffer(t, tn.in, 4096)
		tn.start(t)
		mustWrite(t, tn.server, answer) // more than the client's side takes
		eventually(t, "bytes", func() bool { return tn.Down() > 0 })
		reset(tn.client)
		wantReset(t, tn.server)
		tn.wantEnd(t, ClientReset, true)
	}
}

func TestPipeLimits(t *testing.T) {
	const short = 50 * time.Millisecond
	for _, tt := range []struct {
		limits Limits
		phase  func(t *testing.T, tn *tunnel)
		want   Reason
	}{
		{Limits{Idle: short}, func(*testing.T, *tunnel) {}, Idle},
		{Limits{Idle: short, Lifetime: time.Hour}, func(t *testing.T, tn *tunnel) {
			mustWrite(t, tn.client, []byte("ping"))
			wantRead(t, tn.server, []byte("ping"))
		}, Idle},
		{Limits{Lifetime: short, Idle: time.Hour}, func(t *testing.T, tn *tunnel) {
			go io.Copy(io.Discard, tn.server)
			for {
				if _, err := tn.client.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}, Lifetime},
		{Limits{Age: short, Idle: time.Hour}, func(*testing.T, *tunnel) {}, MaxAge},
		{Limits{Bytes: 1000}, func(t *testing.T, tn *tunnel) {
			mustWrite(t, tn.client, make([]byte, 600))
			wantRead(t, tn.server, make([]byte, 600))
			mustWrite(t, tn.server, make([]byte, 600))
			wantRead(t, tn.client, make([]byte, 600))
		}, MaxBytes},
		{Limits{HalfClosed: short}, func(t *testing.T, tn *tunnel) {
			mustCloseWrite(t, tn.client)
			wantAll(t, tn.server, nil)
		}, HalfClosed},
		{Limits{HalfClosed: short, Idle: time.Hour}, func(t *testing.T, tn *tunnel) {
			mustCloseWrite(t, tn.server)
			wantAll(t, tn.client, nil)
		}, HalfClosed},
		{Limits{HalfClosed: time.Hour, Idle: short}, func(t *testing.T, tn *tunnel) {
			mustCloseWrite(t, tn.client)
		}, Idle},
	} {
		t.Run(fmt.Sprintf("%+v", tt.limits), func(t *testing.T) {
			tn := newTunnel(t, nil, tt.limits).start(t)
			tt.phase(t, tn)
			tn.wantEnd(t, tt.want, false)
			wantGone(t, tn.client)
			wantGone(t, tn.server)
		})
	}
}

// A client that never takes the end of a cut stream does not hold it for ever.
func TestPipeSettles(t *testing.T) {
	cut := func(t *testing.T, l Limits) *tunnel {
		tn := newTunnel(t, nil, l)
		tn.client.SetReadBuffer(4096)
		tn.start(t)
		mustWrite(t, tn.server, random(64<<10)) // more than the client's window
		settle(tn.server, patience)
		reset(tn.server)
		return tn
	}
	t.Run("within HalfClosed", func(t *testing.T) {
		tn := cut(t, Limits{HalfClosed: 50 * time.Millisecond})
		tn.wantEnd(t, UpstreamReset, true)
		wantGone(t, tn.client)
	})
	t.Run("until End", func(t *testing.T) {
		tn := cut(t, Limits{})
		eventually(t, "the cut", tn.isCut)
		tn.End(Killed)
		tn.wantEnd(t, UpstreamReset, true)
		wantGone(t, tn.client)
	})
	t.Run("within Lifetime", func(t *testing.T) {
		tn := cut(t, Limits{Lifetime: 200 * time.Millisecond})
		tn.wait(t)
		wantGone(t, tn.client)
	})
}

func TestAbort(t *testing.T) {
	a, b := tcpPair(t)
	Abort(NewConn(a, nil))
	Abort(a)
	wantReset(t, b)
}

// Cut throws away nothing that was written before it.
func TestCutDeliversFirst(t *testing.T) {
	c, peer := tcpPair(t)
	sent := random(1 << 20)
	got := make(chan []byte)
	go func() { got <- wantReset(t, c) }()
	mustWrite(t, peer, sent)
	Cut(peer, patience)
	wantSame(t, <-got, sent)
}
