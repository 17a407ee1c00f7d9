package egress_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"swivel/internal/auth"
)

// users has one, ann, whose password is the marker.
func users(t testing.TB) *auth.Users {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(marker), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("ann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := auth.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func basic(userPassword string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(userPassword))
}

const (
	missing   = "407 Proxy Authentication Required"
	challenge = `Proxy-Authenticate: Basic realm="swivel"`
)

var (
	right   = basic("ann:" + marker)
	encoded = strings.TrimPrefix(right, "Proxy-Authorization: Basic ")
)

var credentials = []struct{ name, fields, want, field string }{
	{"none", "", missing, challenge},
	{"right", right, "", ""},
	{"basic in lower case", "proxy-authorization: basic " + encoded, "", ""},
	{"two spaces", "Proxy-Authorization: Basic  " + encoded, "", ""},
	{"wrong password", basic("ann:" + marker + "x"), missing, challenge},
	{"no password", basic("ann:"), missing, challenge},
	{"no colon", basic("ann" + marker), missing, challenge},
	{"NUL behind the password", basic("ann:" + marker + "\x00"), missing, challenge},
	{"4 KiB", basic("ann:" + strings.Repeat(marker, 200)), missing, challenge},
	{"not base64", "Proxy-Authorization: Basic " + marker + "!", missing, challenge},
	{"another scheme", "Proxy-Authorization: Bearer " + encoded, missing, challenge},
	{"two", right + "\r\n" + right, "400 http_request_error bad Proxy-Authorization", ""},
	{"those of the origin", strings.TrimPrefix(right, "Proxy-"), missing, challenge},
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	for _, tt := range credentials {
		t.Run("3b/26 "+tt.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.Users = users(t) })
			o := newOrigin(t)
			fields := "Host: a\r\n"
			if tt.fields != "" {
				fields += tt.fields + "\r\n"
			}
			for _, request := range []string{
				"CONNECT " + o.String() + " HTTP/1.1\r\n",
				"GET http://" + o.String() + "/ HTTP/1.1\r\n",
			} {
				if tt.want == "" {
					wantPassed(t, r, o, request+fields+"\r\n")
					continue
				}
				want := refusal(tt.want)
				if tt.field != "" {
					want = refusal(tt.want, tt.field)
				}
				if got := r.talk(t, request+fields+"\r\n", 64<<10); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				l := r.line(t)
				if isMissing := tt.want == missing; isMissing != (l.Reason == "credentials") || l.Status == 0 {
					t.Errorf("line: %+v", l)
				}
			}
			wantNothingDone(t, r, o)
			if strings.Contains(r.log.text(), encoded) {
				t.Error("the log has the credentials")
			}
		})
	}
}

// wantPassed checks that a request reaches the origin, without its credentials.
func wantPassed(t *testing.T, r *rig, o *origin, request string) {
	t.Helper()
	c := r.dial(t)
	send(t, c, request)
	up := o.accept(t)
	up.CloseWrite()
	c.CloseWrite()
	got := readAll(t, up)
	if strings.Contains(got, "roxy-") || strings.Contains(got, "roxy-Auth") {
		t.Errorf("the origin got %q", got)
	}
	up.Close()
	readAll(t, c)
	if l := r.line(t); l.User != "ann" {
		t.Errorf("line: %+v", l)
	}
}

// Who has no credentials learns nothing of where others may go.
func TestCredentialsBeforePolicy(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.Users = users(t)
		r.Policy.Deny = rules(t, "denied.test")
	})
	for _, target := range []string{"10.1.2.3:443", "denied.test:443", "absent.test:443", r.addr, closedPort(t)} {
		want := refusal(missing, challenge)
		if got := r.talk(t, connectHead(target), 1000); got != want {
			t.Errorf("CONNECT %s: got %q", target, got)
		}
		if l := r.line(t); l.Target != target {
			t.Errorf("line: %+v", l)
		}
		if got := r.talk(t, "GET http://"+target+"/ HTTP/1.1\r\nHost: a\r\n\r\n", 1000); got != want {
			t.Errorf("GET %s: got %q", target, got)
		}
		r.line(t)
	}
	wantNothingDone(t, r, newOrigin(t))
}

// A client that goes on guessing is not listened to, whatever it says.
func TestCredentialsThrottled(t *testing.T) {
	r := newRig(t, func(r *rig) { r.Users = users(t) })
	guess := "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n" + basic("ann:guess") + "\r\n\r\n"
	want := refusal("429 http_request_error too many wrong passwords", "Retry-After: 60")
	for range 100 {
		got := r.talk(t, guess, 1000)
		if got == want {
			if got := r.talk(t, "\x05\x01\x02\x01\x03ann\x01x", 1000); got != "\x05\x02\x01\x01" {
				t.Errorf("SOCKS5: got %q", got)
			}
			return
		}
		if got != refusal(missing, challenge) {
			t.Fatalf("got %q", got)
		}
	}
	t.Error("100 guesses were judged")
}
