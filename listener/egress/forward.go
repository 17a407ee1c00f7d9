package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"swivel/internal/target"
	"swivel/listener"
	"swivel/listener/refusal"
	"swivel/relay"
)

// maxForwardHead bounds the head of a forwarded request. More than maxHead, since
// it carries the cookies that a CONNECT request does not.
const maxForwardHead = 64 << 10

// forward serves a client that asks for http:// URLs. net/http reads its requests
// and writes the answers; each request leaves through a source of its own, also
// those that follow on the same connection.
func (s *session) forward(ctx context.Context) {
	s.c.Line.Mode = "http"
	f := &forwarder{session: s, client: newForwardConn(s)}
	srv := &http.Server{
		Handler:           f,
		ReadHeaderTimeout: s.Head,
		IdleTimeout:       s.Limits.Idle,
		MaxHeaderBytes:    maxForwardHead,
		ErrorLog:          log.New(io.Discard, "", 0), // what it says is in the access lines
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState:         f.client.state,

		DisableGeneralOptionsHandler: true,
	}
	// Keep-alive connections would outlast a drain.
	stop := context.AfterFunc(s.c.Accepting, func() { srv.SetKeepAlivesEnabled(false) })
	defer stop()
	srv.Serve(f.client.listener()) // returns when the connection is done with
	switch {
	case f.bug != nil:
		panic(f.bug)
	case f.client.refused != 0:
		s.c.Line.Status, s.c.Line.Reason = f.client.refused, refusal.RequestError
	case !f.served && s.c.Ended() == "":
		s.c.Line.Reason = "no-request"
	}
}

// forwarder handles the requests of one client. It belongs to the goroutine that
// net/http serves the client with; the session's waits for that to end.
type forwarder struct {
	*session
	client   *forwardConn
	served   bool // a request has been
	hijacked bool
	bug      error // what a request panicked with
}

// ServeHTTP has a line in the access log of its own for each request.
func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.served = true
	f.client.begin()
	defer f.returned()
	// Else a response would have to wait for the rest of the request.
	http.NewResponseController(w).EnableFullDuplex()
	l := f.c.NewLine(f.Name)
	l.Mode = "http"
	defer f.c.Log(&l)

	t, err := f.judge(&l, r)
	if err != nil {
		f.reject(w, &l, explain(err), err)
		return
	}
	f.via = strings.Join(r.Header["Via"], ", ")
	up, err := f.open(r.Context(), &l, t)
	if err != nil {
		f.reject(w, &l, explain(err), err)
		return
	}
	defer up.Done()
	defer up.Close()
	if up.Early > 0 { // an origin does not speak first
		f.reject(w, &l, explainForward(errEarly), errEarly)
		return
	}

	x := newExchange(f, w, &l, up, t)
	f.c.Attach(up, x.cut)
	defer f.c.Detach()
	if d := f.Limits.Lifetime; d > 0 {
		timer := time.AfterFunc(d, func() { x.cut(relay.Lifetime) })
		defer timer.Stop()
	}
	x.serve(r)
}

// returned ends every request. net/http swallows a panic, and does not care any
// more for a connection that was taken from it.
func (f *forwarder) returned() {
	p := recover()
	if p != nil && p != http.ErrAbortHandler {
		f.bug = fmt.Errorf("%v\n%s", p, debug.Stack())
		relay.Abort(f.c.Socket)
	}
	if f.hijacked {
		f.client.Close()
		close(f.client.done)
	} else {
		f.client.finish()
	}
	if p != nil {
		panic(http.ErrAbortHandler)
	}
}

// judge authenticates a request and reads where it is to go.
func (f *forwarder) judge(l *listener.Line, r *http.Request) (target.Target, error) {
	switch {
	case r.Method == "CONNECT":
		return target.Target{}, malformed("request: CONNECT must be the first on its connection")
	case len(r.Header["Proxy-Authorization"]) > 1:
		return target.Target{}, malformed("Proxy-Authorization")
	}
	if err := f.authenticate(l, r.Header.Get("Proxy-Authorization")); err != nil {
		return target.Target{}, err
	}
	switch {
	case !isHTTPURL(r.RequestURI):
		return target.Target{}, malformed("request target: want an http:// URL")
	case r.Method == "TRACE":
		return target.Target{}, errMethod
	}
	return target.Parse(authority(r.RequestURI))
}

// reject answers like a refused CONNECT does, and closes: net/http cannot write a
// reason phrase, and might read on. A client that has left gets no answer.
func (f *forwarder) reject(w http.ResponseWriter, l *listener.Line, why failure, err error) {
	f.hijack(w)
	if f.client.err.get() != nil {
		l.Reason, l.Err = string(f.leftReason()), err
		return
	}
	f.answer(l, why, err)
}

// leftReason says how the client left, or was given up.
func (f *forwarder) leftReason() relay.Reason {
	why, err := f.c.Ended(), f.client.err.get()
	switch {
	case why != "":
		return why
	case errors.Is(err, os.ErrDeadlineExceeded):
		return relay.Idle
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return relay.ClientReset
	default:
		return relay.ClientClosed
	}
}

// hijack takes the client's connection from net/http. What was read of it and not
// used is in f.in again.
func (f *forwarder) hijack(w http.ResponseWriter) error {
	_, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	f.hijacked = true
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	f.in.buf = append(early[:len(early):len(early)], f.in.buf...)
	return nil
}

const httpScheme = "http://"

func isHTTPURL(target string) bool {
	return len(target) >= len(httpScheme) && strings.EqualFold(target[:len(httpScheme)], httpScheme)
}

// authority is that of an http:// URL as it was sent, with a port. It is not taken
// from a parsed URL: net/url decodes it, and leaves userinfo out.
func authority(uri string) string {
	a := uri[len(httpScheme):]
	if i := strings.IndexAny(a, "/?#"); i >= 0 {
		a = a[:i]
	}
	if strings.LastIndexByte(a, ':') <= strings.LastIndexByte(a, ']') {
		a += ":80"
	}
	return a
}

// hostField is the Host field for the origin: RFC 9112 section 3.2.2 has a proxy
// make it anew from the URL.
func hostField(t target.Target) string { return strings.TrimSuffix(t.String(), ":80") }
