package relay

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout reads TCP_USER_TIMEOUT back.
func userTimeout(t testing.TB, c syscall.Conn) (d time.Duration) {
	t.Helper()
	control(t, c, func(fd int) error {
		ms, err := unix.GetsockoptInt(fd, unix.SOL_TCP, unix.TCP_USER_TIMEOUT)
		d = time.Duration(ms) * time.Millisecond
		return err
	})
	return d
}

// paused makes c and its peer hold little, so that the peer's pause is soon felt.
func paused(t testing.TB, c TCP, peer *net.TCPConn, limit time.Duration) {
	setUserTimeout(c, limit)
	sendBuffer(t, c, 64<<10)
	peer.SetReadBuffer(64 << 10)
}

// A reader that pauses for longer than TCP_USER_TIMEOUT is there all the same. The
// control shows what the kernel does if nothing is done about it.
func TestPausedReader(t *testing.T) {
	const limit = 1500 * time.Millisecond
	for _, tt := range []struct {
		name   string
		limits Limits
		kept   bool
	}{{"is kept", Limits{UserTimeout: limit}, true}, {"control", Limits{}, false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tn := newTunnel(t, nil, tt.limits)
			paused(t, tn.in, tn.client, limit)
			tn.start(t)
			answer := random(4 << 20)
			go func() { // ends with answer, or the tunnel
				tn.server.Write(answer)
				tn.server.CloseWrite()
			}()
			if !tt.kept {
				tn.wantEnd(t, ClientTimeout, true)
				return
			}
			eventually(t, "more time than the pause has lasted", func() bool {
				return userTimeout(t, tn.in) > 6*limit
			})
			wantAll(t, tn.client, answer)
			tn.client.CloseWrite()
			tn.wantEnd(t, UpstreamClosed, false)
		})
	}
}

// Behind the pause the timeout is what it was, for the case that the peer vanishes.
func TestPausedReaderTimeoutComesBack(t *testing.T) {
	t.Parallel()
	const limit = 1500 * time.Millisecond
	tn := newTunnel(t, nil, Limits{UserTimeout: limit})
	paused(t, tn.in, tn.client, limit)
	tn.start(t)
	answer := random(4 << 20)
	go tn.server.Write(answer) // ends with answer
	eventually(t, "more time", func() bool { return userTimeout(t, tn.in) > limit })
	wantRead(t, tn.client, answer)
	eventually(t, "the old timeout", func() bool { return userTimeout(t, tn.in) == limit })
}

// The same of few bytes, which the socket holds: nothing waits for it to take more.
func TestPausedReaderOfParkedTunnel(t *testing.T) {
	t.Parallel()
	const limit = 1500 * time.Millisecond
	tn := newTunnel(t, nil, Limits{UserTimeout: limit})
	paused(t, tn.in, tn.client, limit)
	tn.start(t)
	answer := random(180_000) // what the socket can hold, and more than the client takes
	go tn.server.Write(answer)
	eventually(t, "more time than the pause has lasted", func() bool {
		return userTimeout(t, tn.in) > 6*limit
	})
	wantRead(t, tn.client, answer)
	mustWrite(t, tn.client, []byte("still here"))
	wantRead(t, tn.server, []byte("still here"))
}

func TestPausedReaderTLS(t *testing.T) {
	t.Parallel()
	const limit = 1500 * time.Millisecond
	tn := newTLSTunnel(t, Limits{UserTimeout: limit})
	paused(t, tn.in, tn.tunnel.client, limit)
	tn.start(t)
	answer := random(4 << 20)
	go func() { // ends with answer
		tn.server.Write(answer)
		tn.server.CloseWrite()
	}()
	eventually(t, "more time than the pause has lasted", func() bool {
		return userTimeout(t, tn.in) > 6*limit
	})
	wantAll(t, tn.client, answer)
	tn.client.CloseWrite()
	tn.wantEnd(t, UpstreamClosed, false)
}

func TestSpare(t *testing.T) {
	t.Parallel()
	const limit = 1500 * time.Millisecond
	c, peer := tcpPair(t)
	paused(t, c, peer, limit)
	stop := Spare(c, limit)
	defer stop()
	sent := random(4 << 20)
	go func() { // ends with sent
		c.Write(sent)
		c.CloseWrite()
	}()
	eventually(t, "more time than the pause has lasted", func() bool { return userTimeout(t, c) > 6*limit })
	wantAll(t, peer, sent)
}
