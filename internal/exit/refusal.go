package exit

import (
	"fmt"
	"strings"
)

// Refusal is the answer of a proxy that has not made a tunnel.
type Refusal struct {
	Proxy  *Proxy
	Status int    // of HTTP; that of SOCKS5 is translated
	Token  string // of RFC 9209 section 2.3; "" when the proxy gave none
	What   string // in words, when it was not HTTP
}

func (r *Refusal) Error() string {
	text := fmt.Sprintf("exit %s: ", r.Proxy)
	switch {
	case r.What != "":
		return text + r.What
	case r.Token != "":
		return text + fmt.Sprintf("%d %s", r.Status, r.Token)
	}
	return text + fmt.Sprint(r.Status)
}

// Blame says whose fault a Refusal is.
type Blame int

const (
	Itself      Blame = iota // the proxy's: another one may do better
	Destination              // the destination's: none will do better
	Either                   // not known: another one might
)

// Whose fault it is, for each token of RFC 9209 section 2.3.
var blames = map[string]Blame{
	"dns_timeout":                        Destination,
	"dns_error":                          Destination,
	"destination_not_found":              Destination,
	"destination_unavailable":            Either,
	"destination_ip_prohibited":          Itself,
	"destination_ip_unroutable":          Either,
	"connection_refused":                 Destination,
	"connection_terminated":              Destination,
	"connection_timeout":                 Destination,
	"connection_read_timeout":            Destination,
	"connection_write_timeout":           Destination,
	"connection_limit_reached":           Itself,
	"tls_protocol_error":                 Destination,
	"tls_certificate_error":              Destination,
	"tls_alert_received":                 Destination,
	"http_request_error":                 Itself,
	"http_request_denied":                Itself,
	"http_response_incomplete":           Destination,
	"http_response_header_section_size":  Destination,
	"http_response_header_size":          Destination,
	"http_response_body_size":            Destination,
	"http_response_trailer_section_size": Destination,
	"http_response_trailer_size":         Destination,
	"http_response_transfer_coding":      Destination,
	"http_response_content_coding":       Destination,
	"http_response_timeout":              Destination,
	"http_upgrade_failed":                Destination,
	"http_protocol_error":                Destination,
	"proxy_internal_response":            Itself,
	"proxy_internal_error":               Itself,
	"proxy_configuration_error":          Itself,
	// Another proxy would lead back here as well, through all the others of each.
	"proxy_loop_detected": Destination,
}

// Blame says whose fault r is. A proxy that gives no token may mean itself or the
// destination by one and the same status.
func (r *Refusal) Blame() Blame {
	if b, ok := blames[r.Token]; ok {
		return b
	}
	switch r.Status {
	case 500, 502, 503, 504:
		return Either
	}
	return Itself
}

func newRefusal(status int, f fields) *Refusal {
	return &Refusal{Status: status, Token: errorToken(strings.Join(f.proxyStatus, ", "))}
}

// errorToken finds the first known error in the value of Proxy-Status: a list of
// proxies, the one next to the origin first, each with parameters (RFC 9209).
func errorToken(value string) string {
	quoted, from := false, 0
	for i := 0; i <= len(value); i++ {
		switch {
		case i < len(value) && value[i] == '"':
			quoted = !quoted
		case i < len(value) && quoted && value[i] == '\\':
			i++
		case i == len(value), !quoted && (value[i] == ';' || value[i] == ','):
			token, ok := strings.CutPrefix(strings.Trim(value[min(from, i):i], " \t"), "error=")
			if _, known := blames[token]; ok && known {
				return token
			}
			from = i + 1
		}
	}
	return ""
}
