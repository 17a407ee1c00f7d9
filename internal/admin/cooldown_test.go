package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestCooldown(t *testing.T) {
	var asked []Cooldown
	address := serve(t, State{Cool: func(c Cooldown) error {
		asked = append(asked, c)
		switch c.Source {
		case "unknown":
			return fmt.Errorf("source %q: %w", c.Source, ErrUnknown)
		case "bug":
			return errors.New("bug")
		}
		return nil
	}}, nil)
	const kind = "Content-Type: application/json"
	for _, tt := range []struct {
		fields, body string
		want         int
	}{
		{kind, `{"source": "203.0.113.5", "target": "example.com", "for": "10m"}`, 204},
		{kind + "; charset=utf-8", `{"source":"a","for":"0s"}`, 204},
		{kind, `{"source":"a"}`, 204},
		{kind, `{"source":"unknown","for":"1s"}`, 404},
		{kind, `{"source":"bug","for":"1s"}`, 500},
		{kind, `{"for":"1s"}`, 400},
		{kind, `{"source":"a","for":"-1s"}`, 400},
		{kind, `{"source":"a","for":"200h"}`, 400},
		{kind, `{"source":"a","for":600}`, 400},
		{kind, `{"source":"a","for":"soon"}`, 400},
		{kind, `{"sauce":"a"}`, 400},
		{kind, `{"source":"a"}{}`, 400},
		{kind, `[]`, 400},
		{kind, ``, 400},
		{kind, `{"source":"` + strings.Repeat("a", maxBody) + `"}`, 413},
		{"Content-Type: text/plain", `{"source":"a"}`, 415},
		{"Content-Type: application/x-www-form-urlencoded", `source=a`, 415},
		{"X: y", `{"source":"a"}`, 415},
		{kind + "\r\nOrigin: http://site.example", `{"source":"a"}`, 403},
		{kind + "\r\nSec-Fetch-Site: same-site", `{"source":"a"}`, 403},
	} {
		status, body := request(t, address, "POST", "/api/cooldown", tt.fields, fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(tt.body), tt.body))
		if status != tt.want {
			t.Errorf("%.80s: got %d %q, want %d", tt.body, status, body, tt.want)
		}
	}
	want := []Cooldown{{Source: "203.0.113.5", Target: "example.com", For: Duration(10 * time.Minute)}, {Source: "a"}, {Source: "a"}}
	for i, w := range want {
		if asked[i] != w {
			t.Errorf("asked for %+v, want %+v", asked[i], w)
		}
	}
	if b, err := json.Marshal(Source{Cool: Duration(90*time.Second + 1)}); err != nil || !strings.Contains(string(b), `"cooldown":"1m30s"`) {
		t.Errorf("got %s, %v", b, err)
	}
}
