package egress_test

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"swivel/relay"
)

func upgradeRequest(o *origin) string {
	return "GET http://" + o.String() + "/chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n"
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: Echo\r\n\r\n"

// upgrade makes a tunnel by an upgrade, in which both sides speak at once.
func (r *rig) upgrade(t testing.TB, o *origin, c net.Conn) (upstream *net.TCPConn) {
	t.Helper()
	send(t, c, upgradeRequest(o)+"early from the client")
	up := o.accept(t)
	got := fieldLines(readHead(t, up))
	want := []string{"GET /chat HTTP/1.1", "Connection: Upgrade", "Host: " + o.String(), "Upgrade: echo"}
	if !slices.Equal(got, want) {
		t.Errorf("origin got %q, want %q", got, want)
	}
	send(t, up, switching+"early from the origin")
	got = fieldLines(readHead(t, c))
	want = []string{"HTTP/1.1 101 Switching Protocols", "Connection: Upgrade",
		`Proxy-Status: swivel; next-hop="` + o.String() + `"`, "Swivel-Source: ", "Upgrade: Echo"}
	if len(got) == len(want) && strings.HasPrefix(got[3], want[3]) {
		want[3] = got[3]
	}
	if !slices.Equal(got, want) {
		t.Errorf("client got %q, want %q", got, want)
	}
	wantText(t, c, "early from the origin")
	wantText(t, up, "early from the client")
	return up
}

func TestUpgrade(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	message := random(300_000)
	t.Run("client half-closes first", func(t *testing.T) {
		c := r.dial(t)
		up := r.upgrade(t, o, c)
		go func() { // ends when all of it is read
			c.Write(message)
			c.CloseWrite()
		}()
		wantSum(t, up, message)
		send(t, up, "answer")
		up.Close()
		wantText(t, c, "answer")
		wantEnd(t, c)
		l := r.line(t)
		if l.Reason != "client-closed" || l.Status != 101 || l.Mode != "http" || l.Up < int64(len(message)) || l.Down < int64(len("answer")) {
			t.Errorf("line: %+v", l)
		}
	})
	t.Run("origin half-closes first", func(t *testing.T) {
		c := r.dial(t)
		up := r.upgrade(t, o, c)
		go func() { // ends when all of it is read
			up.Write(message)
			up.CloseWrite()
		}()
		wantSum(t, c, message)
		send(t, c, "answer")
		c.Close()
		wantText(t, up, "answer")
		wantEnd(t, up)
		if l := r.line(t); l.Reason != "upstream-closed" {
			t.Errorf("line: %+v", l)
		}
	})
}

// A tunnel that was cut looks cut.
func TestUpgradeCut(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	t.Run("origin resets", func(t *testing.T) {
		c := r.dial(t)
		up := r.upgrade(t, o, c)
		send(t, up, "last words")
		wantText(t, c, "last words")
		reset(up)
		wantReset(t, c)
		if l := r.line(t); l.Reason != "upstream-reset" {
			t.Errorf("line: %+v", l)
		}
	})
	t.Run("client resets", func(t *testing.T) {
		c := r.dial(t)
		up := r.upgrade(t, o, c)
		reset(c)
		wantReset(t, up)
		if l := r.line(t); l.Reason != "client-reset" {
			t.Errorf("line: %+v", l)
		}
	})
	t.Run("killed", func(t *testing.T) {
		c := r.dial(t)
		up := r.upgrade(t, o, c)
		r.table.End(relay.Killed)
		wantReset(t, c)
		wantReset(t, up)
		if l := r.line(t); l.Reason != "killed" {
			t.Errorf("line: %+v", l)
		}
	})
}

func TestUpgradeLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want  relay.Reason
		limit relay.Limits
	}{
		{relay.Idle, relay.Limits{Idle: 500 * time.Millisecond}},
		{relay.Lifetime, relay.Limits{Lifetime: 500 * time.Millisecond}},
	} {
		t.Run(string(tt.want), func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.Limits = tt.limit })
			o := newOrigin(t)
			c := r.dial(t)
			up := r.upgrade(t, o, c)
			wantReset(t, c)
			wantReset(t, up)
			if l := r.line(t); l.Reason != string(tt.want) || l.Error != "" {
				t.Errorf("line: %+v", l)
			}
		})
	}
}

// What follows a body would have to be told from it: no upgrade is asked for.
func TestUpgradeWithBody(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	c := r.dial(t)
	send(t, c, strings.Replace(upgradeRequest(o), "Host: a\r\n", "Host: a\r\nContent-Length: 4\r\n", 1)+"body")
	up := o.accept(t)
	if head := readHead(t, up); strings.Contains(head, "pgrade") {
		t.Errorf("origin got %q", head)
	}
	wantText(t, up, "body")
	send(t, up, switching)
	if got, want := readAll(t, c), refusal("502 http_protocol_error"); got != want {
		t.Errorf("got %q", got)
	}
	c.Close()
	r.line(t)
}

// Another protocol than the one asked for is no agreement.
func TestUpgradeToAnother(t *testing.T) {
	r := newRig(t, nil)
	o := newOrigin(t)
	c := r.dial(t)
	send(t, c, upgradeRequest(o))
	up := o.accept(t)
	readHead(t, up)
	io.WriteString(up, strings.Replace(switching, "Echo", "other", 1))
	if got, want := readAll(t, c), refusal("502 http_protocol_error"); got != want {
		t.Errorf("got %q", got)
	}
	c.Close()
	if l := r.line(t); l.Status != 502 {
		t.Errorf("line: %+v", l)
	}
}
