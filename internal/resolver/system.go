package resolver

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// recheck is how old the list of servers may be. The file is small: reading it anew
// is simpler than noticing that it changed, and misses no change.
const recheck = 3 * time.Second

// maxServers is how many of a file's servers are used (MAXNS of resolv.conf(5)).
const maxServers = 3

// system is the servers of a resolv.conf file.
type system struct {
	path string
	port uint16 // which the file does not say

	mu      sync.Mutex // guards what follows
	read    time.Time
	servers []netip.AddrPort // never written to
}

// get returns the servers of the file. While it cannot be read or has none, they are
// the ones that it had, and at first those of this host, as resolv.conf(5) says.
func (s *system) get(now time.Time) []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.servers != nil && now.Sub(s.read) < recheck {
		return s.servers
	}
	s.read = now
	text, _ := os.ReadFile(s.path)
	if servers := s.nameservers(string(text)); len(servers) > 0 {
		s.servers = servers
	} else if s.servers == nil {
		s.servers = []netip.AddrPort{
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.port),
			netip.AddrPortFrom(netip.IPv6Loopback(), s.port),
		}
	}
	return s.servers
}

// nameservers reads the nameserver lines of a resolv.conf. A zone is kept, since a
// router may announce its link-local address.
func (s *system) nameservers(text string) []netip.AddrPort {
	var servers []netip.AddrPort
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(f[1]); err == nil && len(servers) < maxServers {
			servers = append(servers, netip.AddrPortFrom(addr, s.port))
		}
	}
	return servers
}
