package relay

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// stall keeps TCP_USER_TIMEOUT from ending tunnels whose reader pauses.
//
// A reader that does not read closes its window. The kernel then probes it, the
// reader's kernel answers every probe, and after TCP_USER_TIMEOUT the connection
// ends all the same: the time counts from the first probe, whatever the answers
// (tcp_probe_timer in net/ipv4/tcp_timer.c; seen on Linux 6.18). A paused download
// would be cut after 30 seconds, and so would be a slow one, since a receiver opens
// its window in large steps.
//
// So while there are bytes that a socket has not got rid of, it is looked at several
// times within TCP_USER_TIMEOUT. When its peer has closed the window and answers
// probes, it is given several times as long as that has lasted; a peer that
// vanishes meanwhile is given up in proportion. A tunnel that is idle is not looked
// at.
type stall struct {
	since  duration      // when the window was first seen closed; zero if it is open
	raised time.Duration // what TCP_USER_TIMEOUT was raised to; zero if it was not
}

// looksPerTimeout is how often a socket is looked at within TCP_USER_TIMEOUT.
const looksPerTimeout = 3

// spare looks at d's destination, and ends d's being watched when that has taken
// everything. The watch's mu guards d.stall.
func (d *direction) spare(now duration, userTimeout time.Duration) {
	d.stream.watched.Store(false) // first: bytes that are moved from now on start it again
	if d.stall.look(d.dst.Duplex, now, userTimeout) {
		d.stream.watched.Store(true)
	}
}

// look reports whether c has bytes that it has not got rid of. If that is because
// its peer pauses, c is given time.
func (s *stall) look(c net.Conn, now duration, userTimeout time.Duration) (pending bool) {
	info, err := tcpInfo(c)
	if err != nil {
		return false
	}
	if info.Unacked > 0 || info.Notsent_bytes == 0 { // the window is open
		if s.raised > 0 {
			setUserTimeout(c, userTimeout)
		}
		*s = stall{}
		return info.Unacked > 0
	}
	if s.since == 0 {
		s.since = now
	}
	// At most: it was not closed yet when last looked at.
	closed := now - s.since + userTimeout/looksPerTimeout
	answered := time.Duration(info.Last_ack_recv) * time.Millisecond
	// The kernel doubles the time between probes: the last one is at most half of
	// the time ago that the window has been closed for, and a little.
	if alive := answered < closed*2/3+userTimeout/looksPerTimeout; alive && s.raised < 2*closed+userTimeout {
		s.raised = 4*closed + userTimeout
		setUserTimeout(c, s.raised)
	}
	return true
}

// Spare does for one connection, which no Pipe has, what a Pipe does for both of
// its own: a peer that pauses is not taken for one that has vanished. userTimeout is
// the TCP_USER_TIMEOUT that c has; zero means none. stop, called once, ends it.
func Spare(c net.Conn, userTimeout time.Duration) (stop func()) {
	if userTimeout <= 0 {
		return func() {}
	}
	done := make(chan struct{})
	go spareUntil(done, c, userTimeout) // until stop
	return func() { close(done) }
}

func spareUntil(done <-chan struct{}, c net.Conn, userTimeout time.Duration) {
	tick := time.NewTicker(userTimeout / looksPerTimeout)
	defer tick.Stop()
	var s stall
	for {
		select {
		case <-tick.C:
			s.look(c, sinceBegin(), userTimeout)
		case <-done:
			return
		}
	}
}

// setUserTimeout sets TCP_USER_TIMEOUT, see tcp(7). That it fails means that c is
// closed.
func setUserTimeout(c net.Conn, d time.Duration) {
	raw, err := rawConn(c)
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}
