package relay

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxDatagram = 1 << 16 // more than UDP can carry
	batchSize   = 64      // datagrams of one system call
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// datagrams is memory that batchSize of them are received into. Where none has come
// it is only reserved.
type datagrams []byte

func newDatagrams() datagrams { return make(datagrams, batchSize*maxDatagram) }

func (b datagrams) at(i int) []byte { return b[i*maxDatagram : (i+1)*maxDatagram] }

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	return v
}

// recvmmsg receives up to len(h) datagrams; without one its error is EAGAIN.
func recvmmsg(fd int, h []mmsghdr) (int, error) { return mmsg(unix.SYS_RECVMMSG, fd, h) }

// sendmmsg sends h until one cannot be sent. It has an error only if that is the
// first.
func sendmmsg(fd int, h []mmsghdr) (int, error) { return mmsg(unix.SYS_SENDMMSG, fd, h) }

func mmsg(call uintptr, fd int, h []mmsghdr) (int, error) {
	for {
		n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(h))), uintptr(len(h)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// inbox is the datagrams that were received by a listening socket.
type inbox struct {
	buf  datagrams
	msgs [batchSize]message
	iov  [batchSize]unix.Iovec
	hdr  [batchSize]mmsghdr

	up    [batchSize]mmsghdr // what is sent upstream of them
	upIov [batchSize]unix.Iovec
	flows []*flow // that they belong to
}

// message is a datagram in the inbox.
type message struct {
	name    rawAddr
	local   pktinfo
	payload []byte
	next    int // of the same flow, -1 if there is none
}

func newInbox() *inbox {
	in := &inbox{buf: newDatagrams(), flows: make([]*flow, 0, batchSize)}
	for i := range in.hdr {
		m, h := &in.msgs[i], &in.hdr[i].hdr
		in.iov[i] = iovec(in.buf.at(i))
		h.Name = &m.name[0]
		h.Control = (*byte)(unsafe.Pointer(&m.local))
		h.Iov = &in.iov[i]
		h.SetIovlen(1)
		in.up[i].hdr.Iov = &in.upIov[i]
		in.up[i].hdr.SetIovlen(1)
	}
	return in
}

// receive fills the inbox.
func (in *inbox) receive(fd int) (int, error) {
	for i := range in.hdr {
		h := &in.hdr[i].hdr
		h.Namelen = uint32(len(in.msgs[i].name))
		h.SetControllen(int(unsafe.Sizeof(in.msgs[i].local)))
	}
	n, err := recvmmsg(fd, in.hdr[:])
	for i := range n {
		in.msgs[i].payload = in.buf.at(i)[:in.hdr[i].len]
	}
	return n, err
}

// queue notes that message i is for fl.
func (in *inbox) queue(fl *flow, i int) {
	in.msgs[i].next = -1
	if fl.first < 0 {
		in.flows = append(in.flows, fl)
		fl.first = i
	} else {
		in.msgs[fl.last].next = i
	}
	fl.last = i
}

// take returns the messages that were queued for fl, to be sent upstream.
func (in *inbox) take(fl *flow) []mmsghdr {
	n := 0
	for i := fl.first; i >= 0; i = in.msgs[i].next {
		in.upIov[n] = iovec(in.msgs[i].payload)
		n++
	}
	fl.first = -1
	return in.up[:n]
}

// outbox is the answers that are to be sent by one listening socket.
type outbox struct {
	buf    datagrams
	iov    [batchSize][2]unix.Iovec // prefix and payload
	in     [batchSize]mmsghdr       // to receive payload with
	out    [batchSize]mmsghdr
	flows  [batchSize]*flow
	n      int
	socket *FlowSocket
}

func newOutbox() *outbox {
	o := &outbox{buf: newDatagrams()}
	for i := range o.in {
		o.iov[i][1].Base = &o.buf.at(i)[0]
		o.in[i].hdr.Iov = &o.iov[i][1]
		o.in[i].hdr.SetIovlen(1)
	}
	return o
}

// receive adds what has come from upstream for fl.
func (o *outbox) receive(fl *flow) error {
	for i := o.n; i < batchSize; i++ {
		o.iov[i][1].SetLen(maxDatagram)
	}
	n, err := recvmmsg(fl.fd, o.in[o.n:])
	for range n {
		i := o.n
		h := &o.out[i].hdr
		h.Name, h.Namelen = &fl.sender[0], fl.sender.size()
		h.Control = (*byte)(unsafe.Pointer(&fl.local))
		h.SetControllen(fl.local.size())
		payload := &o.iov[i][1]
		payload.SetLen(int(o.in[i].len))
		h.Iov = payload
		h.SetIovlen(1)
		if len(fl.prefix) > 0 {
			o.iov[i][0] = iovec(fl.prefix)
			h.Iov = &o.iov[i][0]
			h.SetIovlen(2)
		}
		o.flows[i] = fl
		o.n++
	}
	return err
}
