package config

import (
	"math"
	"time"

	"swivel/internal/target"
)

const (
	modeConnect = "connect"
	modeSNI     = "sni"
	modeUnwrap  = "unwrap"

	poolDefault = "default" // name of the pool that nobody configured
)

// defaults returns what holds where nothing is said.
func defaults() *Config {
	return &Config{
		Log: Log{Level: "info", Format: "json"},
		Limits: Limits{
			Connections: 100000,
			PerClient:   1000,
			Head:        10 * time.Second,
			Dial:        10 * time.Second,
			Idle:        time.Hour,
			HalfClosed:  5 * time.Minute,
			UserTimeout: 30 * time.Second,
			UDPIdle:     time.Minute,
			Drain:       30 * time.Second,
		},
		Resolver: Resolver{Timeout: 5 * time.Second, Cache: 5 * time.Second, Prefer: "any"},
	}
}

func defaultListener() Listener {
	return Listener{
		Mode:         modeConnect,
		Destinations: Destinations{Ports: []target.PortRange{{From: 443, To: 443}, {From: 80, To: 80}}},
	}
}

func (c *Config) read(n node) {
	n.fields(
		key("log", c.Log.read),
		key("admin", c.Admin.read),
		key("limits", c.Limits.read),
		key("resolver", c.Resolver.read),
		key("geo", c.readGeo),
		key("pools", c.readPools),
		required("listeners", "such as  listeners: [{name: egress, listen: 127.0.0.1:8080, mode: connect}]", c.readListeners),
	)
	c.findPools(n.child("listeners"))
	c.findTwins(n)
}

func (l *Log) read(n node) {
	n.fields(
		key("level", value(&l.Level, parseLevel)),
		key("format", value(&l.Format, parseFormat)),
	)
}

func (l *Limits) read(n node) {
	n.fields(
		key("connections", number(&l.Connections, 1, math.MaxInt32)),
		key("per_client", number(&l.PerClient, 1, math.MaxInt32)),
		key("head", duration(&l.Head, time.Millisecond)),
		key("dial", duration(&l.Dial, time.Millisecond)),
		key("idle", duration(&l.Idle, 0)),
		key("half_closed", duration(&l.HalfClosed, 0)),
		key("lifetime", duration(&l.Lifetime, 0)),
		key("user_timeout", value(&l.UserTimeout, parseDuration(time.Millisecond, 24*time.Hour))), // 32 bits of milliseconds
		key("first_byte", duration(&l.FirstByte, 0)),
		key("udp_idle", duration(&l.UDPIdle, time.Second)),
		key("drain", duration(&l.Drain, 0)),
	)
}

func duration(dst *time.Duration, least time.Duration) func(node) {
	return value(dst, parseDuration(least, longest))
}

func (r *Resolver) read(n node) {
	n.fields(
		key("servers", list(&r.Servers, parseServer)),
		key("timeout", duration(&r.Timeout, time.Millisecond)),
		key("prefer", value(&r.Prefer, parsePrefer)),
		key("cache", duration(&r.Cache, 0)),
	)
}
