package relay

import (
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pipeSize is also the largest that an unprivileged user gets by default
// (fs.pipe-max-size). A GB costs a third less CPU than with the 64 KiB that a
// pipe has of itself, which is hardly better than copying.
const pipeSize = 1 << 20

// kpipe is a kernel pipe, through which splice(2) moves bytes from one socket to
// another.
type kpipe struct {
	r, w int
	held int // bytes in it
}

// fill moves bytes from a socket into the pipe, which must be empty: of a pipe
// that holds bytes EAGAIN could mean that it is full. Zero bytes mean EOF.
func (k *kpipe) fill(fd int) (int, error) {
	n, err := splice(fd, k.w, pipeSize)
	k.held = n
	return n, err
}

// drain moves bytes from the pipe to a socket. The pipe must not be empty:
// EAGAIN then means that the socket takes none.
func (k *kpipe) drain(fd int) (int, error) {
	n, err := splice(k.r, fd, k.held)
	k.held -= n
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	return n, err
}

func (k *kpipe) close() {
	unix.Close(k.r)
	unix.Close(k.w)
}

// newKpipe returns an empty pipe of pipeSize, or nil if there is none to be had:
// out of descriptors, or of the user's pipe memory (fs.pipe-user-pages-soft),
// when the kernel hands out pipes of two slots that cost more than copying.
func newKpipe() *kpipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	k := &kpipe{r: fds[0], w: fds[1]}
	// What counts is the size that it has, whatever the request said.
	unix.FcntlInt(uintptr(k.w), unix.F_SETPIPE_SZ, pipeSize)
	size, err := unix.FcntlInt(uintptr(k.w), unix.F_GETPIPE_SZ, 0)
	if err != nil || size < pipeSize {
		k.close()
		return nil
	}
	return k
}

const (
	// maxIdlePipes bounds the pipes that wait for use.
	maxIdlePipes = 8
	// trimInterval is how long a pipe waits for use before it is closed.
	trimInterval = time.Second
	// createPause follows a failure to make a pipe. Without it a busy tunnel
	// would try after every chunk it copies.
	createPause = 100 * time.Millisecond
)

// pipes is the process's pool, since what bounds it is the process's and the
// user's. Not a sync.Pool, which neither counts what exists nor closes it.
var pipes = pipePool{max: maxPipes()}

// pipePool lends out pipes, at most max of them at a time.
type pipePool struct {
	mu      sync.Mutex
	max     int         // guarded by mu
	open    int         // guarded by mu; pipes that exist, lent or idle
	idle    []*kpipe    // guarded by mu; all empty, the last one put is the next one lent
	unused  int         // guarded by mu; how many of idle were not needed since the last trim
	trimmer *time.Timer // guarded by mu; runs while there are idle pipes
	paused  time.Time   // guarded by mu; no pipe is made before
}

// get returns an empty pipe, or nil if there is none to be had.
func (pp *pipePool) get() *kpipe {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if n := len(pp.idle); n > 0 {
		k := pp.idle[n-1]
		pp.idle = pp.idle[:n-1]
		pp.unused = min(pp.unused, n-1)
		return k
	}
	if pp.open >= pp.max || time.Now().Before(pp.paused) {
		return nil
	}
	k := newKpipe()
	if k == nil {
		pp.paused = time.Now().Add(createPause)
		return nil
	}
	pp.open++
	return k
}

// put takes a pipe back. One that still holds bytes, after an error, is closed.
func (pp *pipePool) put(k *kpipe) {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if k.held > 0 || len(pp.idle) >= maxIdlePipes || pp.open > pp.max {
		k.close()
		pp.open--
		return
	}
	pp.idle = append(pp.idle, k)
	switch {
	case pp.trimmer == nil:
		pp.trimmer = time.AfterFunc(trimInterval, pp.trim)
	case len(pp.idle) == 1:
		pp.trimmer.Reset(trimInterval)
	}
}

// trim closes the pipes that were not needed since it last ran.
func (pp *pipePool) trim() {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	for _, k := range pp.idle[:pp.unused] {
		k.close()
		pp.open--
	}
	pp.idle = append(pp.idle[:0], pp.idle[pp.unused:]...)
	pp.unused = len(pp.idle)
	if len(pp.idle) > 0 {
		pp.trimmer.Reset(trimInterval)
	}
}

// maxPipes returns how many pipes may exist. The default of
// fs.pipe-user-pages-soft is 64 pipes of pipeSize for all processes of a user;
// see pipe(7). In a user namespace the capabilities seen here do not lift it:
// newKpipe notices.
func maxPipes() int {
	const exempt = 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_ADMIN
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) == nil && data[0].Effective&exempt != 0 {
		return 256
	}
	return 48
}
