//go:build linux

package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"os"

	"swivel/internal/config"
	"swivel/internal/exit"
	"swivel/internal/resolver"
	"swivel/rotate"
)

// exits is what sources that are other proxies are made of.
type exits struct {
	roots    map[string]*x509.CertPool // by path
	services map[string]services       // by the name of their SRV records
}

// services is what DNS says of a service, or said last.
type services struct {
	records []resolver.Service
	err     error // why it says nothing now
}

// newExits reads the certificates that pools name.
func newExits(pools []config.Pool) (*exits, error) {
	x := &exits{roots: make(map[string]*x509.CertPool), services: make(map[string]services)}
	for _, p := range pools {
		for _, s := range p.Sources {
			if s.Upstream == nil || s.Upstream.CA == "" || x.roots[s.Upstream.CA] != nil {
				continue
			}
			pem, err := os.ReadFile(s.Upstream.CA)
			if err != nil {
				return nil, fmt.Errorf("pool %s: ca: %w", p.Name, err)
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("pool %s: ca: %s: no certificate in it", p.Name, s.Upstream.CA)
			}
			x.roots[s.Upstream.CA] = roots
		}
	}
	return x, nil
}

func (x *exits) proxy(u *config.Upstream, host string, port uint16) *exit.Proxy {
	p := &exit.Proxy{
		Scheme: u.Scheme, Host: host, Port: port, User: u.User, Password: u.Password,
		Roots: x.roots[u.CA], Names: u.Names, Sessions: u.Session,
	}
	switch u.SendProxy {
	case "v1":
		p.Header = 1
	case "v2":
		p.Header = 2
	}
	return p
}

// lookUpstream finds the proxies that an entry stands for.
func (f *found) lookUpstream(x *exits) {
	u := f.Upstream
	if u.SRV == "" {
		f.addExit(x.proxy(u, u.Host, u.Port), f.Weight, 0)
		return
	}
	now := x.services[u.SRV]
	standby, weights := rank(now.records)
	for i, s := range now.records {
		f.addExit(x.proxy(u, s.Host, s.Port), weights[i], standby[i])
	}
	switch {
	case len(f.sources) > 0:
	case now.err != nil:
		f.missing = fmt.Sprintf("DNS knows of none (%v)", now.err)
	default:
		f.missing = "DNS has not answered yet"
	}
}

func (f *found) addExit(p *exit.Proxy, weight, standby int) {
	f.sources = append(f.sources, rotate.Source{Exit: p, Weight: weight, Standby: standby, Labels: f.Labels})
}

// maxServiceWeight bounds the weights of sources that DNS tells of.
const maxServiceWeight = 1000

// rank is what priority and weight of a record are for a source: records of higher
// priorities stand by. Those of one priority have weights that a pool can have. RFC
// 2782 has a weight of 0 for what is to be used hardly ever, and for records that have
// no weights at all. Records are in the order of compareServices.
func rank(records []resolver.Service) (standby, weights []int) {
	heaviest := make(map[uint16]int)
	for _, r := range records {
		heaviest[r.Priority] = max(heaviest[r.Priority], int(r.Weight))
	}
	n := 0
	for i, r := range records {
		if i > 0 && r.Priority != records[i-1].Priority {
			n++
		}
		w := int(r.Weight)
		if most := heaviest[r.Priority]; most > maxServiceWeight {
			w = w * maxServiceWeight / most
		}
		standby, weights = append(standby, n), append(weights, max(1, w))
	}
	return standby, weights
}

// keep takes over what is known of services from before.
func (x *exits) keep(before *exits) {
	if before != nil {
		maps.Copy(x.services, before.services)
	}
}

// newID returns a name for this process that no other one has.
func newID() string {
	var b [8]byte
	rand.Read(b[:])
	return "swivel-" + hex.EncodeToString(b[:])
}
