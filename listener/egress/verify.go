package egress

import (
	"errors"
	"fmt"

	"swivel/internal/target"
	"swivel/relay"
	"swivel/sni"
)

// Verify is what happens to a tunnel in which the client asks, by the server name of
// its TLS, for another host than it asked swivel for.
type Verify string

// The zero Verify looks into no tunnel.
const (
	VerifyLog  Verify = "log"  // it is on the access line
	VerifyDeny Verify = "deny" // it is cut before upstream has got anything
)

var (
	errNoName = errors.New("the TLS in the tunnel names no server")
	errNoTLS  = errors.New("what is in the tunnel is not TLS")
)

// screen returns what sees the client's first bytes in a tunnel to t, or nil.
//
// Nothing is decrypted: the server name is in the clear. VerifyDeny lets TLS alone
// pass, since what is not TLS names nobody. For a target that is an address the
// client is to name nobody; of an encrypted hello the outer name counts.
func (s *session) screen(t target.Target) relay.Screen {
	if s.Verify == "" {
		return nil
	}
	var p sni.Parser
	return func(first []byte, last bool) (more bool, err error) {
		h, err := p.Parse(first)
		if errors.Is(err, sni.ErrIncomplete) && !last {
			return true, nil
		}
		if last && len(first) == 0 {
			return false, nil // it says nothing, also not to another host
		}
		why := mismatch(t, h, err)
		if why == nil || s.Verify == VerifyLog && errors.Is(why, errNoTLS) {
			return false, nil
		}
		s.c.Line.Mismatch = why.Error()
		if s.Verify == VerifyDeny {
			return false, why
		}
		return false, nil
	}
}

// mismatch says how h, which Parse returned with err, is not what a client of t says.
func mismatch(t target.Target, h sni.Hello, err error) error {
	switch {
	case errors.Is(err, sni.ErrNotTLS), errors.Is(err, sni.ErrIncomplete):
		return errNoTLS
	case err != nil:
		return fmt.Errorf("the TLS in the tunnel: %w", err)
	case string(h.Name) == t.Name:
		return nil
	case len(h.Name) == 0:
		return errNoName
	default:
		return fmt.Errorf("the TLS in the tunnel names %q", h.Name)
	}
}
