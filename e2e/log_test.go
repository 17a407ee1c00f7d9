//go:build linux

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fields are those of the access line in the design: others parse them.
var fields = []string{
	"listener", "mode", "client", "user", "session", "target", "address", "source",
	"attempts", "dns_ms", "connect_ms", "up", "down", "took", "reason",
}

// TestAccessLine: exactly one line a connection, of plain HTTP one a request, with
// every field.
func TestAccessLine(t *testing.T) {
	s := startProxy(t)
	proxy, echo, plain := s.addr("egress"), newEcho(t, nil), newOrigin(t, nil)
	upload := filepath.Join(t.TempDir(), "upload")
	write(t, upload, strings.Repeat("x", 100_000))
	for _, tt := range []struct {
		what  func()
		lines int
		want  string  // "mode reason status target"
		up    float64 // how much at least, from clients that were served
	}{
		{func() { visit(proxy, echo) }, 1, "connect client-closed 200 " + echo, 5},
		{func() { curl(t, "-x", "socks5h://"+proxy, plain.url) }, 1, "socks5 client-closed 0 " + plain.addr, 50},
		{func() { curl(t, "-x", proxy, plain.url, plain.url) }, 2, "http done 200 " + plain.addr, 50},
		{func() { curl(t, "-x", proxy, "--data-binary", "@"+upload, plain.url) }, 1, "http done 200 " + plain.addr, 100_000},
		{func() { say(t, proxy, "CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: a\r\n\r\n") }, 1, "connect destination_ip_prohibited 403 10.0.0.1:443", 0},
		{func() { say(t, proxy, "CONNECT 127.0.0.1:1 HTTP/1.0\r\n\r\n") }, 1, "connect connection_refused 502 127.0.0.1:1", 0},
		{func() { say(t, proxy, "FETCH http://a/ HTTP/1.1\r\nHost: a\r\n\r\n") }, 1, "", 0},
		{func() { say(t, proxy, "SSH-2.0-x\r\n") }, 1, " wrong-protocol 0 ", 0},
		{func() { dial(t, proxy).Close() }, 1, " no-request 0 ", 0},
	} {
		n := len(s.lines())
		tt.what()
		for _, e := range s.linesAfter(n, tt.lines, closed) {
			for _, f := range fields {
				if _, ok := e[f]; !ok {
					t.Errorf("%v: no field %s", e, f)
				}
			}
			got := fmt.Sprintf("%v %v %v %v", e["mode"], e["reason"], e["status"], e["target"])
			if tt.want != "" && got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			checkServed(t, e, tt.up)
		}
	}
	s.stop()
	if got := len(s.linesAfter(0, 10, closed)); got != 10 {
		t.Errorf("%d lines, want 10", got)
	}
}

// checkServed checks the line of a client that was served, having sent at least up.
func checkServed(t *testing.T, e entry, up float64) {
	t.Helper()
	if up == 0 {
		return
	}
	if got, _ := e["up"].(float64); got < up || e["down"] == 0.0 {
		t.Errorf("%v up and %v down, want at least %v and 1: %v", e["up"], e["down"], up, e)
	}
	if e.text("source") == "" || e["attempts"] != 1.0 {
		t.Errorf("%v: want a source and one attempt", e)
	}
}

// say sends text and returns all that comes back.
func say(t testing.TB, address, text string) string {
	t.Helper()
	c := dial(t, address)
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// hostile is what a peer might put on a line.
const hostile = "a\r\n{\"message\":\"closed\"}\x1b[2J\"\\\x00\u2028é"

// TestLogInjection is L3, with both formats, and nothing secret is in them.
func TestLogInjection(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			file, err := os.Create(t.TempDir() + "/log")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			at := unused()
			cmd := command(t, "-listen", at, "-users", usersFile(t, "alice"), "-log-format", format, "-log-level", "debug")
			s := launchSilent(t, cmd, file, at)
			requests := []string{
				"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: a\r\n" + basic(hostile, "wrong-password") + "\r\n\r\n",
				"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: a\r\n" + basic("alice", "alice-secret") + "\r\n\r\n",
				"CONNECT a\"\x1b[2J\\:1 HTTP/1.1\r\nHost: a\r\n" + basic("alice", "alice-secret") + "\r\n\r\n",
				"GET http://a\"{}:1/ HTTP/1.1\r\nHost: a\r\n" + basic("alice", "alice-secret") + "\r\n\r\n",
				"\x05\x01\x02\x01" + string(byte(len(hostile))) + hostile + "\x0ewrong-password",
			}
			for _, r := range requests {
				say(t, at, r)
			}
			s.stop()
			text, err := os.ReadFile(file.Name())
			if err != nil {
				t.Fatal(err)
			}
			checkLog(t, string(text), format, len(requests)+1) // and that of launchSilent
		})
	}
}

func checkLog(t *testing.T, text, format string, want int) {
	t.Helper()
	lines := 0
	for line := range strings.Lines(text) {
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("raw bytes on line %q", line)
		}
		if format == "json" && !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %q", line)
		}
		if strings.Contains(line, "client=127.") || strings.Contains(line, `"client":"127.`) {
			lines++
		}
	}
	if lines != want {
		t.Errorf("%d access lines, want %d:\n%s", lines, want, text)
	}
	for _, secret := range []string{"alice-secret", "wrong-password", basic("alice", "alice-secret")[30:]} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

func basic(user, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// launchSilent starts a swivel whose log is not read here, and waits until it
// listens on at. To find out, it connects once.
func launchSilent(t *testing.T, cmd *exec.Cmd, stdout *os.File, at string) *swivel {
	t.Helper()
	s := &swivel{t: t, cmd: cmd, exited: make(chan struct{}), news: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = stdout, &s.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.read(strings.NewReader("")) // until the process has ended
	t.Cleanup(s.kill)
	eventually(t, "nobody listens", func() bool { return !refuses(at) })
	return s
}

// TestLogTrouble is L1 and L2: whatever becomes of the log, clients are served, and
// SIGTERM ends swivel as ever.
func TestLogTrouble(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for name, open := range map[string]func() (reader, stdout *os.File){
		"full":   func() (*os.File, *os.File) { return nil, full },
		"closed": func() (*os.File, *os.File) { r, w := pipe(t); r.Close(); return nil, w },
		"stuck":  func() (*os.File, *os.File) { _, w := pipe(t); return nil, w },
		"late":   func() (*os.File, *os.File) { return pipe(t) },
	} {
		t.Run(name, func(t *testing.T) {
			reader, stdout := open()
			at, echo := unused(), newEcho(t, nil)
			alice := basic("alice", "alice-secret")
			args := append([]string{"-listen", at, "-users", usersFile(t, "alice")}, viaLoopback...)
			s := launchSilent(t, command(t, args...), stdout, at)
			held := tunnel(t, at, echo, alice)
			flood(t, at)
			alive(t, held)
			late := tunnel(t, at, echo, alice)
			alive(t, late)
			if reader != nil {
				text, err := readUntil(reader, `"message":"log lines dropped"`)
				if err != nil {
					t.Errorf("%v, after %d bytes, none of which tells of lines dropped", err, len(text))
				}
			}
			held.Close()
			late.Close()
			s.stop()
		})
	}
}

// flood makes more log than is kept in memory: each client has a user name that
// fills its line.
func flood(t *testing.T, at string) {
	t.Helper()
	request := "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n" + basic(strings.Repeat("\x01", 256), "x") + "\r\n\r\n"
	for range 3000 {
		c := dial(t, at)
		io.WriteString(c, request)
		c.CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func readUntil(r *os.File, want string) (string, error) {
	r.SetReadDeadline(time.Now().Add(patience))
	var text []byte
	for b := make([]byte, 64<<10); ; {
		n, err := r.Read(b)
		text = append(text, b[:n]...)
		if err != nil || strings.Contains(string(text[max(0, len(text)-n-len(want)):]), want) {
			return string(text), err
		}
	}
}
