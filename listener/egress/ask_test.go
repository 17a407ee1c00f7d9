package egress

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"swivel/rotate"
)

func TestReadAsk(t *testing.T) {
	d := &Door{Pools: map[string]*rotate.Pool{"main": new(rotate.Pool), "eu": new(rotate.Pool), "eu-west": new(rotate.Pool), "session": new(rotate.Pool)}}
	country := func(c string) rotate.Want { return rotate.Want{Label: "country", Values: []string{c}} }
	for _, tt := range []struct {
		text string
		want ask
		err  string
	}{
		{"", ask{}, ""},
		{"-session-abc", ask{session: "abc"}, ""},
		{"-session-abc-sesstime-10", ask{session: "abc", time: 10 * time.Minute}, ""},
		{"-sesstime-90s-session-abc", ask{session: "abc", time: 90 * time.Second}, ""},
		{"-session-abc-sesstime-1h30m", ask{session: "abc", time: 90 * time.Minute}, ""},
		{"-country-de", ask{wants: []rotate.Want{country("de")}}, ""},
		{"-label-line-b-country-DE-label-city-Bonn", ask{wants: []rotate.Want{
			{Label: "line", Values: []string{"b"}}, country("DE"), {Label: "city", Values: []string{"Bonn"}}}}, ""},
		{"-pool-main", ask{pool: "main"}, ""},
		{"-pool-eu-west-country-de", ask{pool: "eu-west", wants: []rotate.Want{country("de")}}, ""},
		{"-pool-eu-session-1", ask{pool: "eu", session: "1"}, ""},
		{"-pool-session-session-session", ask{pool: "session", session: "session"}, ""},
		{"-source-203.0.113.5", ask{source: netip.MustParseAddr("203.0.113.5")}, ""},
		{"-source-2001:db8::1", ask{source: netip.MustParseAddr("2001:db8::1")}, ""},
		{"-source-2001_db8__1", ask{source: netip.MustParseAddr("2001:db8::1")}, ""},
		{"-source-__ffff_192.0.2.1", ask{source: netip.MustParseAddr("192.0.2.1")}, ""},

		{"-sesion-abc", ask{}, "bad user name: sesion: unknown key"},
		{"-session-abc-city-bonn", ask{}, "bad user name: city: unknown key"},
		{"-", ask{}, "bad user name: a key: unknown key"},
		{"--session-abc", ask{}, "bad user name: a key: unknown key"},
		{"-\r\nX: y-1", ask{}, "bad user name: a key: unknown key"},
		{"-" + strings.Repeat("k", 33), ask{}, "bad user name: a key: unknown key"},
		{"-session", ask{}, "bad user name: session: no value"},
		{"-session-", ask{}, "bad user name: session: no value"},
		{"-session--country-de", ask{}, "bad user name: session: no value"},
		{"-session-" + strings.Repeat("x", 65), ask{}, "bad user name: session: bad value"},
		{"-session-a-session-b", ask{}, "bad user name: session comes twice"},
		{"-sesstime-10", ask{}, "bad user name: sesstime without session"},
		{"-session-a-sesstime-0", ask{}, "bad user name: sesstime: bad value"},
		{"-session-a-sesstime-x", ask{}, "bad user name: sesstime: bad value"},
		{"-session-a-sesstime-1441", ask{}, "bad user name: sesstime: bad value"},
		{"-session-a-sesstime-999999999999", ask{}, "bad user name: sesstime: bad value"},
		{"-label-line", ask{}, "bad user name: label: no value"},
		{"-pool-other", ask{}, "bad user name: pool: no such pool"},
		{"-pool", ask{}, "bad user name: pool: no value"},
		{"-source-203.0.113", ask{}, "bad user name: source: bad value"},
		{"-source-fe80__1%eth0", ask{}, "bad user name: source: bad value"},
	} {
		got, err := d.readAsk(tt.text)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if !reflect.DeepEqual(got, tt.want) || text != tt.err {
			t.Errorf("%q: got %+v, %q, want %+v, %q", tt.text, got, text, tt.want, tt.err)
		}
	}
}

func TestRights(t *testing.T) {
	all := "-session-a-country-de-label-line-b-pool-main"
	d := &Door{Pools: map[string]*rotate.Pool{"main": new(rotate.Pool), "other": new(rotate.Pool)}}
	few := []Rights{
		{Users: []string{"ann"}, Ask: Asks, Pools: []string{"other"}},
		{Users: []string{"bob", "ann"}, Ask: []string{"session", "pool"}},
	}
	open := append(few[:2:2], Rights{Ask: []string{"country"}})
	for _, tt := range []struct {
		rights     []Rights
		user, text string
		want       string
	}{
		{nil, "ann", all, ""},
		{nil, "ann", "-source-10.0.0.1", "source may not be asked for"},
		{few, "ann", "-source-10.0.0.1-pool-other", ""},
		{few, "ann", "-pool-main", "this pool may not be asked for"},
		{few, "bob", "-session-a-pool-main", ""},
		{few, "bob", "-country-de", "country may not be asked for"},
		{few, "bob", "-label-line-a", "label may not be asked for"},
		{few, "eve", "-session-a", "session may not be asked for"},
		{few, "eve", "", ""},
		{open, "eve", "-country-de", ""},
		{[]Rights{}, "ann", "-session-a", "session may not be asked for"},
	} {
		d.Rights = tt.rights
		a, err := d.readAsk(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := d.check(tt.user, &a); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s%s: got %q, want %q", tt.user, tt.text, got, tt.want)
		}
	}
}

// FuzzAsk: whatever a user name asks for, the answer is one line of printable text,
// and what is understood can be said again.
func FuzzAsk(f *testing.F) {
	for _, s := range []string{"", "-session-abc-sesstime-10", "-country-de-pool-eu-west", "-label-a-b", "-source-2001_db8__1", "-\r\n-", "-sesion-x"} {
		f.Add(s)
	}
	d := &Door{Pools: map[string]*rotate.Pool{"main": new(rotate.Pool), "eu-west": new(rotate.Pool)}}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := d.readAsk(text)
		if err != nil {
			for _, c := range []byte(explain(err).phrase()) {
				if c < ' ' || c > '~' {
					t.Fatalf("%q: answer %q", text, explain(err).phrase())
				}
			}
			return
		}
		if text != "" && text[0] == '-' && reflect.DeepEqual(a, ask{}) {
			t.Errorf("%q asks for nothing", text)
		}
	})
}
