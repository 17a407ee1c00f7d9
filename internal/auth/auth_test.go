package auth

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var client = netip.MustParseAddr("192.0.2.1")

// rig is a users file with a clock that stands still and a count of what was paid.
type rig struct {
	*Users
	path    string
	ahead   atomic.Int64 // of the clock the test began with
	paid    atomic.Int64 // bcrypts
	running atomic.Int64
	most    atomic.Int64 // running at once
	costs   chan int     // of the hashes that were compared with
}

func newRig(t *testing.T, content string) *rig {
	t.Helper()
	r := &rig{path: filepath.Join(t.TempDir(), "users"), costs: make(chan int, 1000)}
	r.write(t, content)
	u, err := Load(r.path)
	if err != nil {
		t.Fatal(err)
	}
	r.Users = u
	start := time.Now()
	u.now = func() time.Time { return start.Add(time.Duration(r.ahead.Load())) }
	u.compare = func(hash, password []byte) error {
		r.paid.Add(1)
		for n := r.running.Add(1); ; {
			if most := r.most.Load(); n <= most || r.most.CompareAndSwap(most, n) {
				break
			}
		}
		defer r.running.Add(-1)
		if c, err := bcrypt.Cost(hash); err == nil {
			r.costs <- c
		}
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	return r
}

func (r *rig) write(t *testing.T, content string) {
	t.Helper()
	if err := os.WriteFile(r.path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// pass lets time pass, at least so much that the next Verify looks at the file.
func (r *rig) pass(d time.Duration) { r.ahead.Add(int64(d)) }

func (r *rig) want(t *testing.T, want error, user, password string) {
	t.Helper()
	if got := r.Verify(client, user, password); got != want {
		t.Errorf("Verify(%s, %s) = %v, want %v", user, password, got, want)
	}
}

func hash(t testing.TB, password string) string {
	t.Helper()
	return hashOf(t, password, bcrypt.MinCost)
}

func hashOf(t testing.TB, password string, cost int) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func TestVerify(t *testing.T) {
	long := strings.Repeat("p", maxPassword)
	y := strings.Replace(hash(t, "yankee"), "$2a$", "$2y$", 1)
	b := strings.Replace(hash(t, "bravo"), "$2a$", "$2b$", 1)
	r := newRig(t, "# users\n\nalice:"+hash(t, "secret")+"\r\nyves:"+y+"\nbob:"+b+
		"\nlong:"+hash(t, long)+"\nshort:"+hash(t, long[1:])+"\nempty:"+hash(t, "")+"\nzero:"+hash(t, "a"))
	for _, tt := range []struct {
		name, user, password string
		want                 error
	}{
		{"right", "alice", "secret", nil},
		{"right, $2y$", "yves", "yankee", nil},
		{"right, $2b$", "bob", "bravo", nil},
		{"3b/26 wrong", "alice", "Secret", ErrDenied},
		{"3b/26 empty", "alice", "", ErrDenied},
		{"3b/26 another's", "alice", "bravo", ErrDenied},
		{"3b/26 unknown user", "Alice", "secret", ErrDenied},
		{"3b/26 no user", "", "", ErrDenied},
		{"3b/26 a comment is no user", "# users", "", ErrDenied},
		{"3b/26 NUL behind the password", "zero", "a\x00b", ErrDenied},
		{"3b/26 NUL", "alice", "secret\x00", ErrDenied},
		{"71 bytes", "short", long[1:], nil},
		{"72 bytes", "long", long, nil},
		{"3b/26 73 bytes, 72 of them right", "long", long + "x", ErrDenied},
		{"3b/26 4 KiB", "alice", strings.Repeat("s", 4096), ErrDenied},
		{"an empty password is one, too", "empty", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.wrong = failures{}
			for range 2 { // remembered or not
				r.want(t, tt.want, tt.user, tt.password)
			}
		})
	}
}

func TestVerifyRemembers(t *testing.T) {
	r := newRig(t, "alice:"+hash(t, "secret")+"\nbob:"+hash(t, "secret"))
	for range 100 {
		r.want(t, nil, "alice", "secret")
	}
	if got := r.paid.Load(); got != 1 {
		t.Errorf("100 logins paid for %d bcrypts, want 1", got)
	}
	r.want(t, nil, "bob", "secret")
	if got := r.paid.Load(); got != 2 {
		t.Errorf("the password of another user was remembered: %d bcrypts, want 2", got)
	}
	for range 3 {
		r.want(t, ErrDenied, "alice", "wrong")
	}
	if got := r.paid.Load(); got != 5 {
		t.Errorf("a wrong password was remembered: %d bcrypts, want 5", got)
	}
}

// Who measures the time of an answer must not learn which users there are.
func TestVerifyUnknownUserCostsTheSame(t *testing.T) {
	r := newRig(t, "alice:"+hash(t, "secret")+"\nbob:"+hashOf(t, "secret", 5)+"\ncarol:"+hash(t, "secret"))
	r.want(t, ErrDenied, "nobody", "secret")
	if len(r.costs) != 1 {
		t.Fatalf("%d bcrypts, want 1", len(r.costs))
	}
	if got := <-r.costs; got != 5 {
		t.Errorf("cost %d, want 5", got)
	}
}

func TestVerifyFirstLoginsAtOnce(t *testing.T) {
	r := newRig(t, "alice:"+hash(t, "secret"))
	var logins sync.WaitGroup
	for range 200 {
		logins.Go(func() { r.want(t, nil, "alice", "secret") })
	}
	logins.Wait()
	if got, want := r.paid.Load(), int64(cap(r.turns)); got > want {
		t.Errorf("200 logins at once paid for %d bcrypts, want %d at most", got, want)
	}
}

func TestVerifyWrongPasswordsAtOnce(t *testing.T) {
	r := newRig(t, "alice:"+hash(t, "secret"))
	var throttled atomic.Int64
	var logins sync.WaitGroup
	for range 200 {
		logins.Go(func() {
			switch err := r.Verify(client, "alice", "wrong"); err {
			case ErrThrottled:
				throttled.Add(1)
			case ErrDenied:
			default:
				t.Error(err)
			}
		})
	}
	logins.Wait()
	turns := int64(cap(r.turns))
	if got := r.most.Load(); got > turns {
		t.Errorf("%d bcrypts at once, want %d at most", got, turns)
	}
	if got, want := r.paid.Load(), maxFailures+turns-1; got > want {
		t.Errorf("one client had %d bcrypts, want %d at most", got, want)
	}
	if got := throttled.Load() + r.paid.Load(); got != 200 {
		t.Errorf("%d of 200 were throttled or paid for", got)
	}
}

func TestVerifyThrottles(t *testing.T) {
	r := newRig(t, "alice:"+hash(t, "secret")+"\nbob:"+hash(t, "secret"))
	r.want(t, nil, "alice", "secret")
	for range maxFailures {
		r.want(t, ErrDenied, "bob", "wrong")
	}
	paid := r.paid.Load()
	r.want(t, ErrThrottled, "bob", "wrong")
	r.want(t, ErrThrottled, "bob", "secret")
	r.want(t, ErrThrottled, "bob", "a\x00")
	r.want(t, nil, "alice", "secret") // remembered
	if got := r.paid.Load() - paid; got != 0 {
		t.Errorf("a throttled client had %d bcrypts", got)
	}
	if err := r.Verify(netip.MustParseAddr("192.0.2.2"), "alice", "secret"); err != nil {
		t.Errorf("another client: %v", err)
	}
	r.pass(window - 1)
	r.want(t, ErrThrottled, "bob", "secret")
	r.pass(1)
	r.want(t, nil, "bob", "secret")
}

func TestVerifyWaitsNotForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte("alice:"+hash(t, "secret")), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		u, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		for range cap(u.turns) {
			u.turns <- struct{}{}
		}
		start := time.Now()
		if err := u.Verify(client, "alice", "secret"); err != ErrThrottled {
			t.Errorf("got %v, want %v", err, ErrThrottled)
		}
		if took := time.Since(start); took != maxWait {
			t.Errorf("waited %v, want %v", took, maxWait)
		}
		<-u.turns
		if err := u.Verify(client, "alice", "secret"); err != nil {
			t.Errorf("with a turn: %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	path := filepath.Join(b.TempDir(), "users")
	if err := os.WriteFile(path, []byte("alice:"+hash(b, "secret")), 0o600); err != nil {
		b.Fatal(err)
	}
	u, err := Load(path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := u.Verify(client, "alice", "secret"); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLongest(t *testing.T) {
	h := hash(t, "secret")
	u := newRig(t, "ann:"+h+"\nann-lee:"+h+"\n-:"+h+"\n")
	for name, want := range map[string]string{
		"ann":                                "ann",
		"ann-session-1":                      "ann",
		"ann-lee":                            "ann-lee",
		"ann-lee-session-1":                  "ann-lee",
		"ann-leeway":                         "ann",
		"annie":                              "annie",
		"bob-session-1":                      "bob-session-1",
		"":                                   "",
		"-":                                  "-",
		"--x":                                "-",
		"-x":                                 "-x",
		"ann" + strings.Repeat("-", maxUser): "ann" + strings.Repeat("-", maxUser),
	} {
		if got := u.Longest(name); got != want {
			t.Errorf("%.40q: got %.40q, want %.40q", name, got, want)
		}
	}
}
