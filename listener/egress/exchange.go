package egress

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"swivel/internal/target"
	"swivel/listener"
	"swivel/listener/refusal"
	"swivel/relay"
	"swivel/rotate"
)

// exchange is one request on its way through an upstream connection.
type exchange struct {
	*forwarder
	w     http.ResponseWriter
	line  *listener.Line
	up    *rotate.Upstream
	meter *metered // up, as net/http sees it
	body  *requestBody
	host  string // the Host field for the origin

	ended  atomic.Pointer[relay.Reason] // by cut
	tunnel atomic.Pointer[relay.Pipe]   // once it was upgraded
}

func newExchange(f *forwarder, w http.ResponseWriter, l *listener.Line, up *rotate.Upstream, t target.Target) *exchange {
	w = continuing{w}
	return &exchange{forwarder: f, w: w, line: l, up: up, meter: newMetered(up.Stream, f), host: hostField(t)}
}

// serve forwards r and its response.
func (x *exchange) serve(r *http.Request) {
	defer func() {
		x.meter.settle()
		x.line.Up += x.meter.up.Load()
		x.line.Down += x.meter.down.Load()
		p := recover() // ReverseProxy: the response was cut off
		if p != nil {
			x.line.Reason = string(x.cutReason())
			http.NewResponseController(x.w).Flush()
			relay.Cut(x.c.Socket, x.Limits.HalfClosed)
		}
		if why := x.ended.Load(); why != nil {
			x.line.Reason = string(*why)
		}
		if p != nil {
			panic(p)
		}
	}()
	for _, c := range []net.Conn{x.c.Socket, x.up.Socket} {
		defer relay.Spare(c, x.Limits.UserTimeout)()
	}
	x.line.Reason = "done"
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	x.body = &requestBody{ReadCloser: r.Body}
	r.Body = x.body
	reverseProxy.ServeHTTP(x.w, r)
}

// cut ends the exchange from outside: both peers see a reset.
func (x *exchange) cut(why relay.Reason) {
	x.ended.CompareAndSwap(nil, &why)
	if p := x.tunnel.Load(); p != nil {
		p.End(why)
		return
	}
	x.up.SetLinger(0) // net/http closes it when it finds the client gone
	relay.Abort(x.c.Socket)
	relay.Abort(x.up.Socket)
}

// cutReason says who cut a response off. When it was the client, net/http has
// closed the upstream connection since.
func (x *exchange) cutReason() relay.Reason {
	err := x.meter.err.get()
	switch {
	case x.client.err.get() != nil, errors.Is(err, net.ErrClosed):
		return x.leftReason()
	case err == nil:
		return refusal.ProtocolError
	case errors.Is(err, os.ErrDeadlineExceeded):
		return relay.Idle
	case errors.Is(err, io.EOF):
		return relay.UpstreamClosed
	default:
		return relay.UpstreamReset
	}
}

// failed answers the client instead of an upstream that gave no HTTP response.
func (x *exchange) failed(err error) {
	x.meter.settle()
	if x.ended.Load() != nil {
		x.hijack(x.w)
		return
	}
	if x.body.err.get() != nil {
		err = malformed("request body") // unless the client has gone, which reject looks at
		x.reject(x.w, x.line, explain(err), err)
		return
	}
	err = x.meter.explain(err)
	x.reject(x.w, x.line, explainForward(err), err)
}

// requestBody is the body of a request, which may turn out to be malformed.
type requestBody struct {
	io.ReadCloser
	err firstError
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) { // interrupt sets a deadline
		b.err.set(err)
	}
	return n, err
}

// continuing leaves out the 100 responses of the origin: net/http sends the client
// one of its own when, thanks to the origin's, more of the request is read.
type continuing struct{ http.ResponseWriter }

func (w continuing) WriteHeader(status int) {
	if status != http.StatusContinue {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Unwrap is for [http.ResponseController].
func (w continuing) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// exchangeKey is under what a request's context has its exchange.
type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

// transport sends each request through the connection of its exchange. None is
// kept for another: the next request is to leave by another source.
var transport = &http.Transport{
	DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ctx.Value(exchangeKey{}).(*exchange).meter, nil
	},
	DisableKeepAlives:      true,
	DisableCompression:     true,
	ExpectContinueTimeout:  time.Second,
	MaxResponseHeaderBytes: 256 << 10,
}

var reverseProxy = &httputil.ReverseProxy{
	Transport:      transport,
	FlushInterval:  -1, // a byte that the origin sends is not held back
	BufferPool:     &buffers,
	ErrorLog:       log.New(io.Discard, "", 0),
	Rewrite:        rewrite,
	ModifyResponse: modify,
	ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
		if err != errUpgraded {
			exchangeOf(r).failed(err)
		}
	},
}

// rewrite undoes what ReverseProxy does because it stands in front of an origin:
// there it distrusts what says who a client is and takes offense at odd queries. To
// a forward proxy both are none of its business.
//
// It adds no Via and no X-Forwarded-For: the origin is to see the source address
// and nothing of who is behind it.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.Host = exchangeOf(r.In).host
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	r.Out.Trailer = r.In.Trailer // not a copy: its values come with the end of the body
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := r.In.Header[name]; ok && !lists(r.In.Header["Connection"], name) {
			r.Out.Header[name] = v
		}
	}
	// Of a request with a body no upgrade is asked for: that and what follows it
	// would have to be told apart.
	if r.In.ContentLength != 0 || r.Out.Header.Get("Upgrade") == "" {
		r.Out.Header.Del("Upgrade")
		r.Out.Header.Del("Connection")
		r.Out.Close = true // else a body that the origin refused to see would be read all the same
	}
}

// lists reports whether the values of a field, which are lists, have token.
func lists(values []string, token string) bool {
	for s := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if strings.EqualFold(strings.Trim(s, " \t"), token) {
			return true
		}
	}
	return false
}

// modify is given the response before the client is. An upgraded one it keeps.
func modify(r *http.Response) error {
	x := exchangeOf(r.Request)
	x.meter.settle()
	r.Header.Set("Swivel-Source", left(x.up, x.line))
	hop := x.line.Address.String()
	if x.up.Source.Exit != nil {
		hop = x.line.Source
	}
	r.Header.Add("Proxy-Status", `swivel; next-hop="`+hop+`"`)
	if r.StatusCode == http.StatusSwitchingProtocols {
		return x.upgrade(r)
	}
	x.line.Status = r.StatusCode
	if len(r.Header["Content-Type"]) == 0 {
		x.w.Header()["Content-Type"] = nil // net/http would guess one
	}
	return nil
}

const bufferSize = 32 << 10

// bufferPool implements httputil.BufferPool.
type bufferPool struct{ pool sync.Pool }

var buffers = bufferPool{sync.Pool{New: func() any { return new([bufferSize]byte) }}}

func (p *bufferPool) Get() []byte  { return p.pool.Get().(*[bufferSize]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[bufferSize]byte)(b)) }
