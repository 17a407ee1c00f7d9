package relay

import (
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPipeBulk relays one direction. CPU time is of the whole process, the
// peers included.
func BenchmarkPipeBulk(b *testing.B) {
	for _, limit := range []int{48, 0} {
		b.Run(fmt.Sprintf("pipes=%d", limit), func(b *testing.B) {
			emptyPool(b, limit)
			tn := benchTunnel(b)
			go io.Copy(io.Discard, tn.server)
			p := make([]byte, 1<<20)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			cpu := cpuTime(b)
			for b.Loop() {
				if _, err := tn.client.Write(p); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpuTime(b)-cpu).Seconds()/float64(b.N)*(1<<30)/float64(len(p)), "cpu-s/GiB")
		})
	}
}

// BenchmarkPipeRoundTrip is 100 bytes there and back.
func BenchmarkPipeRoundTrip(b *testing.B) {
	tn := benchTunnel(b)
	p := make([]byte, 100)
	b.ReportAllocs()
	cpu := cpuTime(b)
	for b.Loop() {
		tn.client.Write(p)
		io.ReadFull(tn.server, p)
		tn.server.Write(p)
		if _, err := io.ReadFull(tn.client, p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkPipeTunnel is the life of a tunnel that carries 100 bytes each way.
// Allocations include the two connections.
func BenchmarkPipeTunnel(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		client, in := tcpPair(b)
		out, server := tcpPair(b)
		ended := make(chan struct{})
		go func() {
			NewPipe(NewConn(in, make([]byte, 100)), out, Limits{Idle: time.Hour}).Run()
			close(ended)
		}()
		client.CloseWrite()
		io.Copy(io.Discard, server)
		server.Close()
		io.Copy(io.Discard, client)
		<-ended
		client.Close()
	}
}

func benchTunnel(b *testing.B) *tunnel {
	tn := newTunnel(b, nil, Limits{Idle: time.Hour}).start(b)
	tn.client.SetDeadline(time.Time{})
	tn.server.SetDeadline(time.Time{})
	return tn
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
