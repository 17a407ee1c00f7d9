package iface

import (
	"encoding/binary"
	"errors"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNewAddress(t *testing.T) {
	for _, tt := range []struct {
		name              string
		flags             uint32
		ready, deprecated bool
	}{
		{"permanent", unix.IFA_F_PERMANENT, true, false},
		{"secondary, temporary", unix.IFA_F_SECONDARY, true, false},
		{"tentative", unix.IFA_F_TENTATIVE, false, false},
		{"optimistic", unix.IFA_F_TENTATIVE | unix.IFA_F_OPTIMISTIC, true, false},
		{"failed", unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED, false, false},
		{"optimistic, failed", unix.IFA_F_TENTATIVE | unix.IFA_F_OPTIMISTIC | unix.IFA_F_DADFAILED, false, false},
		{"deprecated", unix.IFA_F_DEPRECATED, true, true},
	} {
		a := newAddress(addrs("fd00::1")[0].ip, tt.flags)
		if a.ready != tt.ready || a.deprecated != tt.deprecated {
			t.Errorf("%s: ready %t, deprecated %t", tt.name, a.ready, a.deprecated)
		}
	}
}

// pack returns structs of the kernel one after the other.
func pack(t *testing.T, parts ...any) []byte {
	t.Helper()
	var b []byte
	for _, p := range parts {
		var err error
		if b, err = binary.Append(b, binary.NativeEndian, p); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestNexthops(t *testing.T) {
	hop := func(n uint16, index int32) unix.RtNexthop { return unix.RtNexthop{Len: n, Ifindex: index} }
	dead := unix.RtNexthop{Len: 8, Ifindex: 9, Flags: unix.RTNH_F_DEAD}
	gateway := [8]byte{8, 0, unix.RTA_GATEWAY, 0, 10, 0, 0, 1}
	for _, tt := range []struct {
		name string
		list []byte
		want []int32
	}{
		{"empty", nil, nil},
		{"two", pack(t, hop(16, 2), gateway, hop(16, 3), gateway), []int32{2, 3}},
		{"dead", pack(t, dead, hop(8, 3)), []int32{3}},
		{"cut", pack(t, hop(8, 2), hop(8, 3))[:15], []int32{2}},
		{"no length", pack(t, hop(0, 2), hop(8, 3)), []int32{2}},
		{"too long", pack(t, hop(1000, 2), hop(8, 3)), []int32{2}},
	} {
		if got := nexthops(tt.list); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// message returns a netlink message as it comes from the kernel.
func message(t *testing.T, typ uint16, body ...any) []byte {
	t.Helper()
	data := pack(t, body...)
	head := unix.NlMsghdr{Len: uint32(unix.SizeofNlMsghdr + len(data)), Type: typ}
	return append(pack(t, head), data...)
}

func TestMatters(t *testing.T) {
	other := message(t, unix.RTM_NEWROUTE, unix.RtMsg{Family: unix.AF_INET, Dst_len: 24})
	def := message(t, unix.RTM_DELROUTE, unix.RtMsg{Family: unix.AF_INET})
	for _, tt := range []struct {
		name  string
		event []byte
		want  bool
	}{
		{"link", message(t, unix.RTM_NEWLINK, unix.IfInfomsg{}), true},
		{"address", message(t, unix.RTM_DELADDR, unix.IfAddrmsg{}), true},
		{"default route", def, true},
		{"another route", other, false},
		{"both", slices.Concat(other, def), true},
		{"garbage", []byte("garbage of more than sixteen bytes"), true},
	} {
		if got := matters(tt.event); got != tt.want {
			t.Errorf("%s: got %t", tt.name, got)
		}
	}
}

// What is cut short is an error, or nothing, and never more than that.
func TestReaderCut(t *testing.T) {
	attr := func(typ uint16, value string) []byte {
		return append(pack(t, unix.RtAttr{Len: uint16(unix.SizeofRtAttr + len(value)), Type: typ}), value...)
	}
	whole := map[uint16][]byte{
		unix.RTM_NEWLINK:  message(t, unix.RTM_NEWLINK, unix.IfInfomsg{Index: 2}, attr(unix.IFLA_IFNAME, "eth0"), attr(unix.IFLA_ADDRESS, string(mac1))),
		unix.RTM_NEWADDR:  message(t, unix.RTM_NEWADDR, unix.IfAddrmsg{Family: unix.AF_INET, Index: 2}, attr(unix.IFA_FLAGS, "\x80\x00\x00\x00"), attr(unix.IFA_LOCAL, "\x0a\x00\x00\x01")),
		unix.RTM_NEWROUTE: message(t, unix.RTM_NEWROUTE, unix.RtMsg{Family: unix.AF_INET, Type: unix.RTN_UNICAST}, attr(unix.RTA_OIF, "\x02\x00\x00\x00")),
	}
	for typ, b := range whole {
		for n := range len(b) - unix.SizeofNlMsghdr + 1 {
			m := &syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: typ}, Data: b[unix.SizeofNlMsghdr:][:n]}
			r := newReader()
			r.links[2] = &link{index: 2}
			var err error
			switch typ {
			case unix.RTM_NEWLINK:
				err = r.link(m)
			case unix.RTM_NEWADDR:
				err = r.address(m)
			case unix.RTM_NEWROUTE:
				err = r.route(m)
			}
			if last := n == len(b)-unix.SizeofNlMsghdr; last && err != nil {
				t.Errorf("type %d: %v", typ, err)
			}
			if h := r.host(); len(h.links) != 1 {
				t.Errorf("type %d, %d bytes: %d links", typ, n, len(h.links))
			}
		}
	}
}

func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		code []byte
		want error
	}{
		{nil, nil},
		{pack(t, int32(0)), nil},
		{pack(t, -int32(unix.ENETUNREACH)), unix.ENETUNREACH},
	} {
		if got := status(&syscall.NetlinkMessage{Data: tt.code}); !errors.Is(got, tt.want) {
			t.Errorf("%v: got %v, want %v", tt.code, got, tt.want)
		}
	}
}
