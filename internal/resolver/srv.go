package resolver

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Service is where a service can be had, as an SRV record says (RFC 2782).
type Service struct {
	Host             string // lower case, no trailing dot
	Port             uint16
	Priority, Weight uint16
}

// maxServices bounds how many records of a name are used.
const maxServices = 1024

// Services returns the SRV records of name, and for how long they hold. They are
// asked for each time. A service that is decidedly not there is ErrNotFound.
func (r *Resolver) Services(ctx context.Context, name string) ([]Service, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, r.conf.Timeout)
	defer cancel()
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	f, err := ask(ctx, r.servers(), name, dnsmessage.TypeSRV)
	if err != nil {
		return nil, 0, fmt.Errorf("lookup %q: %w", name, err)
	}
	return f.services, f.ttl, nil
}

// readService reads an SRV record. One whose target is the root says that there is
// no such service, and is none.
func (r *record) readService(p *dnsmessage.Parser) error {
	body, err := p.SRVResource()
	if err != nil {
		return err
	}
	r.service = &Service{strings.TrimSuffix(fold(body.Target), "."), body.Port, body.Priority, body.Weight}
	return nil
}
