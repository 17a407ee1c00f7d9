package egress

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"swivel/relay"
)

var (
	errUpgraded = errors.New("upgraded")
	errEarly    = errors.New("an answer before the request")
	errUnasked  = errors.New("upgrade to a protocol that was not asked for")
)

// upgrade makes a tunnel of the exchange when the origin has agreed to speak
// another protocol, RFC 9110 section 7.8. It returns errUpgraded when the tunnel has
// ended.
//
// Not left to ReverseProxy, because with that a reset looks like the end.
func (x *exchange) upgrade(r *http.Response) error {
	want, got := r.Request.Header.Get("Upgrade"), r.Header.Get("Upgrade")
	if want == "" || !strings.EqualFold(want, got) {
		return errUnasked
	}
	x.meter.released = true
	early, _ := io.ReadAll(r.Body) // what net/http has read behind the response
	if err := x.hijack(x.w); err != nil {
		return err
	}
	x.line.Status = r.StatusCode
	extendWrite(x.conn)
	r.Body = http.NoBody
	if err := r.Write(x.conn); err != nil {
		x.line.Reason, x.line.Err = string(relay.ClientReset), err
		return errUpgraded
	}
	x.runTunnel(early)
	return errUpgraded
}

// runTunnel relays what follows an upgrade; early is the first that upstream said.
func (x *exchange) runTunnel(early []byte) {
	x.c.SetDeadline(time.Time{})
	x.up.SetDeadline(time.Time{})
	limits := x.up.Bound(x.Limits)
	limits.Lifetime = 0 // that of the exchange goes on
	upstream := reader{c: x.up.Socket, buf: early}
	if t, ok := x.up.Stream.(*tls.Conn); ok {
		upstream.c = t
	}
	p := relay.NewPipe(x.in.rest(nil), upstream.rest(nil), limits)
	x.tunnel.Store(p)
	if why := x.ended.Load(); why != nil {
		p.End(*why)
	}
	reason, err := p.Run()
	x.line.Up, x.line.Down = p.Up(), p.Down()-int64(len(early)) // the rest is on the meter
	x.line.Reason, x.line.Err = string(reason), err
}
