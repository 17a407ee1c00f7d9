package relay

import (
	"cmp"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpClose is TCP_CLOSE of netinet/tcp.h, in tcpi_state: no connection (any more).
const tcpClose = 7

// settleLimit is how long settle waits if HalfClosed does not say.
const settleLimit = 5 * time.Minute

// Abort closes c so that its peer sees RST. What the peer has not received yet
// is lost. A *tls.Conn sends no close_notify.
func Abort(c net.Conn) {
	c = beneath(c)
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0) // fails only if c is closed already
	}
	c.Close()
}

// Cut is Abort once the peer has received what was written to c, or c is gone, or
// limit has passed. Zero means 5 minutes.
func Cut(c net.Conn, limit time.Duration) {
	settle(c, limit)
	Abort(c)
}

// WasReset reports whether c, to which no FIN was sent, has been reset. The kernel
// tells that once, perhaps to a write, and then reading ends as after FIN.
func WasReset(c net.Conn) bool {
	info, err := tcpInfo(c)
	return err == nil && info.State == tcpClose
}

// settle waits until the peer has received what was written to c, since Abort
// throws away the rest, or the connection is gone, or limit has passed. The
// kernel offers no event for that; this is an error path, so it polls.
func settle(c net.Conn, limit time.Duration) {
	end := time.Now().Add(cmp.Or(limit, settleLimit))
	for pause := time.Millisecond; time.Now().Before(end); pause = min(2*pause, 100*time.Millisecond) {
		info, err := tcpInfo(c)
		// Not SIOCOUTQ: after a reset it stays what it was.
		if err != nil || info.State == tcpClose || info.Unacked == 0 && info.Notsent_bytes == 0 {
			return
		}
		time.Sleep(pause)
	}
}

// tcpInfo returns what the kernel knows of the TCP connection beneath c. It
// fails if c is closed, or is no socket. See TCP_INFO in tcp(7).
func tcpInfo(c net.Conn) (info *unix.TCPInfo, err error) {
	raw, err := rawConn(c)
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
	})
	return info, cmp.Or(cerr, err)
}

// waitWritable returns when the socket beneath c has room to write to, or is
// gone.
func waitWritable(c net.Conn) {
	raw, err := rawConn(c)
	if err != nil {
		return
	}
	raw.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		return n != 0 || err != nil
	})
}

func rawConn(c net.Conn) (syscall.RawConn, error) {
	sc, ok := beneath(c).(syscall.Conn)
	if !ok {
		return nil, syscall.ENOTSOCK
	}
	return sc.SyscallConn()
}

// beneath returns the connection that a *tls.Conn, or several, speak over.
func beneath(c net.Conn) net.Conn {
	for {
		t, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = t.NetConn()
	}
}
