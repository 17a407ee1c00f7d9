package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"swivel/internal/auth"
	"swivel/internal/exit"
	"swivel/internal/resolver"
	"swivel/internal/target"
	"swivel/listener"
	"swivel/relay"
	"swivel/rotate"
)

// failure is what a client is told when its request failed.
type failure struct {
	status int
	token  string // of RFC 9209 section 2.3, for Proxy-Status and the reason phrase
	detail string // for the reason phrase; never what a client sent
	field  string // a header field that the status asks for
	rep    byte   // SOCKS5 reply, RFC 1928 section 6
}

// SOCKS5 replies.
const (
	repSuccess      = 0
	repFailure      = 1
	repNotAllowed   = 2
	repNetwork      = 3 // network unreachable
	repHost         = 4 // host unreachable
	repRefused      = 5
	repTimeout      = 6 // TTL expired
	repCommand      = 7
	repAddressType  = 8
	retryAfter      = "Retry-After: 1"
	retryMuchLater  = "Retry-After: 60"
	askCredentials  = `Proxy-Authenticate: Basic realm="swivel"`
	tokenRequest    = "http_request_error"
	tokenDenied     = "http_request_denied"
	tokenLimit      = "connection_limit_reached"
	tokenUnroutable = "destination_ip_unroutable"
	tokenProtocol   = "http_protocol_error"

	tokenConfiguration = "proxy_configuration_error"
	tokenUnavailable   = "destination_unavailable"
)

var allow = "Allow: " + strings.Join(methods, ", ")

// answers is the table of answers of the README, but for what connect(2) says.
var answers = []struct {
	to error
	failure
}{
	{target.ErrMalformed, failure{400, tokenRequest, "bad target", "", repFailure}},
	{errMethod, failure{405, tokenRequest, errMethod.Error(), allow, repCommand}},
	{errVersion, failure{505, tokenRequest, errVersion.Error(), "", repFailure}},
	{errTooBig, failure{431, tokenRequest, errTooBig.Error(), "", repFailure}},
	{errTooManyFields, failure{431, tokenRequest, errTooManyFields.Error(), "", repFailure}},
	{auth.ErrDenied, failure{407, "", "Proxy Authentication Required", askCredentials, repNotAllowed}},
	{auth.ErrThrottled, failure{429, tokenRequest, "too many wrong passwords", retryMuchLater, repFailure}},
	{listener.ErrClient, failure{403, tokenDenied, "client address", "", repNotAllowed}},
	{listener.ErrPerClient, failure{429, tokenRequest, listener.ErrPerClient.Error(), retryAfter, repFailure}},
	{listener.ErrConnections, failure{503, tokenLimit, "", retryAfter, repFailure}},
	{target.ErrName, failure{403, tokenDenied, "name", "", repNotAllowed}},
	{target.ErrPort, failure{403, tokenDenied, "port", "", repNotAllowed}},
	{target.ErrAddress, failure{403, "destination_ip_prohibited", "", "", repNotAllowed}},
	{target.ErrLoop, failure{502, "proxy_loop_detected", "", "", repNotAllowed}},
	{resolver.ErrTimeout, failure{504, "dns_timeout", "", "", repHost}},
	{resolver.ErrNotFound, failure{502, "dns_error", "no such name", "", repHost}},
	{resolver.ErrServer, failure{502, "dns_error", "no answer from the name server", "", repHost}},
	{rotate.ErrNoMatch, failure{503, tokenConfiguration, "no source is as it was asked for", "", repFailure}},
	{rotate.ErrSessionGone, failure{503, tokenConfiguration, "the source of the session has gone", "", repFailure}},
	{rotate.ErrNoSource, failure{503, tokenConfiguration, "no source address", "", repFailure}},
	{rotate.ErrExhausted, failure{503, tokenLimit, "every source address is exhausted", retryAfter, repFailure}},
	{rotate.ErrResources, failure{503, tokenLimit, "out of sockets", retryAfter, repFailure}},
	{context.Canceled, failure{503, tokenLimit, "shutting down", retryAfter, repFailure}},
	{errSOCKS, failure{400, tokenRequest, "", "", repFailure}},
	{errNoMethod, failure{400, tokenRequest, "", "", repFailure}},
	{errCommand, failure{405, tokenRequest, "", "", repCommand}},
	{errAddressType, failure{400, tokenRequest, "", "", repAddressType}},
}

// explain finds the answer for an error.
func explain(err error) failure {
	if m, ok := errors.AsType[malformed](err); ok {
		return failure{400, tokenRequest, m.Error(), "", repFailure}
	}
	if m, ok := errors.AsType[errMayNot](err); ok {
		return failure{403, tokenDenied, m.Error(), "", repNotAllowed}
	}
	if busy, ok := errors.AsType[*rotate.Busy](err); ok {
		return failure{429, tokenRequest, "every source was used too recently for this target", retryIn(busy.After), repFailure}
	}
	if cooling, ok := errors.AsType[*rotate.Cooling](err); ok {
		return failure{503, tokenLimit, "every source is cooling", retryIn(cooling.After), repFailure}
	}
	if r, ok := errors.AsType[*exit.Refusal](err); ok {
		return explainRefusal(err, r)
	}
	if e, ok := errors.AsType[*exit.Error](err); ok && !errors.Is(err, context.Canceled) {
		return explainExit(e) // whatever it wraps
	}
	for _, a := range answers {
		if errors.Is(err, a.to) {
			return a.failure
		}
	}
	if derr, ok := errors.AsType[*rotate.Error](err); ok {
		return explainDial(derr)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return failure{408, tokenRequest, "head took too long", "", repFailure}
	}
	return failure{500, "proxy_internal_error", "", "", repFailure}
}

// retryIn is the field that tells a client when to come again, in whole seconds.
func retryIn(d time.Duration) string {
	return fmt.Sprintf("Retry-After: %d", max(1, (d+time.Second-1)/time.Second))
}

// explainDial finds the answer for what connect(2) said. EINVAL is what a blackhole
// route gives, EACCES a prohibit route.
func explainDial(err *rotate.Error) failure {
	f := failure{502, "connection_terminated", err.Addr.String(), "", repFailure}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		f.token, f.rep = "connection_refused", repRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EACCES):
		f.token, f.rep = tokenUnroutable, repNetwork
	case isTimeout(err):
		f.status, f.token, f.rep = 504, "connection_timeout", repTimeout
	}
	return f
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// explainForward finds the answer for an upstream that connected and then gave no
// HTTP response.
func explainForward(err error) failure {
	switch {
	case isTimeout(err):
		return failure{status: 504, token: "connection_read_timeout"}
	case errors.Is(err, context.Canceled):
		return explain(err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return failure{status: 502, token: "connection_terminated"}
	}
	return failure{status: 502, token: tokenProtocol}
}

// reason is what the access line has for the failure.
func (f failure) reason() string {
	if f.token == "" {
		return "credentials"
	}
	return f.token
}

// phrase is the reason phrase: all that many clients show of a failed CONNECT.
func (f failure) phrase() string {
	switch {
	case f.token == "":
		return f.detail
	case f.detail == "":
		return f.token
	}
	return f.token + " " + f.detail
}

// response is the failure as a whole HTTP response.
func (f failure) response() []byte {
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n", f.status, f.phrase())
	if f.token != "" {
		b = fmt.Appendf(b, "Proxy-Status: swivel; error=%s\r\n", f.token)
	}
	if f.field != "" {
		b = fmt.Appendf(b, "%s\r\n", f.field)
	}
	return fmt.Appendf(b, "Content-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		len(f.phrase())+1, f.phrase())
}

const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// extendWrite gives an answer time to be written when the head's time is over.
func extendWrite(c net.Conn) { c.SetWriteDeadline(time.Now().Add(lingerTime)) }

// linger lets an answer reach the client before the connection is closed: closing
// with unread input makes the kernel send a reset, which can overtake the answer.
func linger(c relay.Duplex) {
	c.CloseWrite()
	c.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c, lingerBytes)
}
