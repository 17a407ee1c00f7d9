package auth

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLoadRefuses(t *testing.T) {
	good := hash(t, "secret")
	cut, letters := good[:len(good)-1], good[len("$2a$04$"):]
	const (
		scheme  = "not a bcrypt hash (htpasswd -B FILE NAME writes a line that is good)"
		damaged = "a bcrypt hash that is cut off or damaged (htpasswd -B FILE NAME writes a line that is good)"
	)
	for _, tt := range []struct{ name, content, want string }{
		{"no colon", "alice:" + good + "\nhunter2hunter2\n", "FILE:2: want user:hash"},
		{"no user", ":" + good, "FILE:1: want user:hash"},
		{"no hash", "\n# c\nalice:", "FILE:3: " + scheme},
		{"plain text", "alice:hunter2hunter2", "FILE:1: " + scheme},
		{"MD5", "alice:$apr1$hunter2h$unter2hunter2hunter2ab/", "FILE:1: " + scheme},
		{"SHA-1", "alice:{SHA}hunter2hunter2hunter2hunter2=", "FILE:1: " + scheme},
		{"crypt", "alice:hunter2hunter", "FILE:1: " + scheme},
		{"$2x$, which is broken", "alice:$2x$04$" + letters, "FILE:1: " + scheme},
		{"$2$", "alice:$2$04$" + letters, "FILE:1: " + scheme},
		{"cut off", "alice:" + cut, "FILE:1: " + damaged},
		{"too long", "alice:" + good + "/", "FILE:1: " + damaged},
		{"not a letter", "alice:" + cut + "=", "FILE:1: " + damaged},
		{"a comment behind it", "alice:" + good + ":hunter2hunter2", "FILE:1: " + damaged},
		{"a cost that is no number", "alice:$2a$x4$" + letters, "FILE:1: " + damaged},
		{"a cost of hours", "alice:$2a$18$" + letters, "FILE:1: a bcrypt hash of cost 18, want 4 to 17 (htpasswd -B FILE NAME writes a line that is good)"},
		{"a cost of 3", "alice:$2a$03$" + letters, "FILE:1: " + damaged},
		{"the other way around", good + ":alice", "FILE:1: " + scheme},
		{"twice", "alice:" + good + "\nalice:" + good, "FILE:2: this user comes twice (remove one of the lines)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path)
			if err == nil {
				t.Fatal("loaded")
			}
			got := strings.ReplaceAll(err.Error(), path, "FILE")
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			for _, secret := range []string{"hunter2", letters[:20], letters[len(letters)-20:]} {
				if strings.Contains(got, secret) {
					t.Errorf("%q is in the error: %s", secret, got)
				}
			}
		})
	}
}

func TestLoadWithoutFile(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(filepath.Join(dir, "users"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "htpasswd -Bc") {
		t.Errorf("missing: %v", err)
	}
	if _, err = Load(dir); err == nil {
		t.Error("a folder was loaded")
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxSize+1); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(large); err == nil || !strings.HasSuffix(err.Error(), "larger than 16 MiB") {
		t.Errorf("large: %v", err)
	}
}

func TestEmptyFileIsNobody(t *testing.T) {
	r := newRig(t, "# nobody\n")
	r.want(t, ErrDenied, "alice", "")
	r.want(t, ErrDenied, "", "")
}

// TestFileChanges follows one file through its life.
func TestFileChanges(t *testing.T) {
	alice, bob := "alice:"+hash(t, "secret")+"\n", "bob:"+hash(t, "secret")+"\n"
	r := newRig(t, alice)
	next := func(name string, wantAlice, wantBob error, wantErr bool) {
		t.Helper()
		r.pass(10 * time.Second)
		r.wrong = failures{}
		if got := r.Verify(client, "alice", "secret"); got != wantAlice {
			t.Errorf("%s: alice: %v, want %v", name, got, wantAlice)
		}
		if got := r.Verify(client, "bob", "secret"); got != wantBob {
			t.Errorf("%s: bob: %v, want %v", name, got, wantBob)
		}
		if got := r.Err(); (got != nil) != wantErr {
			t.Errorf("%s: Err() = %v", name, got)
		} else if got != nil && strings.Contains(got.Error(), "$2a$") {
			t.Errorf("%s: Err() tells a hash: %v", name, got)
		}
	}
	next("as loaded", nil, ErrDenied, false)

	r.write(t, alice+bob)
	next("a user more", nil, nil, false)

	replace(t, r.path, bob)
	next("replaced by rename", ErrDenied, nil, false)

	r.write(t, "")
	next("truncated", ErrDenied, ErrDenied, false)

	r.write(t, alice+bob)
	next("restored", nil, nil, false)

	r.write(t, alice+bob[:20])
	next("half-written", nil, nil, true)

	replace(t, r.path, "alice:"+hash(t, "other")+"\n"+bob)
	next("a new hash", ErrDenied, nil, false)

	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	next("removed", ErrDenied, ErrDenied, true)

	if err := os.Mkdir(r.path, 0o700); err != nil {
		t.Fatal(err)
	}
	next("a folder", ErrDenied, ErrDenied, true)

	replace(t, r.path, alice)
	next("back again", nil, ErrDenied, false)
}

// A password that was right before is not paid for again because the file was
// written again, nor is one that no longer is right remembered.
func TestFileChangesKeepWhatIsRemembered(t *testing.T) {
	alice, bob := hash(t, "secret"), hash(t, "secret")
	r := newRig(t, "alice:"+alice+"\nbob:"+bob)
	r.want(t, nil, "alice", "secret")
	r.want(t, nil, "bob", "secret")

	replace(t, r.path, "alice:"+alice+"\nbob:"+hash(t, "secret")) // same password, another salt
	r.pass(checkEvery)
	r.want(t, nil, "alice", "secret")
	if got := r.paid.Load(); got != 2 {
		t.Errorf("%d bcrypts, want 2: the hash is the same", got)
	}
	r.want(t, nil, "bob", "secret")
	if got := r.paid.Load(); got != 3 {
		t.Errorf("%d bcrypts, want 3: the hash is another", got)
	}
}

func TestFileIsLookedAtOnceASecond(t *testing.T) {
	r := newRig(t, "alice:"+hash(t, "secret"))
	r.want(t, nil, "alice", "secret")
	r.write(t, "")
	r.pass(checkEvery / 2)
	r.want(t, nil, "alice", "secret")
	r.pass(checkEvery / 2)
	r.want(t, ErrDenied, "alice", "secret")
}

// A file can change twice within one step of its file system's clock, and hashes
// are all of one length.
func TestFileChangesWithoutATrace(t *testing.T) {
	r := newRig(t, "alice:"+hash(t, "secret"))
	r.want(t, nil, "alice", "secret")
	rewrite := func(password string) {
		t.Helper()
		before, err := os.Stat(r.path)
		if err != nil {
			t.Fatal(err)
		}
		r.write(t, "alice:"+hash(t, password))
		if err := os.Chtimes(r.path, before.ModTime(), before.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	rewrite("other")
	r.pass(checkEvery)
	r.want(t, nil, "alice", "other")

	r.pass(settled)
	r.want(t, nil, "alice", "other")
	was := r.table.Load()
	rewrite("third") // the control: this long after the last change it is not seen
	r.pass(checkEvery)
	r.want(t, nil, "alice", "other")
	if r.table.Load() != was {
		t.Error("a file that has not changed was read again")
	}
}

// replace does what a careful program does: it writes a new file and renames it.
func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
