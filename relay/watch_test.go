package relay

import (
	"testing"
	"time"
)

func TestWatchNext(t *testing.T) {
	const s = time.Second
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
		{"only lifetime when both have ended", Limits{Idle: s, HalfClosed: s, Lifetime: 9 * s}, 0, 5 * s, 5 * s, "", 4 * s},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := duration(time.Hour)
			p := &Pipe{limits: tt.limits}
			w := watch{pipe: p, open: tt.open, started: now - tt.age, quiet: now - tt.quiet}
			if got, wait := w.next(now); got != tt.want || wait != tt.wait {
				t.Errorf("next = %q, %v; want %q, %v", got, wait, tt.want, tt.wait)
			}
		})
	}
}
