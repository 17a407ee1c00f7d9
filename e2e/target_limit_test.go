//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"
)

// rationed is a site that answers 429 to an address that asks again within a time.
type rationed struct {
	every time.Duration

	mu sync.Mutex
	// guards
	last map[string]time.Time // by address
}

// newRationed returns the URL of such a site, at a loopback address of its own.
func newRationed(t *testing.T, ip string, every time.Duration) string {
	t.Helper()
	ln, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: &rationed{every: every, last: make(map[string]time.Time)}}
	go srv.Serve(ln) // until Close
	t.Cleanup(func() { srv.Close() })
	return "http://" + ln.Addr().String()
}

func (l *rationed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	from := netip.MustParseAddrPort(r.RemoteAddr).Addr().String()
	l.mu.Lock()
	defer l.mu.Unlock()
	before, known := l.last[from]
	l.last[from] = now
	if known && now.Sub(before) < l.every {
		http.Error(w, "once in "+l.every.String(), http.StatusTooManyRequests)
	}
}

// fiveSources is a pool of them, and a listener for its clients.
const fiveSources = `
pools:
  main:
    sources: [{address: 127.0.2.1}, {address: 127.0.2.2}, {address: 127.0.2.3}, {address: 127.0.2.4}, {address: 127.0.2.5}]
    %s
listeners: [{name: egress, listen: 127.0.0.1:0, destinations: {allow: [127.0.0.0/8], ports: [1-65535]}}]
`

// through returns a client of the proxy at addr that makes a connection for each
// request.
func through(t *testing.T, addr string) *http.Client {
	t.Helper()
	tr := &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: addr}),
		DisableKeepAlives: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func status(t *testing.T, c *http.Client, url string) int {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Error(err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// A site allows each address one request a second. Client c1 has five addresses and
// asks it as often as five addresses may; client c2 asks another site now and then.
func TestTargetLimit(t *testing.T) {
	t.Run("turns of all targets: c2 shifts those of c1", func(t *testing.T) {
		s := start(t, "-config", config(t, fmt.Sprintf(fiveSources, "strategy: round-robin")))
		t1, t2 := newRationed(t, "127.0.3.1", time.Minute), newRationed(t, "127.0.3.2", time.Minute)
		c1, c2 := through(t, s.addr("egress")), through(t, s.addr("egress"))
		failed := 0
		for i := range 5 {
			if status(t, c1, t1) == http.StatusTooManyRequests {
				failed++
			}
			if i == 2 && status(t, c2, t2) != http.StatusOK {
				t.Error("c2 failed")
			}
		}
		if failed == 0 {
			t.Error("no request of c1 failed, so there was nothing to cure")
		}
	})
	t.Run("turns of each target: c2 does not", func(t *testing.T) {
		s := start(t, "-config", config(t, fmt.Sprintf(fiveSources, "strategy: per-target")))
		t1, t2 := newRationed(t, "127.0.3.1", time.Minute), newRationed(t, "127.0.3.2", time.Minute)
		c1, c2 := through(t, s.addr("egress")), through(t, s.addr("egress"))
		for range 5 {
			if got := status(t, c1, t1); got != http.StatusOK {
				t.Errorf("c1: status %d", got)
			}
			if got := status(t, c2, t2); got != http.StatusOK {
				t.Errorf("c2: status %d", got)
			}
		}
	})
	t.Run("spacing: faster than the site allows, and none fails", func(t *testing.T) {
		// Twice as long, so that a machine that is slow for a moment is not the site's
		// business. TestSpacing has the exact time.
		const every = 500 * time.Millisecond
		s := start(t, "-config", config(t, fmt.Sprintf(fiveSources, "spacing: 1s\n    wait: 1m")))
		t1, t2 := newRationed(t, "127.0.3.1", every), newRationed(t, "127.0.3.2", every)
		var wg sync.WaitGroup
		for _, site := range []string{t1, t1, t2} { // two clients share t1
			c := through(t, s.addr("egress"))
			for range 2 {
				wg.Go(func() {
					for range 5 {
						if got := status(t, c, site); got != http.StatusOK {
							t.Errorf("status %d", got)
						}
					}
				})
			}
		}
		wg.Wait()
	})
	t.Run("who may not wait is told when to come again", func(t *testing.T) {
		s := start(t, "-config", config(t, fmt.Sprintf(fiveSources, "spacing: 20s\n    wait: 1s")))
		t1 := newRationed(t, "127.0.3.1", 20*time.Second)
		c := through(t, s.addr("egress"))
		for range 5 {
			if got := status(t, c, t1); got != http.StatusOK {
				t.Fatalf("status %d", got)
			}
		}
		resp, err := c.Get(t1)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		after := resp.Header.Get("Retry-After")
		var seconds int
		fmt.Sscan(after, &seconds)
		if resp.StatusCode != http.StatusTooManyRequests || seconds < 1 || seconds > 21 {
			t.Errorf("got %s, Retry-After %q", resp.Status, after)
		}
		if got, want := resp.Header.Get("Proxy-Status"), "swivel; error=http_request_error"; got != want {
			t.Errorf("Proxy-Status: got %q, want %q", got, want)
		}
	})
}
