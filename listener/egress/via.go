package egress

import "strings"

// maxVia is how many proxies a request may have come through: where there are more,
// it goes in a circle of proxies that do not say who they are.
const maxVia = 16

// hasBeenHere reports whether the Via field of the request (RFC 9110 section 7.6.3)
// says that it came through this very process before.
func (s *session) hasBeenHere() bool {
	if s.via == "" {
		return false
	}
	hops := strings.Split(s.via, ",")
	for _, hop := range hops {
		if part := strings.Fields(hop); len(part) > 1 && part[1] == s.Dialer.ID {
			return true
		}
	}
	return len(hops) > maxVia
}
