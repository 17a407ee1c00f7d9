package relay

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// bufferSize holds the largest TLS record and more, so that reading one does not
// fill it. What a tunnel sends now and then fits, and a tunnel with more to say soon
// splices.
const bufferSize = 18 << 10

// fullReads is how many reads in a row must fill the buffer before the loop
// splices: most connections never send that much, and never touch a pipe.
const fullReads = 2

// maxBurst is how much one direction moves before it lets others run.
const maxBurst = 1 << 20

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// progress is what others may know of a transfer while it runs.
type progress struct {
	moved atomic.Int64 // bytes that dst's socket has taken

	// watch is told of bytes that are moved while watched is not set: nobody would
	// look at dst's socket within a bounded time, see stall.go. It may be nil, when
	// somebody does anyway.
	watch   *watch
	watched atomic.Bool
}

func (p *progress) took(n int) {
	p.moved.Add(int64(n))
	if p.watch != nil && !p.watched.Load() {
		p.watched.Store(true)
		p.watch.look()
	}
}

// transfer copies from src to dst until EOF. On error it says whether it was dst
// that failed; if it was src, dst has taken everything that src sent.
func transfer(dst io.Writer, src io.Reader, s *stream) (dstFailed bool, err error) {
	from, to := tcpOf(src), tcpOf(dst)
	if from == nil || to == nil {
		return plain(dst, src, &s.progress)
	}
	if c, ok := src.(*Conn); ok {
		s.begin(c)
	}
	if s.err != nil {
		return false, s.err
	}
	return s.run(to, from)
}

// plain is transfer through a buffer that it holds while it waits: tls.Conn can
// only be waited for by reading from it.
func plain(dst io.Writer, src io.Reader, p *progress) (dstFailed bool, err error) {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		n, rerr := src.Read(buf[:])
		if n > 0 {
			n, err := dst.Write(buf[:n])
			p.took(n)
			if err != nil {
				return true, err
			}
		}
		switch {
		case rerr == io.EOF:
			return false, nil
		case rerr != nil:
			return false, rerr
		}
	}
}

// stream is one direction between two TCP connections.
//
// It holds nothing while it waits for src: no buffer, no pipe. It copies until
// fullReads reads in a row have filled the buffer, then it splices for as long
// as src has bytes at once, if there is a pipe to be had. (Waiting with a pipe in
// hand, as io.Copy does, takes an unprivileged user's whole budget of pipe
// memory at 32 tunnels, and four descriptors of each.)
//
// fill and flush make one attempt each and report whether that came to anything. A
// Pipe then lets go of the goroutine: see park.go. run is for those who ask for a
// copy and wait for it.
//
// There are no deadlines (184 ns each), no SPLICE_F_MORE (it holds the last
// bytes back for 200 ms) and no SO_RCVLOWAT (a deadlock when the buffer is
// smaller).
type stream struct {
	progress

	data []byte            // read and not written yet: of buf, or a Conn's head
	buf  *[bufferSize]byte // nil if it holds no data
	pipe *kpipe            // nil unless splicing; data is empty then

	screening *screening // nil when src's bytes may pass

	burst int32 // bytes moved since it last waited
	full  int8  // reads in a row that filled buf, at most fullReads
	dry   bool  // the last read did not fill buf: src had no more
	eof   bool
	err   error // what the last attempt met
}

// begin begins with what c has to replay.
func (s *stream) begin(c *Conn) {
	if !c.screening.over() {
		s.screening = c.screening
	}
	if s.data = c.takeHead(); len(s.data) > 0 {
		s.screen(s.data)
	}
}

// screen shows b, or the end when that is nothing, to the Screen of src, if there is
// one. data is then what may pass, and nothing while that is not known.
func (s *stream) screen(b []byte) {
	if s.screening == nil {
		return
	}
	pass, more, err := s.screening.add(b)
	s.dropBuffer()
	s.data, s.err = pass, err
	if s.full = 0; !more { // what is spliced could not be seen
		s.screening = nil
	}
}

// run is transfer for a stream.
//
// The attempts are callbacks of [syscall.RawConn], which waits for the socket when
// one returns false. That waits for a *change*: a callback must have tried, and seen
// EAGAIN. Each makes one attempt, so that a Close by another goroutine takes effect
// between two of them.
func (s *stream) run(dst, src TCP) (dstFailed bool, err error) {
	defer s.release()
	in, err := src.SyscallConn()
	if err != nil {
		return false, err
	}
	out, err := dst.SyscallConn()
	if err != nil {
		return true, err
	}
	fill, flush := s.fill, s.flush // made once: a method value is an allocation
	for {
		for s.pending() {
			if err := call(out.Write, flush, &s.err); err != nil {
				return true, opError("write", dst, err)
			}
		}
		s.prepare()
		if err := call(in.Read, fill, &s.err); err != nil {
			return false, opError("read", src, err)
		}
		if s.eof {
			return false, nil
		}
	}
}

// call makes raw run f and returns raw's error, or what f left in ferr.
func call(raw func(func(uintptr) bool) error, f func(uintptr) bool, ferr *error) error {
	if err := raw(f); err != nil {
		return err
	}
	return *ferr
}

// pending reports whether there are bytes that dst has not taken. Nothing more
// is read until there are none.
func (s *stream) pending() bool {
	return len(s.data) > 0 || s.pipe != nil && s.pipe.held > 0
}

// prepare comes before fill.
func (s *stream) prepare() {
	if s.full >= fullReads && s.pipe == nil {
		s.pipe = pipes.get()
	}
	if s.burst >= maxBurst {
		s.burst = 0
		runtime.Gosched()
	}
}

// fill takes bytes from src, or sets eof or err. It returns false if src has
// none.
func (s *stream) fill(fd uintptr) bool {
	if s.pipe != nil {
		n, err := s.pipe.fill(int(fd))
		if err != unix.EAGAIN {
			s.eof, s.err = n == 0 && err == nil, os.NewSyscallError("splice", err)
			return true
		}
		// Not yet waiting: at an urgent byte splice(2) says EAGAIN as well, but
		// read(2) goes on behind it.
		s.dropPipe()
	}
	buf := buffers.Get().(*[bufferSize]byte)
	n, err := read(int(fd), buf[:])
	if n > 0 {
		s.buf, s.data = buf, buf[:n]
		s.dry = n < len(buf)
		if s.full = min(s.full+1, fullReads); s.dry {
			s.full = 0
		}
		s.screen(s.data)
		return true
	}
	buffers.Put(buf)
	if err == unix.EAGAIN {
		s.full, s.burst = 0, 0
		return false
	}
	if err == nil && s.screening != nil {
		s.screen(nil)
		s.dry = false
		return true // and then read the end again
	}
	s.eof, s.err = err == nil, os.NewSyscallError("read", err)
	return true
}

// flush gives bytes to dst, or sets err. It returns false if dst takes none.
func (s *stream) flush(fd uintptr) bool {
	var n int
	var err error
	op := "write"
	if s.pipe != nil {
		op = "splice"
		n, err = s.pipe.drain(int(fd))
	} else {
		n, err = write(int(fd), s.data)
	}
	if err == unix.EAGAIN {
		s.burst = 0
		return false
	}
	if err != nil {
		s.err = os.NewSyscallError(op, err)
		return true
	}
	s.took(n)
	s.burst += int32(n)
	if s.pipe == nil {
		s.data = s.data[n:]
		if len(s.data) == 0 {
			s.dropBuffer()
		}
	}
	return true
}

func (s *stream) dropBuffer() {
	s.data = nil
	if s.buf != nil {
		buffers.Put(s.buf)
		s.buf = nil
	}
}

func (s *stream) dropPipe() {
	if s.pipe != nil {
		pipes.put(s.pipe)
		s.pipe = nil
	}
	s.full = 0
}

func (s *stream) release() {
	s.dropBuffer()
	s.dropPipe()
}

// opError describes err as package net does, if it does not come from there.
func opError(op string, c net.Conn, err error) error {
	switch err.(type) {
	case *net.OpError, *Denial:
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
