//go:build linux

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"swivel/internal/auth"
	"swivel/internal/config"
	"swivel/internal/resolver"
	"swivel/listener/egress"
	"swivel/rotate"
)

// connect builds the front door of a listener of mode connect.
func (g *generation) connect(p *proxy, lc config.Listener, names *resolver.Resolver) (*egress.Door, error) {
	d := &egress.Door{
		Name:   lc.Name,
		Policy: p.policy(lc.Destinations),
		Lookup: names.Lookup,
		Dialer: g.dialer(p, lc),
		Wants:  wants(lc),
		Pools:  g.pools,
		Rights: rights(lc),
		Sessions: rotate.Session{
			Time:   lc.Sessions.Time,
			Idle:   lc.Sessions.Idle,
			Refuse: lc.Sessions.OnGone == "refuse",
		},
		Head:   g.config.Limits.Head,
		Dial:   g.config.Limits.Dial,
		Verify: egress.Verify(lc.VerifyName),
		Limits: g.tunnelLimits(),
	}
	var err error
	if lc.Users != "" {
		if d.Users, err = g.usersOf(p, lc.Users); err != nil {
			return nil, fmt.Errorf("listener %s: users: %w", lc.Name, err)
		}
	}
	if lc.TLS != nil {
		if d.TLS, err = loadTLS(lc.TLS, time.Now()); err != nil {
			return nil, fmt.Errorf("listener %s: tls: %w", lc.Name, err)
		}
	}
	return d, nil
}

// rights are what the users of a listener may ask for; nil when that is not said.
func rights(lc config.Listener) (list []egress.Rights) {
	for _, r := range lc.Rights {
		list = append(list, egress.Rights(r))
	}
	return list
}

// usersOf reads a users file. Users that are there already stay: they know who has
// logged in, and all of them paying for bcrypt again would be felt.
func (g *generation) usersOf(p *proxy, path string) (*auth.Users, error) {
	u := g.users[path]
	if u != nil {
		return u, nil
	}
	if u = p.users[path]; u != nil {
		g.users[path] = u
		return u, u.Reload()
	}
	u, err := auth.Load(path)
	g.users[path] = u
	return u, err
}

// loadTLS reads a certificate, and refuses one that clients would refuse at now.
func loadTLS(files *config.TLS, now time.Time) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		return nil, err
	}
	leaf := cert.Leaf
	if leaf == nil {
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, err
		}
	}
	switch {
	case now.After(leaf.NotAfter):
		return nil, fmt.Errorf("%s: expired on %s", files.Certificate, leaf.NotAfter.Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("%s: not valid before %s", files.Certificate, leaf.NotBefore.Format(time.DateOnly))
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
	}, nil
}
