package auth

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	maxSize = 16 << 20 // bytes of the file

	// settled is the age from which a file is believed not to change again without
	// a new time of modification: file systems count in steps of up to 2 seconds,
	// and hashes are all of one length.
	settled = 3 * time.Second
)

// table is the content of a file; only what is remembered of it is written to.
type table struct {
	accounts map[string]*account
	dummy    []byte // a hash for users that do not exist, as expensive as the most expensive one
}

type account struct {
	hash []byte
	mac  atomic.Pointer[[]byte] // of the password, once it was right
}

// remembers reports whether user has logged in before with the password of mac.
func (t *table) remembers(user string, mac []byte) bool {
	acct := t.accounts[user]
	if acct == nil {
		return false
	}
	right := acct.mac.Load()
	return right != nil && hmac.Equal(*right, mac)
}

// refresh looks at the file, once a second, and reads it when it has changed.
func (u *Users) refresh() {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	if !u.checked.IsZero() && now.Sub(u.checked) < checkEvery {
		return
	}
	u.checked = now
	info, err := os.Stat(u.path)
	if err == nil && u.info != nil && os.SameFile(info, u.info) && info.Size() == u.info.Size() && info.ModTime().Equal(u.info.ModTime()) {
		return
	}
	u.reread(now)
}

// reread replaces the table. It keeps the old one when the file cannot be read,
// which may be no more than a lack of descriptors, or is malformed.
func (u *Users) reread(now time.Time) {
	u.info = nil
	data, info, err := read(u.path)
	if err == nil {
		if now.Sub(info.ModTime()).Abs() > settled {
			u.info = info
		}
		var t *table
		if t, err = parse(u.path, data); err == nil {
			t.keep(u.table.Load())
			u.table.Store(t)
		}
	} else if errors.Is(err, fs.ErrNotExist) {
		u.table.Store(&table{})
	}
	u.err = err
}

// read returns the content of the file and what it was like when it was opened.
func read(path string) ([]byte, os.FileInfo, error) {
	// Not os.Open at once, because opening a FIFO waits for its writer.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: not a file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%s: larger than 16 MiB", path)
	}
	return data, info, err
}

// parse reads lines of user:hash. Empty lines and comments are skipped.
func parse(path string, data []byte) (*table, error) {
	t := &table{accounts: make(map[string]*account)}
	highest, n := minCost, 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimRight(line, "\r\n \t")
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		user, hash, found := bytes.Cut(line, []byte(":"))
		cost, err := costOf(hash)
		switch {
		case len(user) == 0 || !found:
			err = errors.New("want user:hash")
		case t.accounts[string(user)] != nil:
			err = errors.New("this user comes twice (remove one of the lines)")
		case err != nil:
			err = fmt.Errorf("%w (htpasswd -B %s NAME writes a line that is good)", err, path)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		highest = max(highest, cost)
		t.accounts[string(user)] = &account{hash: bytes.Clone(hash)}
	}
	t.dummy = fmt.Appendf(nil, "$2a$%02d$%s", highest, strings.Repeat(".", lenSaltSum))
	return t, nil
}

// keep takes over what old remembers of those whose hash is the same.
func (t *table) keep(old *table) {
	for user, acct := range t.accounts {
		if was := old.accounts[user]; was != nil && bytes.Equal(was.hash, acct.hash) {
			acct.mac.Store(was.mac.Load())
		}
	}
}

// A hash is $2y$, a cost of two digits, $, and 53 letters of salt and sum. The
// costs are those that htpasswd -C takes. Each takes twice as long as the one
// before, and 17 already seconds.
const (
	minCost, maxCost = 4, 17
	lenSaltSum       = 53
	lenHash          = len("$2y$10$") + lenSaltSum
)

var errScheme = errors.New("not a bcrypt hash")

// costOf returns the cost of a hash that bcrypt can compare with.
func costOf(hash []byte) (int, error) {
	s := string(hash)
	if !strings.HasPrefix(s, "$2a$") && !strings.HasPrefix(s, "$2b$") && !strings.HasPrefix(s, "$2y$") {
		return 0, errScheme
	}
	c, err := bcrypt.Cost(hash)
	switch {
	case err != nil || len(hash) != lenHash || strings.Trim(s[lenHash-lenSaltSum:], alphabet) != "":
		return 0, errors.New("a bcrypt hash that is cut off or damaged")
	case c < minCost || c > maxCost:
		return 0, fmt.Errorf("a bcrypt hash of cost %d, want %d to %d", c, minCost, maxCost)
	}
	return c, nil
}

const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
