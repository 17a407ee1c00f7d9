package relay

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func TestPipeHalfClose(t *testing.T) {
	const size = 1_000_000

	for _, head := range []int{0, 1, 2000} {
		t.Run(fmt.Sprintf("client first, head of %d", head), func(t *testing.T) {
			question, answer := random(head+size), random(size)
			tn := newTunnel(t, question[:head], Limits{})
			mustWrite(t, tn.client, question[head:head+100])
			mustCloseWrite(t, tn.client)
			tn.start(t)
			wantAll(t, tn.server, question[:head+100])
			mustWrite(t, tn.server, answer)
			mustCloseWrite(t, tn.server)
			wantAll(t, tn.client, answer)
			tn.wantEnd(t, ClientClosed, false)
			if up, down := tn.Up(), tn.Down(); up != int64(head+100) || down != size {
				t.Errorf("Up, Down = %d, %d; want %d, %d", up, down, head+100, size)
			}
		})
	}

	t.Run("FIN right behind the head", func(t *testing.T) {
		head := random(1500)
		tn := newTunnel(t, head, Limits{})
		mustCloseWrite(t, tn.client)
		tn.start(t)
		wantAll(t, tn.server, head)
		mustCloseWrite(t, tn.server)
		wantAll(t, tn.client, nil)
		tn.wantEnd(t, ClientClosed, false)
	})

	t.Run("upstream first", func(t *testing.T) {
		answer, upload := random(size), random(10_000_000)
		tn := newTunnel(t, nil, Limits{}).start(t)
		mustWrite(t, tn.server, answer)
		mustCloseWrite(t, tn.server)
		wantAll(t, tn.client, answer)
		go func() {
			mustWrite(t, tn.client, upload)
			mustCloseWrite(t, tn.client)
		}()
		wantAll(t, tn.server, upload)
		tn.wantEnd(t, UpstreamClosed, false)
	})

	t.Run("after a bulk transfer", func(t *testing.T) {
		upload := random(3 << 20)
		tn := newTunnel(t, nil, Limits{}).start(t)
		go func() {
			mustWrite(t, tn.client, upload)
			mustCloseWrite(t, tn.client)
		}()
		wantAll(t, tn.server, upload)
		mustWrite(t, tn.server, upload)
		mustCloseWrite(t, tn.server)
		wantAll(t, tn.client, upload)
		tn.wantEnd(t, ClientClosed, false)
	})
}

func TestPipeBothWays(t *testing.T) {
	for range 4 {
		up, down := random(5<<20), random(5<<20)
		tn := newTunnel(t, up[:700], Limits{}).start(t)
		var peers sync.WaitGroup
		peers.Go(func() { segments(t, tn.client, up[700:]) })
		peers.Go(func() { segments(t, tn.server, down) })
		peers.Go(func() {
			got, _ := io.ReadAll(tn.server)
			if string(got) != string(up) {
				t.Errorf("server got %d bytes, same up to %d of %d", len(got), commonPrefix(got, up), len(up))
			}
		})
		wantAll(t, tn.client, down)
		peers.Wait()
		tn.wait(t)
		if tn.err != nil || tn.Up() != int64(len(up)) || tn.Down() != int64(len(down)) {
			t.Errorf("Up, Down = %d, %d, error %v", tn.Up(), tn.Down(), tn.err)
		}
	}
}

// segments writes p in pieces of any size, and FIN.
func segments(t *testing.T, c Duplex, p []byte) {
	for len(p) > 0 {
		n := min(len(p), 1+rand.IntN(1<<rand.IntN(20)))
		mustWrite(t, c, p[:n])
		p = p[n:]
	}
	mustCloseWrite(t, c)
}

// Every border at which the loop changes its ways.
func TestPipeSizes(t *testing.T) {
	for _, border := range []int{0, 16 << 10, bufferSize, fullReads * bufferSize, pipeSize, pipeSize + fullReads*bufferSize} {
		for _, size := range []int{border - 1, border, border + 1} {
			if size < 0 {
				continue
			}
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				p := random(size)
				tn := newTunnel(t, nil, Limits{})
				go func() {
					mustWrite(t, tn.client, p)
					mustCloseWrite(t, tn.client)
				}()
				tn.start(t)
				wantAll(t, tn.server, p)
				mustWrite(t, tn.server, p)
				mustCloseWrite(t, tn.server)
				wantAll(t, tn.client, p)
				tn.wantEnd(t, ClientClosed, false)
			})
		}
	}
}

func TestPipeEnd(t *testing.T) {
	traffic := func(t *testing.T, tn *tunnel) {
		mustWrite(t, tn.client, []byte("ping"))
		wantRead(t, tn.server, []byte("headping"))
	}
	for _, tt := range []struct {
		phase string
		reach func(t *testing.T, tn *tunnel)
	}{
		{"before Run", func(t *testing.T, tn *tunnel) {
			tn.End(Killed)
			tn.start(t)
		}},
		{"idle", func(t *testing.T, tn *tunnel) {
			tn.start(t)
			traffic(t, tn)
			tn.End(Killed)
		}},
		{"bulk", func(t *testing.T, tn *tunnel) {
			tn.start(t)
			go tn.client.Write(make([]byte, 64<<20)) // ends with RST
			go io.Copy(io.Discard, tn.server)
			eventually(t, "bytes", func() bool { return tn.Up() > 1<<20 })
			tn.End(Killed)
		}},
		{"client half-closed", func(t *testing.T, tn *tunnel) {
			tn.start(t)
			traffic(t, tn)
			mustCloseWrite(t, tn.client)
			wantAll(t, tn.server, nil)
			tn.End(Killed)
		}},
		{"upstream half-closed", func(t *testing.T, tn *tunnel) {
			tn.start(t)
			mustCloseWrite(t, tn.server)
			wantAll(t, tn.client, nil)
			tn.End(Killed)
		}},
	} {
		t.Run(tt.phase, func(t *testing.T) {
			tn := newTunnel(t, []byte("head"), Limits{})
			tt.reach(t, tn)
			tn.End(Drained) // the first reason stands
			tn.wantEnd(t, Killed, false)
			wantGone(t, tn.client)
			wantGone(t, tn.server)
			tn.End(Idle)
		})
	}

	t.Run("after a clean end", func(t *testing.T) {
		tn := newTunnel(t, nil, Limits{}).start(t)
		mustCloseWrite(t, tn.client)
		mustCloseWrite(t, tn.server)
		tn.wait(t)
		tn.End(Killed)
		wantAll(t, tn.client, nil)
		wantAll(t, tn.server, nil)
	})

	t.Run("by many", func(t *testing.T) {
		tn := newTunnel(t, nil, Limits{}).start(t)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { tn.End(SourceGone) })
		}
		all.Wait()
		tn.wantEnd(t, SourceGone, false)
	})
}

func TestPipeDescriptors(t *testing.T) {
	const tunnels = 100
	emptyPool(t, 48)
	mustWarmUp(t)
	start := descriptors(t)

	bulk := random(1 << 20)
	all := make([]*tunnel, tunnels)
	for i := range all {
		all[i] = newTunnel(t, nil, Limits{Idle: time.Hour}).start(t)
		if i%10 == 0 {
			go mustWrite(t, all[i].client, bulk)
			wantRead(t, all[i].server, bulk)
		}
		mustWrite(t, all[i].server, bulk[:100])
		wantRead(t, all[i].client, bulk[:100])
	}
	// Of each tunnel, two are the relay's and two are the peers'.
	eventually(t, "2 descriptors per tunnel", func() bool {
		pipes.trim()
		return descriptors(t) == start+4*tunnels
	})
	if got := openPipes(); got != 0 {
		t.Errorf("%d pipes exist while every tunnel is idle", got)
	}

	for _, tn := range all {
		tn.client.Close()
		tn.server.Close()
		tn.wait(t)
	}
	if got := descriptors(t); got != start {
		t.Errorf("%d descriptors at the end, %d at the start", got, start)
	}
}

// mustWarmUp opens what is opened once: the runtime's poller, and the lots.
func mustWarmUp(t *testing.T) {
	tn := newTunnel(t, nil, Limits{}).start(t)
	tn.End(Killed)
	tn.wait(t)
	tn.client.Close()
	tn.server.Close()
}
