package router

import (
	"errors"
	"fmt"
	"net/netip"

	"swivel/internal/sockopt"
	"swivel/internal/target"
)

// Transparent is how clients come here that know nothing of it.
type Transparent int

const (
	Off      Transparent = iota // they do not: all mean to connect to us
	Redirect                    // the packet filter changes their destination to ours
	TProxy                      // it gives their packets to us as they are
)

var errDirect = errors.New("a connection that was not redirected")

// findOriginal finds out where a client of a transparent listener was going. Who
// came here on purpose is refused: it would make us connect to ourselves.
func (s *session) findOriginal() error {
	if s.Transparent == Off {
		return nil
	}
	dst := s.c.Local()
	if s.Transparent == Redirect {
		rc, err := s.c.SyscallConn()
		if err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		original, err := sockopt.OriginalDst(rc, s.c.Remote().Addr().Is4())
		original = netip.AddrPortFrom(original.Addr().Unmap(), original.Port())
		if err != nil || original == dst {
			return errDirect // conntrack, where it is, has every connection
		}
		dst = original
	}
	s.original, s.c.Line.Hello.Original = dst, dst
	switch {
	case s.Transparent == TProxy && s.loops(dst):
		return errDirect
	case s.c.OurOwn():
		return target.ErrLoop
	}
	return nil
}
