// Package admin serves what operators and their machines ask of a running swivel,
// over HTTP on an address of its own.
//
//	GET /healthz       200 while the process lives
//	GET /readyz        200 when clients can be served, else 503 and why
//	GET /api/sources   the pools, with the state of each source
//	POST /api/cooldown a source is not to be used for a while: see Cooldown
//	POST /api/release  a session ends: see Release
//
// It knows nothing but what State tells it. It has no users: who may connect is a
// matter of addresses, and requests that a web page makes of its visitor's browser
// are refused. Whoever may connect may do all there is.
package admin

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// State is what can be asked of a running swivel. All of it is called by several
// goroutines at once.
type State struct {
	Ready func() error  // nil when clients can be served, else why not
	Pools func() []Pool // in the order of the configuration
	Cool  func(Cooldown) error

	Release func(Release) error
}

// Pool is a pool as /api/sources shows it.
type Pool struct {
	Name     string   `json:"name"`
	Strategy string   `json:"strategy"`
	Sources  []Source `json:"sources"`
}

// States of a source.
const (
	Ready   = "ready"
	Cooling = "cooling" // not to be used for a while
	Missing = "missing" // configured, and not there
)

// Source is a source as /api/sources shows it.
type Source struct {
	Source string            `json:"source"` // as Swivel-Source names it; as configured when it is missing
	State  string            `json:"state"`
	Why    string            `json:"why,omitempty"` // it is not ready
	Weight int               `json:"weight"`
	Labels map[string]string `json:"labels,omitempty"`
	Open   int               `json:"open"` // connections that leave by it now
	Uses   uint64            `json:"uses"` // connections so far
	Cool   Duration          `json:"cooldown,omitzero"`
	Parts  int               `json:"cooling_parts,omitzero"` // of a prefix
}

// Handler returns the handler of everything that the package serves.
func Handler(s State) http.Handler {
	api := http.NewServeMux()
	api.HandleFunc("GET /api/sources", s.sources)
	api.HandleFunc("POST /api/cooldown", s.cooldown)
	api.HandleFunc("POST /api/release", s.release)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("/api/", http.NewCrossOriginProtection().Handler(byAddress(api)))
	return plain(mux)
}

// plain keeps browsers and caches from making more of an answer than it is.
func plain(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		h.ServeHTTP(w, r)
	})
}

// byAddress refuses requests to a host whose name anybody could have made up: a web
// page whose own name leads to this address is of the same origin for its visitor's
// browser, and would read the answers (DNS rebinding). Names of one label belong to
// whoever runs the network.
func byAddress(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isPublicName(r.Host) {
			http.Error(w, "ask by address (http://127.0.0.1:9080/…), or by a name without dots", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// isPublicName reports whether the value of a Host field is a name with dots in it.
func isPublicName(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return strings.Contains(host, ".") && !strings.HasSuffix(host, ".localhost")
}

func (s State) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.Ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (s State) sources(w http.ResponseWriter, _ *http.Request) {
	write(w, struct {
		Pools []Pool `json:"pools"`
	}{s.Pools()})
}

// write answers with JSON. It fails when the client has gone.
func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
