package relay

import (
	"os"
	"runtime"
	"strconv"
	"strings"
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

// When a user has all the pipe memory that fs.pipe-user-pages-soft allows, the kernel
// hands out pipes that cost more than copying. They are not taken.
func TestPipeUserPages(t *testing.T) {
	data, err := os.ReadFile("/proc/sys/fs/pipe-user-pages-soft")
	if err != nil {
		t.Skip(err)
	}
	pages, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	most := pages * os.Getpagesize() / pipeSize
	if os.Geteuid() != 0 || most == 0 || most > 200 {
		t.Skipf("needs root, to become another user, and a limit: %d pages", pages)
	}
	start := descriptors(t)
	done := make(chan struct{})
	go func() { // ends with its thread, which it does not unlock
		defer close(done)
		runtime.LockOSThread()
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			t.Error(errno)
			return
		}
		var taken []*kpipe
		for k := newKpipe(); k != nil && len(taken) <= most; k = newKpipe() {
			taken = append(taken, k)
		}
		if len(taken) > most {
			t.Errorf("%d pipes of %d bytes, beyond the limit of %d", len(taken), pipeSize, most)
		}
		for _, k := range taken {
			k.close()
		}
	}()
	<-done
	if n := descriptors(t); n != start {
		t.Errorf("%d descriptors at the end, %d at the start", n, start)
	}
}
