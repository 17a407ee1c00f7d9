package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// Cooldown asks for a source not to be used for a while: a scraper has seen, inside
// its own TLS, that a target refuses it.
type Cooldown struct {
	Source string   `json:"source"` // as Swivel-Source and /api/sources name it
	Pool   string   `json:"pool"`   // "" means every pool that has the source
	Target string   `json:"target"` // a name or an address; "" means every target
	For    Duration `json:"for"`    // zero ends a cooldown
}

// Duration is a time.Duration that is written as text: "10m".
type Duration time.Duration

func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).Round(time.Millisecond).String()), nil
}

func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// What State.Cool and State.Release may return.
var (
	ErrInvalid = errors.New("invalid")   // wrapped
	ErrUnknown = errors.New("not known") // wrapped
)

// Release asks for a session to end: its next request may have another source.
type Release struct {
	User    string `json:"user"` // "" when nobody logs in
	Session string `json:"session"`
	Pool    string `json:"pool"` // "" means every pool
}

func (s State) release(w http.ResponseWriter, r *http.Request) {
	var end Release
	if !read(w, r, &end) {
		return
	}
	if end.Session == "" {
		answer(w, fmt.Errorf("%w: no session (such as \"user\": \"alice\", \"session\": \"x1\")", ErrInvalid))
		return
	}
	answer(w, s.Release(end))
}

const (
	maxBody     = 16 << 10
	maxCooldown = 7 * 24 * time.Hour
)

func (s State) cooldown(w http.ResponseWriter, r *http.Request) {
	var c Cooldown
	if !read(w, r, &c) {
		return
	}
	err := c.check()
	if err == nil {
		err = s.Cool(c)
	}
	answer(w, err)
}

// answer answers a request that was to change something.
func answer(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, ErrInvalid):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, ErrUnknown):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (c *Cooldown) check() error {
	switch {
	case c.Source == "":
		return fmt.Errorf("%w: no source (such as \"source\": \"203.0.113.5\")", ErrInvalid)
	case c.For < 0, time.Duration(c.For) > maxCooldown:
		return fmt.Errorf("%w: for is 0s to %v", ErrInvalid, maxCooldown)
	}
	return nil
}

// read reads the body of a request as JSON, into v. It answers and returns false when
// that is not what the body is. What a form of a web page sends is no JSON.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" {
		http.Error(w, "want Content-Type: application/json", http.StatusUnsupportedMediaType)
		return false
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil && d.Decode(new(json.RawMessage)) != io.EOF {
		err = errors.New("more than one value")
	}
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		http.Error(w, "the body is larger than 16 KiB", http.StatusRequestEntityTooLarge)
		return false
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("no body")
	}
	if err != nil {
		http.Error(w, "not what is understood: "+err.Error(), http.StatusBadRequest)
	}
	return err == nil
}
