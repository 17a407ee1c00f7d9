package relay

import (
	"bytes"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"swivel/internal/netlab"
)

// await waits for cond, which others bring about.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not seen: " + what)
		}
	}
}

func (f *testFront) ended() []FlowEnd {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]FlowEnd(nil), f.ends...)
}

func (f *testFront) dropped(why Drop) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drops[why]
}

// A flow is a client through a sender, whatever port that uses; datagrams without
// payload are datagrams.
func TestFlows(t *testing.T) {
	netlab.Leaks(t)
	front := &testFront{target: echoUDP(t)}
	r := newFlowRig(t, front, "127.0.0.1:0")
	c, again := r.dial(t), r.dial(t)
	exchange(t, c, "1hello", "hello")
	exchange(t, c, "1", "")
	exchange(t, c, "2hello", "hello")
	exchange(t, again, "1again", "again")
	exchange(t, c, "1back", "back")
	if got := r.Len(); got != 2 {
		t.Errorf("got %d flows, want 2", got)
	}
	// Who speaks for himself is another one with each port.
	exchange(t, c, "Lhello", "hello")
	exchange(t, again, "Lhello", "hello")
	if got := r.Len(); got != 4 {
		t.Errorf("got %d flows, want 4", got)
	}
	r.End(Killed)
	ends := front.ended()
	if want := (FlowEnd{Reason: Killed, Up: 14, Down: 14}); len(ends) != 4 || !contains(ends, want) {
		t.Errorf("got %v, want %v among them", ends, want)
	}
}

func contains(ends []FlowEnd, e FlowEnd) bool {
	for _, have := range ends {
		if have == e {
			return true
		}
	}
	return false
}

// 3c/15: once a flow has begun, all of it is payload, also what looks like a header.
func TestFlowsOnce(t *testing.T) {
	front := &testFront{target: echoUDP(t), once: true}
	r := newFlowRig(t, front, "127.0.0.1:0")
	c := r.dial(t)
	exchange(t, c, "1hello", "hello")
	exchange(t, c, "2hello", "2hello")
	exchange(t, c, "", "")
	other := r.dial(t)
	other.Write(nil) // no header, and no flow: dropped
	exchange(t, other, "1other", "other")
	if got := r.Len(); got != 2 {
		t.Errorf("got %d flows, want 2", got)
	}
	await(t, "a drop", func() bool { return front.dropped(DropHeader) == 1 })
}

func TestFlowsDrop(t *testing.T) {
	front := &testFront{target: echoUDP(t), refused: map[netip.Addr]bool{netip.MustParseAddr("127.0.0.9"): true}}
	r := newFlowRig(t, front, "127.0.0.1:0")
	bad, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}, r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	for range 10 {
		bad.Write([]byte("1hello"))
	}
	c := r.dial(t)
	c.Write(nil)
	exchange(t, c, "1hello", "hello")
	await(t, "the drops", func() bool { return front.dropped(DropSender) == 10 && front.dropped(DropHeader) == 1 })
	if got := r.Len(); got != 1 {
		t.Errorf("got %d flows, want 1", got)
	}
}

// The idlest of those that are no conversation goes, or of the others.
func TestFlowsEvict(t *testing.T) {
	front := &testFront{target: echoUDP(t), most: 3}
	r := newFlowRig(t, front, "127.0.0.1:0")
	c := r.dial(t)
	for _, b := range []string{"1", "1", "2", "3", "2"} { // 1 and 2 are conversations
		exchange(t, c, b+"hello", "hello")
	}
	sources := func() (list []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for k := range r.table {
			list = append(list, k.src.addr[15])
		}
		return list
	}
	for _, step := range []struct{ send, gone string }{{"4", "3"}, {"5", "4"}, {"5", ""}, {"6", "1"}} {
		exchange(t, c, step.send+"hello", "hello")
		if list := string(sources()); len(list) != 3 || step.gone != "" && strings.Contains(list, step.gone) {
			t.Errorf("after %s: got %q, want %q gone", step.send, list, step.gone)
		}
	}
	if !contains(front.ended(), FlowEnd{Reason: Evicted, Up: 5, Down: 5}) {
		t.Errorf("got %v", front.ended())
	}
}

func TestFlowsIdle(t *testing.T) {
	front := &testFront{target: echoUDP(t)}
	r := newFlowRig(t, front, "127.0.0.1:0")
	r.Idle(time.Millisecond)
	exchange(t, r.dial(t), "1hello", "hello")
	await(t, "the end", func() bool { return contains(front.ended(), FlowEnd{Reason: Idle, Up: 5, Down: 5}) })
	exchange(t, r.dial(t), "1hello", "hello")
}

// A server that is not there, which ICMP tells, ends no flow.
func TestFlowsRefused(t *testing.T) {
	pc := listenUDP(t, "127.0.0.1:0")
	target := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	pc.Close()
	front := &testFront{target: target}
	r := newFlowRig(t, front, "127.0.0.1:0")
	c := r.dial(t)
	for range 5 {
		c.Write([]byte("1lost"))
	}
	await(t, "a refusal", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, fl := range r.table {
			return fl.end.Err != nil
		}
		return false
	})
	server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(target))
	if err != nil {
		t.Skip(err) // someone has taken the port
	}
	defer server.Close()
	go func() { // until server is closed
		b := make([]byte, 1<<16)
		for {
			n, from, err := server.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			server.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	c.Write([]byte("1here"))
	for b := make([]byte, 10); ; { // some of the others may have been under way until now
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if string(b[:n]) == "here" {
			break
		}
	}
	if got := len(front.ended()); got != 0 {
		t.Errorf("%d flows ended", got)
	}
}

// 3c/15: the largest datagram there is, less its header; and an answer as large.
func TestFlowsLarge(t *testing.T) {
	r := newFlowRig(t, &testFront{target: echoUDP(t)}, "127.0.0.1:0")
	payload := strings.Repeat("x", 65507-1)
	exchange(t, r.dial(t), "1"+payload, payload)
}

func TestFlowsPrefix(t *testing.T) {
	front := &testFront{target: echoUDP(t), prefix: []byte("<prefix>")}
	r := newFlowRig(t, front, "127.0.0.1:0")
	c := r.dial(t)
	exchange(t, c, "1hello", "<prefix>hello")
	exchange(t, c, "1", "<prefix>")
	// No datagram is that long.
	c.Write(append([]byte("1"), make([]byte, 65500)...))
	await(t, "a drop", func() bool { return front.dropped(DropAnswer) == 1 })
	exchange(t, c, "1hello", "<prefix>hello")
}

// Answers leave from the address that was sent to: c is connected, and takes no other.
func TestFlowsLocalAddress(t *testing.T) {
	front := &testFront{target: echoUDP(t)}
	r := newFlowRig(t, front, ":0")
	for _, address := range []string{"127.0.0.1", "127.0.0.2", "::1"} {
		r.addr.IP = net.ParseIP(address)
		c, err := net.DialUDP("udp", nil, r.addr)
		if err != nil {
			t.Skip(err) // no IPv6
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		exchange(t, c, "1hello", "hello")
		front.mu.Lock()
		last := front.opened[len(front.opened)-1]
		front.mu.Unlock()
		if got := last.Local.Addr().String(); got != address || !last.Sender.Addr().IsLoopback() {
			t.Errorf("%s: got %+v", address, last)
		}
	}
}

// A sender that may not send any more is not answered any more.
func TestFlowsUse(t *testing.T) {
	front := &testFront{target: echoUDP(t)}
	r := newFlowRig(t, front, "127.0.0.1:0")
	exchange(t, r.dial(t), "1hello", "hello")
	r.socket.Use(front)
	if r.Len() != 1 {
		t.Error("the flow did not live on")
	}
	other := &testFront{target: front.target, refused: map[netip.Addr]bool{netip.MustParseAddr("127.0.0.1"): true}}
	r.socket.Use(other)
	if got := front.ended(); r.Len() != 0 || len(got) != 1 || got[0].Reason != Killed {
		t.Errorf("got %v", got)
	}
}

// A socket that is closed goes on with the flows that it has, and may be taken again.
func TestFlowsClose(t *testing.T) {
	front := &testFront{target: echoUDP(t)}
	r := newFlowRig(t, front, "127.0.0.1:0")
	c := r.dial(t)
	exchange(t, c, "1hello", "hello")
	if !r.socket.Close() || r.socket.Close() {
		t.Error("Close: want true, then false")
	}
	c.Write([]byte("2hello"))
	exchange(t, c, "1hello", "hello")
	if here, again := r.socket.Hold(); !here || !again {
		t.Errorf("Hold: got %t, %t", here, again)
	}
	exchange(t, c, "2hello", "hello")
	r.socket.Close()
	r.End(Killed)
	if here, _ := r.socket.Hold(); here {
		t.Error("the socket is still there")
	}
	await(t, "a free port", func() bool {
		pc, err := net.ListenUDP("udp", r.addr)
		if err == nil {
			pc.Close()
		}
		return err == nil
	})
}

// Flows that begin do not take all of the time of those that are there.
func TestFlowsBusy(t *testing.T) {
	front := &testFront{target: echoUDP(t)}
	r := newFlowRig(t, front, "127.0.0.1:0")
	c, others := r.dial(t), r.dial(t)
	burst := func(first byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.allowance = -time.Hour
		for i := range byte(batchSize) {
			others.Write([]byte{first + i})
		}
	}
	burst(100) // nobody is there yet
	await(t, "as many flows", func() bool { return r.Len() == batchSize })
	exchange(t, c, "1hello", "hello")
	exchange(t, c, "1hello", "hello") // a conversation now
	burst(180)
	exchange(t, c, "1hello", "hello")
	await(t, "the drops", func() bool { return front.dropped(DropBusy) == batchSize })
	exchange(t, c, "2hello", "hello") // one by one they may begin
}

// Many at once: each datagram is answered, to the one who sent it, in its order.
func TestFlowsMany(t *testing.T) {
	front := &testFront{target: echoUDP(t)}
	r := newFlowRig(t, front, "127.0.0.1:0")
	const clients, rounds = 50, 20
	done := make(chan string, clients)
	for i := range clients {
		go func() {
			c, err := net.DialUDP("udp", nil, r.addr)
			if err != nil {
				done <- err.Error()
				return
			}
			defer c.Close()
			b := make([]byte, 100)
			for round := range rounds {
				send := []byte{byte(i), byte(i), byte(round)}
				c.Write(send)
				c.SetReadDeadline(time.Now().Add(20 * time.Second))
				if n, err := c.Read(b); err != nil || !bytes.Equal(b[:n], send[1:]) {
					done <- net.JoinHostPort(string(b[:n]), c.LocalAddr().String())
					return
				}
			}
			done <- ""
		}()
	}
	for range clients {
		if failed := <-done; failed != "" {
			t.Errorf("got %q", failed)
		}
	}
}

// No datagram of a flow that is there allocates.
func TestFlowsAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newFlowRig(t, &testFront{target: echoUDP(t)}, "127.0.0.1:0")
	c, b := r.dial(t), make([]byte, 100)
	trip := func() {
		c.Write([]byte{'1', 'x'})
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		trip()
	}
	const trips = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range trips {
		trip()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > trips/5 { // the timer of tick, and the runtime's own
		t.Errorf("%d allocations in %d round trips", n, trips)
	}
}

func BenchmarkFlows(b *testing.B) {
	front := &testFront{target: echoUDP(b)}
	r := newFlowRig(b, front, "127.0.0.1:0")
	c := r.dial(b)
	b.ReportAllocs()
	for b.Loop() {
		exchange(b, c, "1hello", "hello")
	}
}
