package listener

import (
	"net/netip"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// Line is what the access line says of a connection, or of one plain HTTP request.
type Line struct {
	Listener string
	Mode     string // what the client spoke: connect, http, socks5, tls, unwrap or unwrap-udp; "" when it did not come to that
	User     string
	Session  string
	Target   string         // what the client asked for, in canonical form
	Address  netip.AddrPort // what was dialed for it
	Source   string         // what it left by; "" when there was nothing
	Cooling  bool           // Source was cooling, as all were
	Attempts int
	DNS      time.Duration // resolving
	Connect  time.Duration // choosing a source and connecting
	Up, Down int64         // bytes from the client, and to it
	Status   int           // the HTTP status that the client was given; 0 when none was, or another protocol
	Reason   string        // why it ended
	Mismatch string        // how the TLS in a tunnel asks for another host than Target; "" if it does not, or was not looked at
	Err      error

	Hello *Hello // nil but in mode sni

	Start time.Time // when it was accepted, or the request began
}

// Hello is what the first bytes of a client say, where it is routed by them.
type Hello struct {
	Outcome  string         // routed, opaque (not looked at), or why there is no route
	Original netip.AddrPort // where the client was going; invalid when it meant to come here
	ALPN     []string       // the protocols that it offers
	Records  int            // that its hello came in
	ECH      bool           // an encrypted hello was offered
	Decide   time.Duration  // from accept until that was known
}

// Log writes l as the access line of a request of c. The line of c itself is then
// not written, unless it says something of its own.
func (c *Client) Log(l *Line) {
	c.logged = true
	c.write(l)
}

func (c *Client) log() {
	if c.Line.Reason == "" && c.Line.Err == nil && c.logged {
		return
	}
	if c.Line.Reason == "" {
		c.Line.Reason = string(c.Ended())
	}
	c.write(&c.Line)
}

func (c *Client) write(l *Line) { l.write(c.server.Log, c.Addr, c.Remote(), c.Claim) }

// write writes l about a client, who may have been named by a peer.
func (l *Line) write(log zerolog.Logger, client, peer netip.AddrPort, claim *Claim) {
	var text [64]byte
	e := log.Info().
		Str("listener", l.Listener).
		Str("mode", l.Mode).
		Bytes("client", client.AppendTo(text[:0])).
		Str("user", cut(l.User)).
		Str("session", cut(l.Session)).
		Str("target", cut(l.Target)).
		Bytes("address", appendAddrPort(text[:0], l.Address)).
		Str("source", l.Source).
		Int("attempts", l.Attempts).
		Float64("dns_ms", ms(l.DNS)).
		Float64("connect_ms", ms(l.Connect)).
		Int64("up", l.Up).
		Int64("down", l.Down).
		Float64("took", ms(time.Since(l.Start))).
		Int("status", l.Status).
		Str("reason", l.Reason)
	if claim != nil {
		e = e.Bytes("peer", peer.AppendTo(text[:0]))
		e = strIfAny(e, "authority", claim.Authority)
		e = strIfAny(e, "unique_id", claim.UniqueID)
	}
	e = strIfAny(e, "mismatch", l.Mismatch)
	if h := l.Hello; h != nil {
		e = e.Str("outcome", h.Outcome).
			Bytes("original", appendAddrPort(text[:0], h.Original)).
			Str("alpn", cut(strings.Join(h.ALPN, ","))).
			Int("records", h.Records).
			Bool("ech", h.ECH).
			Float64("hello_ms", ms(h.Decide))
	}
	if l.Cooling {
		e = e.Bool("cooling", true)
	}
	if l.Err != nil {
		e = e.Str(zerolog.ErrorFieldName, cut(l.Err.Error()))
	}
	e.Msg("closed")
}

func strIfAny(e *zerolog.Event, field, s string) *zerolog.Event {
	if s == "" {
		return e
	}
	return e.Str(field, s)
}

// maxText bounds what a peer can put on a line. Escaping is the logger's.
const maxText = 256

func cut(s string) string { return s[:min(len(s), maxText)] }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// appendAddrPort appends nothing for what is not there.
func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return b
	}
	return a.AppendTo(b)
}
