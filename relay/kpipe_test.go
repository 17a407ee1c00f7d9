package relay

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestPipePool(t *testing.T) {
	emptyPool(t, 3)

	t.Run("lends no more than max", func(t *testing.T) {
		var lent []*kpipe
		for k := pipes.get(); k != nil; k = pipes.get() {
			lent = append(lent, k)
		}
		if len(lent) != 3 {
			t.Errorf("lent %d, want 3", len(lent))
		}
		for _, k := range lent {
			pipes.put(k)
		}
	})

	t.Run("lends them again", func(t *testing.T) {
		k := pipes.get()
		defer pipes.put(k)
		if size, err := unix.FcntlInt(uintptr(k.r), unix.F_GETPIPE_SZ, 0); size != pipeSize {
			t.Errorf("size %d, %v; want %d", size, err, pipeSize)
		}
		if got := openPipes(); got != 3 {
			t.Errorf("%d pipes exist, want 3", got)
		}
	})

	t.Run("closes the unused", func(t *testing.T) {
		pipes.trim() // from now on
		k := pipes.get()
		pipes.put(k)
		pipes.trim()
		if got := openPipes(); got != 1 {
			t.Errorf("%d pipes exist, want the one that was used", got)
		}
		pipes.trim()
		if got := openPipes(); got != 0 {
			t.Errorf("%d pipes exist, want none", got)
		}
	})

	t.Run("keeps none that holds bytes", func(t *testing.T) {
		k := pipes.get()
		unix.Write(k.w, []byte("x"))
		k.held = 1
		pipes.put(k)
		if got := openPipes(); got != 0 {
			t.Errorf("%d pipes exist, want none", got)
		}
	})
}

func TestPipePoolExhausted(t *testing.T) {
	for _, limit := range []int{0, 1} {
		emptyPool(t, limit)
		p := random(4 << 20)
		tn := newTunnel(t, p[:1], Limits{}).start(t)
		go func() {
			mustWrite(t, tn.client, p[1:])
			mustCloseWrite(t, tn.client)
		}()
		go func() {
			mustWrite(t, tn.server, p)
			mustCloseWrite(t, tn.server)
		}()
		got := make(chan struct{})
		go func() {
			defer close(got)
			wantAll(t, tn.client, p)
		}()
		wantAll(t, tn.server, p)
		<-got
		tn.wait(t)
		if tn.err != nil {
			t.Error(tn.err)
		}
		if open := openPipes(); open > limit {
			t.Errorf("%d pipes exist, want at most %d", open, limit)
		}
	}
}

func TestPipeNoDescriptors(t *testing.T) {
	emptyPool(t, 48)
	p := random(2 << 20)
	tn := newTunnel(t, nil, Limits{}).start(t)

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)

	go mustWrite(t, tn.client, p)
	wantRead(t, tn.server, p)
	if got := openPipes(); got != 0 {
		t.Errorf("%d pipes exist, want none", got)
	}
}
