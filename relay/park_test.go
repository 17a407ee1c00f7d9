package relay

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// newParking returns a tunnel both sides of which are of type *Conn.
func newParking(t testing.TB, l Limits) *tunnel {
	t.Helper()
	tn := newTunnel(t, nil, l)
	tn.Pipe = NewPipe(NewConn(tn.in, nil), NewConn(tn.out, nil), l)
	return tn
}

func (tn *tunnel) isParked() bool {
	parked := func(d *direction) bool { s := d.state.Load(); return s == waitsForSrc || s == ended }
	return parked(&tn.up) && parked(&tn.down)
}

func (tn *tunnel) untilParked(t testing.TB) {
	t.Helper()
	eventually(t, "parking", tn.isParked)
}

func TestParkedTunnelWakes(t *testing.T) {
	tn := newParking(t, Limits{}).start(t)
	for i := range 20 {
		tn.untilParked(t)
		small, large := random(1+i), random(100_000)
		mustWrite(t, tn.client, small)
		wantRead(t, tn.server, small)
		tn.untilParked(t)
		mustWrite(t, tn.server, large)
		wantRead(t, tn.client, large)
	}
	if up, down := tn.Up(), tn.Down(); up != 210 || down != 20*100_000 {
		t.Errorf("counted %d up, %d down", up, down)
	}
}

// A parked tunnel has no goroutine, two descriptors, no buffer and no pipe.
func TestParkedTunnelHoldsNothing(t *testing.T) {
	const n = 50
	newParking(t, Limits{}).start(t).untilParked(t) // the lots themselves
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	var tunnels []*tunnel
	for range n {
		tn := newParking(t, Limits{}).start(t)
		mustWrite(t, tn.client, random(50_000))
		wantRead(t, tn.server, make([]byte, 0))
		io.CopyN(io.Discard, tn.server, 50_000)
		tunnels = append(tunnels, tn)
	}
	for _, tn := range tunnels {
		tn.untilParked(t)
	}
	// Each test goroutine waits in Run; a client and a server end are the test's.
	eventually(t, "no goroutine but the test's", func() bool { return runtime.NumGoroutine() <= goroutines+n })
	eventually(t, "two descriptors each", func() bool { return descriptors(t) <= fds+4*n })
}

func TestParkedTunnelEnds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		limits  Limits
		end     func(*testing.T, *tunnel)
		want    Reason
		wantErr bool
	}{
		{"client closes", Limits{}, func(t *testing.T, tn *tunnel) {
			tn.client.CloseWrite()
			wantAll(t, tn.server, nil)
			tn.server.Close()
		}, ClientClosed, false},
		{"upstream half-closes, client sends on", Limits{}, func(t *testing.T, tn *tunnel) {
			tn.server.CloseWrite()
			wantAll(t, tn.client, nil)
			tn.untilParked(t)
			b := random(100_000)
			mustWrite(t, tn.client, b)
			tn.client.CloseWrite()
			wantAll(t, tn.server, b)
		}, UpstreamClosed, false},
		{"client resets", Limits{}, func(t *testing.T, tn *tunnel) {
			reset(tn.client)
			wantReset(t, tn.server)
		}, ClientReset, true},
		{"upstream resets", Limits{}, func(t *testing.T, tn *tunnel) {
			reset(tn.server)
			wantReset(t, tn.client)
		}, UpstreamReset, true},
		{"is killed", Limits{}, func(t *testing.T, tn *tunnel) { tn.End(Killed) }, Killed, false},
		{"has been idle", Limits{Idle: 200 * time.Millisecond}, func(*testing.T, *tunnel) {}, Idle, false},
		{"has lived long enough", Limits{Lifetime: 200 * time.Millisecond}, func(*testing.T, *tunnel) {}, Lifetime, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tn := newParking(t, tt.limits).start(t)
			tn.untilParked(t)
			tt.end(t, tn)
			tn.wait(t)
			if tn.reason != tt.want || (tn.err != nil) != tt.wantErr {
				t.Errorf("got %s, %v; want %s, error %v", tn.reason, tn.err, tt.want, tt.wantErr)
			}
		})
	}
}

// Bytes, FIN, RST and End arrive at the very moment of parking.
func TestParkRaces(t *testing.T) {
	cycles := 25_000 // 100,000 in all
	if testing.Short() || raceEnabled {
		cycles = 2000
	}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(worker), 1))
			tn := newParking(t, Limits{})
			done := make(chan struct{})
			go func() { tn.Run(); close(done) }()
			for i := range cycles {
				if i%1000 == 0 {
					for _, c := range []*net.TCPConn{tn.client, tn.server} {
						c.SetDeadline(time.Now().Add(patience))
					}
				}
				b := fmt.Appendf(nil, "%d", i)
				from, to := tn.client, tn.server
				if rnd.IntN(2) == 0 {
					from, to = to, from
				}
				if rnd.IntN(3) > 0 {
					mustWrite(t, from, b)
				} else { // the second part may come at the moment of parking
					mustWrite(t, from, b[:len(b)/2])
					mustWrite(t, from, b[len(b)/2:])
				}
				got := make([]byte, len(b))
				if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, b) {
					t.Errorf("cycle %d: got %q, %v; want %q", i, got, err, b)
					return
				}
			}
			switch rnd.IntN(3) {
			case 0:
				tn.client.Close()
				tn.server.Close()
			case 1:
				reset(tn.client)
			default:
				tn.End(Killed)
			}
			<-done
		})
	}
	all.Wait()
}

// FIN comes with the last bytes, or when they have just been read, and no event tells
// of it on its own.
func TestParkFINRaces(t *testing.T) {
	rounds := 2000
	if testing.Short() || raceEnabled {
		rounds = 300
	}
	for i := range rounds {
		tn := newParking(t, Limits{}).start(t)
		for _, way := range []struct{ from, to *net.TCPConn }{{tn.client, tn.server}, {tn.server, tn.client}} {
			b := random(1 + i%3*bufferSize/2)
			mustWrite(t, way.from, b)
			for range rand.IntN(3) * 1000 {
				runtime.Gosched()
			}
			mustCloseWrite(t, way.from)
			wantAll(t, way.to, b)
		}
		tn.wantEnd(t, ClientClosed, false)
		tn.client.Close()
		tn.server.Close()
	}
}

// A tunnel with always one more short message does not keep the goroutine of its lot
// to itself.
func TestParkFirehose(t *testing.T) {
	hose := newParking(t, Limits{}).start(t)
	go io.Copy(io.Discard, hose.server)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() { // until stop
		defer close(done)
		for b := make([]byte, 50); ; {
			select {
			case <-stop:
				return
			default:
				hose.client.Write(b)
			}
		}
	}()
	for range maxLots { // one of these is in the same lot
		tn := newParking(t, Limits{}).start(t)
		for i := range 100 {
			b := random(1 + i)
			mustWrite(t, tn.client, b)
			wantRead(t, tn.server, b)
			mustWrite(t, tn.server, b)
			wantRead(t, tn.client, b)
		}
	}
	close(stop)
	<-done
}

// End comes at any moment of the beginning.
func TestParkStartEndRaces(t *testing.T) {
	for range 300 {
		tn := newTunnel(t, []byte("head"), Limits{})
		go tn.End(Killed) // ends at once
		tn.start(t)
		tn.wantEnd(t, Killed, false)
		wantGone(t, tn.client)
		wantGone(t, tn.server)
		tn.client.Close()
		tn.server.Close()
	}
}

// The end of a tunnel meets its parking.
func TestParkEndRaces(t *testing.T) {
	rounds := 500
	if raceEnabled {
		rounds = 100
	}
	for i := range rounds {
		tn := newParking(t, Limits{})
		tn.start(t)
		go tn.client.Write([]byte("up")) // ends at once
		go tn.server.Write([]byte("down"))
		switch i % 4 {
		case 0:
			tn.End(Killed)
		case 1:
			reset(tn.client)
		case 2:
			reset(tn.server)
		default:
			tn.client.Close()
			tn.server.Close()
		}
		tn.wait(t)
	}
}
