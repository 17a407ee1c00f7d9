package egress

import (
	"cmp"
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
	"swivel/internal/target"
	"swivel/listener/refusal"
	"swivel/relay"
)

// failure is what a client is told when its request failed.
type failure struct {
	refusal.Refusal
	field string // a header field that the status asks for
	rep   byte   // SOCKS5 reply, RFC 1928 section 6; zero: what goes with Type
}

// SOCKS5 replies.
const (
	repSuccess     = 0
	repFailure     = 1
	repNotAllowed  = 2
	repNetwork     = 3 // network unreachable
	repHost        = 4 // host unreachable
	repRefused     = 5
	repTimeout     = 6 // TTL expired
	repCommand     = 7
	repAddressType = 8
)

// replies are those of SOCKS5 for Proxy Error Types; for others there is repFailure.
var replies = map[string]byte{
	refusal.DNSTimeout:        repHost,
	refusal.DNSError:          repHost,
	refusal.NotFound:          repHost,
	refusal.Prohibited:        repNotAllowed,
	refusal.Unroutable:        repNetwork,
	refusal.ConnectionRefused: repRefused,
	refusal.ConnectionTimeout: repTimeout,
	refusal.RequestDenied:     repNotAllowed,
	refusal.LoopDetected:      repNotAllowed,
}

var (
	allow          = "Allow: " + strings.Join(methods, ", ")
	askCredentials = `Proxy-Authenticate: Basic realm="swivel"`
)

// answers is what there is to say of requests themselves. Of what came after that,
// package refusal knows.
var answers = []struct {
	to error
	failure
}{
	{target.ErrMalformed, failure{Refusal: badRequest(400, "bad target")}},
	{errMethod, failure{badRequest(405, errMethod.Error()), allow, repCommand}},
	{errVersion, failure{Refusal: badRequest(505, errVersion.Error())}},
	{errTooBig, failure{Refusal: badRequest(431, errTooBig.Error())}},
	{errTooManyFields, failure{Refusal: badRequest(431, errTooManyFields.Error())}},
	{auth.ErrDenied, failure{refusal.Refusal{Status: 407, Detail: "Proxy Authentication Required"}, askCredentials, repNotAllowed}},
	{auth.ErrThrottled, failure{Refusal: refusal.Refusal{Status: 429, Type: refusal.RequestError, Detail: "too many wrong passwords", After: time.Minute}}},
	{errSOCKS, failure{Refusal: badRequest(400, "")}},
	{errNoMethod, failure{Refusal: badRequest(400, "")}},
	{errCommand, failure{Refusal: badRequest(405, ""), rep: repCommand}},
	{errAddressType, failure{Refusal: badRequest(400, ""), rep: repAddressType}},
}

func badRequest(status int, detail string) refusal.Refusal {
	return refusal.Refusal{Status: status, Type: refusal.RequestError, Detail: detail}
}

// explain finds the answer for an error.
func explain(err error) failure {
	if m, ok := errors.AsType[malformed](err); ok {
		return failure{Refusal: badRequest(400, m.Error())}
	}
	if m, ok := errors.AsType[errMayNot](err); ok {
		return failure{Refusal: refusal.Refusal{Status: 403, Type: refusal.RequestDenied, Detail: m.Error()}}
	}
	for _, a := range answers {
		if errors.Is(err, a.to) {
			return a.failure
		}
	}
	if r, ok := refusal.Of(err); ok {
		return failure{Refusal: r}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return failure{Refusal: badRequest(408, "head took too long")}
	}
	return failure{Refusal: refusal.Refusal{Status: 500, Type: refusal.InternalError}}
}

// explainForward finds the answer for an upstream that connected and then gave no
// HTTP response.
func explainForward(err error) failure {
	r := refusal.Refusal{Status: 502, Type: refusal.ProtocolError}
	switch {
	case refusal.IsTimeout(err):
		r.Status, r.Type = 504, refusal.ReadTimeout
	case errors.Is(err, context.Canceled):
		return explain(err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		r.Type = refusal.ConnectionEnded
	}
	return failure{Refusal: r}
}

// reason is what the access line has for the failure.
func (f failure) reason() string { return cmp.Or(f.Type, "credentials") }

// phrase is the reason phrase: all that many clients show of a failed CONNECT.
func (f failure) phrase() string { return strings.TrimSpace(f.Type + " " + f.Detail) }

// reply is that of SOCKS5.
func (f failure) reply() byte { return cmp.Or(f.rep, replies[f.Type], repFailure) }

// response is the failure as a whole HTTP response.
func (f failure) response() []byte {
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n", f.Status, f.phrase())
	if f.Type != "" {
		b = fmt.Appendf(b, "Proxy-Status: swivel; error=%s\r\n", f.Type)
	}
	if f.field != "" {
		b = fmt.Appendf(b, "%s\r\n", f.field)
	}
	if f.After > 0 {
		b = fmt.Appendf(b, "Retry-After: %d\r\n", (f.After+time.Second-1)/time.Second) // seconds, RFC 9110 section 10.2.3
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
