package relay

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the data path. Package syscall tells the scheduler of each of its
// calls, in case it blocks; and in a process that is idle between two messages each
// of them then wakes the runtime's monitor thread, to look after a call that is over
// already. That was a tenth of the CPU time of round trips and of new connections, and
// a quarter of that of bulk: the monitor takes the processor from a splice(2) that
// lasts longer than 20 µs, and gives it to another thread.
//
// The scheduler cannot take the processor from a goroutine that is in one of these,
// and others wait for it where there is only one. They are for sockets and pipes that
// do not block. A read or write of bufferSize takes some microseconds; a splice moves
// pages and copies nothing, a MiB in some tenths of a millisecond.

func read(fd int, p []byte) (int, error) {
	return nonblocking(unix.SYS_READ, fd, p, 0)
}

func write(fd int, p []byte) (int, error) {
	return nonblocking(unix.SYS_WRITE, fd, p, 0)
}

func peek(fd int, p []byte) (int, error) {
	return nonblocking(unix.SYS_RECVFROM, fd, p, unix.MSG_PEEK)
}

// splice moves up to size bytes from a socket to a pipe, or the other way.
func splice(from, to, size int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size), unix.SPLICE_F_NONBLOCK)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, unix.EAGAIN
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// nonblocking calls again when a signal interrupted it. It returns 0, not -1, bytes
// with an error. p is not empty.
func nonblocking(call uintptr, fd int, p []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, unix.EAGAIN // the same value each time: no allocation
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// epollReady is epoll_wait(2) that does not wait.
func epollReady(epfd int, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
