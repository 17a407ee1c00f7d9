package relay

import (
	"testing"
	"time"
)

func TestWatchNext(t *testing.T) {
	const s, moved = time.Second, 1000
	for _, tt := range []struct {
		name       string
		limits     Limits
		open       int8
		age, quiet time.Duration
		want       Reason
		wait       time.Duration
	}{
		{"no limits", Limits{}, 2, 0, 0, "", 0},
		{"looks again at a quarter", Limits{Idle: 40 * s}, 2, 0, 0, "", 10 * s},
		{"at the rest if that is less", Limits{Idle: 40 * s}, 2, 35 * s, 35 * s, "", 5 * s},
		{"idle", Limits{Idle: 40 * s}, 2, 90 * s, 40 * s, Idle, 0},
		{"busy", Limits{Idle: 40 * s}, 2, 90 * s, 0, "", 10 * s},
		{"half-closed limit waits for its state", Limits{HalfClosed: 4 * s}, 2, 9 * s, 9 * s, "", 0},
		{"half-closed", Limits{Idle: 40 * s, HalfClosed: 4 * s}, 1, 9 * s, 4 * s, HalfClosed, 0},
		{"half-closed and busy", Limits{Idle: 40 * s, HalfClosed: 4 * s}, 1, 9 * s, 0, "", s},
		{"lifetime, busy", Limits{Idle: 40 * s, Lifetime: 9 * s}, 2, 9 * s, 0, Lifetime, 0},
		{"lifetime is looked at once", Limits{Lifetime: 9 * s}, 2, 2 * s, 0, "", 7 * s},
		{"age, busy", Limits{Idle: 40 * s, Age: 9 * s}, 2, 9 * s, 0, MaxAge, 0},
		{"the lifetime comes before the age", Limits{Lifetime: 5 * s, Age: 9 * s}, 2, 9 * s, 0, Lifetime, 0},
		{"bytes are counted soon when some move", Limits{Idle: 40 * s, Bytes: moved + 1}, 2, 9 * s, 0, "", bytesBusy},
		{"and not so soon when none do", Limits{Idle: 40 * s, Bytes: moved + 1}, 2, 9 * s, s, "", bytesIdle},
		{"bytes", Limits{Idle: 40 * s, Bytes: moved}, 2, 9 * s, s, MaxBytes, 0},
		{"bytes when both have ended", Limits{Bytes: moved}, 0, 9 * s, s, "", 0},
		{"only lifetime when both have ended", Limits{Idle: s, HalfClosed: s, Lifetime: 9 * s}, 0, 5 * s, 5 * s, "", 4 * s},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := duration(time.Hour)
			p := &Pipe{limits: &tt.limits}
			w := watch{pipe: p, open: tt.open, started: now - tt.age, quiet: now - tt.quiet, seen: moved}
			if got, wait := w.next(now); got != tt.want || wait != tt.wait {
				t.Errorf("next = %q, %v; want %q, %v", got, wait, tt.want, tt.wait)
			}
		})
	}
}
