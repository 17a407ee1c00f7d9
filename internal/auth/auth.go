// Package auth knows who may log in to a listener: the users of an htpasswd file
// with bcrypt hashes.
//
// The file may change while it is in use. A password that was right once is
// remembered, so that bcrypt, slow by design, is paid at the first login and not
// for every connection; wrong ones are paid for, few at a time, and a client that
// is wrong too often is not listened to for a while.
//
// It knows no hash but bcrypt, and no rights: a user may log in, or not.
package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

var (
	// ErrDenied means that there is no such user, or not with this password.
	ErrDenied = errors.New("wrong user or password")

	// ErrThrottled means that the password was not looked at: the client was wrong
	// too often, or too many logins are waiting.
	ErrThrottled = errors.New("too many logins")
)

const (
	checkEvery  = time.Second      // how often the file is looked at
	maxWait     = 10 * time.Second // for a turn at bcrypt
	maxPassword = 72               // bytes; bcrypt ignores the rest
	maxUser     = 1024             // bytes, with what follows the user's name
)

// Users are the users of one file. Its methods may be called by several goroutines
// at once.
type Users struct {
	path    string
	key     []byte        // of the MACs of the passwords that are remembered
	turns   chan struct{} // holds one token for each bcrypt that is running
	wrong   failures
	table   atomic.Pointer[table]
	now     func() time.Time
	compare func(hash, password []byte) error // bcrypt

	mu      sync.Mutex  // guards what follows: the state of the file
	checked time.Time   // when it was last looked at
	info    os.FileInfo // of what was last read; nil means that is to be read again
	err     error       // what is wrong with it
}

// Load reads the file at path. An empty file is no error: it has no users, and
// nobody can log in. The error names the line that is malformed, and never what
// stands in it.
func Load(path string) (*Users, error) {
	u := &Users{
		path:    path,
		key:     make([]byte, sha256.Size),
		turns:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		now:     time.Now,
		compare: bcrypt.CompareHashAndPassword,
	}
	rand.Read(u.key)
	u.table.Store(&table{})
	u.refresh()
	if errors.Is(u.err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (htpasswd -Bc %s NAME makes it)", u.err, path)
	}
	if u.err != nil {
		return nil, u.err
	}
	return u, nil
}

// Reload reads the file again now, and not when Verify comes to it. Passwords that
// are remembered stay so while their hashes are the same. Its error is Err's.
func (u *Users) Reload() error {
	u.mu.Lock()
	u.checked, u.info = time.Time{}, nil
	u.mu.Unlock()
	u.refresh()
	return u.Err()
}

// Err returns what was wrong with the file when it was last looked at, which
// Verify does. While the file is gone nobody can log in; while it cannot be read or
// is malformed, those can whom it had before.
func (u *Users) Err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// Longest returns the longest user whose name is all of name, or the beginning of it
// with a hyphen behind; name itself when there is none.
func (u *Users) Longest(name string) string {
	if len(name) > maxUser {
		return name
	}
	u.refresh()
	accounts := u.table.Load().accounts
	for end := len(name); end >= 0; end = strings.LastIndexByte(name[:end], '-') {
		if accounts[name[:end]] != nil {
			return name[:end]
		}
	}
	return name
}

// Verify returns nil when user may log in with password, else ErrDenied or
// ErrThrottled. It may take as long as bcrypt takes, and, before that, 10 seconds
// while others are having their turn at it.
func (u *Users) Verify(client netip.Addr, user, password string) error {
	u.refresh()
	mac := u.mac(password)
	if u.table.Load().remembers(user, mac) {
		return nil
	}
	if u.wrong.tooMany(client, u.now()) {
		return ErrThrottled
	}
	if len(password) > maxPassword || strings.Contains(password, "\x00") {
		u.wrong.add(client, u.now())
		return ErrDenied
	}
	return u.login(client, user, password, mac)
}

// login pays for bcrypt, in turn.
func (u *Users) login(client netip.Addr, user, password string, mac []byte) error {
	select {
	case u.turns <- struct{}{}:
	case <-time.After(maxWait):
		return ErrThrottled
	}
	defer func() { <-u.turns }()

	// While this login was waiting, the same one may have succeeded, or others of
	// this client have failed. Clients start with many connections at once.
	t := u.table.Load()
	if t.remembers(user, mac) {
		return nil
	}
	if u.wrong.tooMany(client, u.now()) {
		return ErrThrottled
	}
	hash, known := t.dummy, false
	acct := t.accounts[user]
	if acct != nil {
		hash, known = acct.hash, true
	}
	if err := u.compare(hash, []byte(password)); err != nil || !known {
		u.wrong.add(client, u.now())
		return ErrDenied
	}
	acct.mac.Store(&mac)
	return nil
}

// mac is what is kept of a password.
func (u *Users) mac(password string) []byte {
	h := hmac.New(sha256.New, u.key)
	h.Write([]byte(password))
	return h.Sum(nil)
}
