package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	cpuPerDatagram     = metric{"relay µs", lower}
	datagramRate       = metric{"datagrams/s", higher}
	machinePerDatagram = metric{"machine µs", lower}
	flowRSS            = metric{"RSS MiB", lower}
	flowKernel         = metric{"kernel MiB", lower}
	lostShare          = metric{"lost %", neutral}
)

// datagramSize is the payload: what a game sends.
const datagramSize = 100

// datagrams measures flows of datagrams that are answered by an echo. So many are on
// their way all the time; each belongs to the next flow.
func datagrams(ctx context.Context, b *bench) error {
	if !b.isolated {
		b.report.note("all", errors.New("not root: it changes the routes of its namespace, so that answers to clients' addresses come back"))
		return nil
	}
	echo, err := newEcho()
	if err != nil {
		return err
	}
	defer echo.close()
	if err := wayBack(echo.addr); err != nil {
		return err
	}
	for _, c := range b.datagrams {
		name := fmt.Sprintf("%d flows, %d on their way", c.flows, c.window)
		turns(ctx, b, b.rounds, b.relaysFor("datagrams"), func(r *relay) error {
			return b.datagramTurn(ctx, name, r, echo.addr, c)
		})
	}
	return nil
}

// datagramCase is how many flows there are, and datagrams on their way.
type datagramCase struct{ flows, window int }

func (b *bench) datagramTurn(ctx context.Context, name string, r *relay, echo netip.AddrPort, c datagramCase) error {
	p, err := b.startFor(ctx, r, 0, echo)
	if err != nil {
		return err
	}
	defer stopAll([]*running{p})
	before, err := p.memory()
	if err != nil {
		return err
	}
	load, err := newAskers(p, c)
	if err != nil {
		return err
	}
	defer load.poller.close()
	// Every flow is opened before what is measured.
	for load.answers < c.flows && ctx.Err() == nil {
		if err := load.run(b.warm); err != nil {
			return err
		}
	}
	if err := load.run(b.warm); err != nil {
		return err
	}
	load.answers, load.lost = 0, 0
	begin, err := p.usage()
	if err != nil {
		return err
	}
	if err := load.run(b.window); err != nil {
		return err
	}
	end, err := p.usage()
	if err != nil {
		return err
	}
	after, err := p.memory()
	if err != nil {
		return err
	}
	if load.answers == 0 {
		return fmt.Errorf("no answer within %v", b.window)
	}
	relay, machine, wall := end.since(begin)
	count := 2 * float64(load.answers) // each way
	b.report.add(name, r, cpuPerDatagram, micros(relay)/count)
	b.report.add(name, r, datagramRate, count/wall.Seconds())
	b.report.add(name, r, machinePerDatagram, micros(machine)/count)
	b.report.add(name, r, flowRSS, float64(after.rss)/1024)
	b.report.add(name, r, flowKernel, float64(after.kernel-before.kernel)/1024)
	b.report.add(name, r, lostShare, 100*float64(load.lost)/float64(load.lost+load.answers))
	return nil
}

// wayBack makes what the origin sends to addresses of others stay in this namespace,
// which has no other way out.
func wayBack(origin netip.AddrPort) error {
	port := fmt.Sprint(origin.Port())
	for _, args := range []string{
		"rule add from 127.0.0.1 iif lo ipproto udp sport " + port + " lookup 100",
		"route replace local 0.0.0.0/0 dev lo table 100",
		"route replace default dev lo",
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	return nil
}

// askers is the clients' end: a socket a flow, in a poller.
type askers struct {
	poller  *poller
	sockets []*asker
	next    int
	window  int
	answers int
	lost    int
}

// asker is a socket of askers.
type asker struct {
	*askers
	fd   int
	data []byte
}

func newAskers(p *running, c datagramCase) (*askers, error) {
	poller, err := newPoller()
	if err != nil {
		return nil, err
	}
	a := &askers{poller: poller, window: c.window}
	for i := range c.flows {
		fd, err := udpTo(p.addr)
		if err == nil {
			s := &asker{a, fd, make([]byte, datagramSize)}
			if p.header != nil {
				s.data = append(p.header(i), s.data...)
			}
			a.sockets = append(a.sockets, s)
			err = poller.add(fd, unix.EPOLLIN, s)
		}
		if err != nil {
			poller.close()
			return nil, err
		}
	}
	return a, nil
}

// lostAfter is when datagrams that have not been answered are given up.
const lostAfter = 50 * time.Millisecond

// run keeps the window full for as long as d.
func (a *askers) run(d time.Duration) error {
	onWay := 0
	for end := time.Now().Add(d); time.Now().Before(end); {
		for ; onWay < a.window; onWay++ {
			a.ask()
		}
		before := a.answers
		if _, err := a.poller.run(min(lostAfter, time.Until(end))); err != nil {
			return err
		}
		if a.answers == before { // ready has asked again for each that was answered
			a.lost += onWay
			onWay = 0
		}
	}
	// What is on its way is not part of the next run.
	time.Sleep(lostAfter)
	for _, s := range a.sockets {
		for s.take() == nil {
		}
	}
	return nil
}

func (a *askers) ask() {
	s := a.sockets[a.next]
	a.next = (a.next + 1) % len(a.sockets)
	unix.Write(s.fd, s.data)
}

func (s *asker) take() error {
	_, err := discard(s.fd, 0) // UDP copies whatever there is room for
	return err
}

func (s *asker) ready() error {
	if err := s.take(); err != nil {
		return nil
	}
	s.answers++
	s.ask()
	return nil
}

// claims is a PROXY header, version 2, of the client with this number.
func claims(client int) []byte {
	h := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0c")
	h = binary.BigEndian.AppendUint32(h, 10<<24|uint32(client)+1) // 10.0.0.0/8
	h = append(h, 203, 0, 113, 1)
	h = binary.BigEndian.AppendUint16(h, 5000)
	return binary.BigEndian.AppendUint16(h, 25565)
}

func udpTo(addr netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// answersDatagrams reports, as an error, whether a relay does not relay yet.
func (p *running) answersDatagrams() error {
	fd, err := udpTo(p.addr)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	unix.SetNonblock(fd, false)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	data := make([]byte, datagramSize)
	if p.header != nil {
		data = append(p.header(0), data...)
	}
	if _, err := unix.Write(fd, data); err != nil {
		return os.NewSyscallError("write", err)
	}
	_, err = unix.Read(fd, data)
	return os.NewSyscallError("read", err)
}

func swivelDatagramArgs(s site) []string {
	return []string{"-mode", "unwrap", "-listen", "udp/" + s.listen.String(), "-from", "127.0.0.0/8", "-to", s.origin.String()}
}

func nginxDatagramConfig(s site) string {
	return nginxStreamConfig(s, fmt.Sprintf(`
		listen %s udp;
		proxy_pass %s;
		proxy_timeout 1h;`, s.listen, s.origin))
}
