package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

var (
	cpuPerConnection     = metric{"relay µs", lower}
	connectionRate       = metric{"conn/s", higher}
	machinePerConnection = metric{"machine µs", lower}
	systemCalls          = metric{"calls", lower}
)

func connections(ctx context.Context, b *bench) error {
	list := b.startAll(ctx, "connect")
	defer stopAll(list)
	name := fmt.Sprintf("%d at a time", openers)
	turns(ctx, b, b.rounds, list, func(p *running) error {
		defer b.origin.settle(0)
		if err := p.visit(ctx, b.origin, b.connections/2); err != nil {
			return err
		}
		begin, err := p.usage()
		if err != nil {
			return err
		}
		if err := p.visit(ctx, b.origin, b.connections); err != nil {
			return err
		}
		wall := time.Since(begin.at)
		b.origin.settle(0) // the last ones are closed; that is part of the cost
		end, err := p.usage()
		if err != nil {
			return err
		}
		relay, machine, _ := end.since(begin)
		count := float64(b.connections)
		b.report.add(name, p.relay, cpuPerConnection, micros(relay)/count)
		b.report.add(name, p.relay, connectionRate, count/wall.Seconds())
		b.report.add(name, p.relay, machinePerConnection, micros(machine)/count)
		return nil
	})
	strace, err := exec.LookPath("strace")
	if err != nil {
		b.report.note("strace", err)
		return nil
	}
	turns(ctx, b, 1, list, func(p *running) error {
		n, err := p.countCalls(ctx, strace, b.origin)
		if err == nil {
			b.report.add("one at a time", p.relay, systemCalls, n)
		}
		return err
	})
	return nil
}

// visit opens and closes n tunnels, openers at a time.
func (r *running) visit(ctx context.Context, o *origin, n int) error {
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error // written once
		left  atomic.Int64
	)
	left.Store(int64(n))
	for range openers {
		wg.Go(func() {
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				c, err := r.tunnel(o.addr)
				if err != nil {
					once.Do(func() { first = err })
					return
				}
				c.close()
			}
		})
	}
	wg.Wait()
	if first == nil {
		first = ctx.Err()
	}
	return first
}

// traced is how many tunnels are opened under strace.
const traced = 50

// countCalls returns the system calls per tunnel, opened one after the other.
func (r *running) countCalls(ctx context.Context, strace string, o *origin) (float64, error) {
	pids := processes(r.cmd.Process.Pid)
	file := filepath.Join(filepath.Dir(r.out.Name()), "strace")
	// The thread with which the Go runtime watches its others sleeps the more often
	// the longer strace makes their calls take.
	args := []string{"-c", "-f", "-e", "trace=!nanosleep", "-o", file}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	cmd := exec.CommandContext(ctx, strace, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) } // SIGKILL would leave the relay stopped
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for _, pid := range pids {
		awaitTracer(pid)
	}
	var err error
	for range traced {
		var c blocking
		if c, err = r.tunnel(o.addr); err != nil {
			break
		}
		c.close()
		o.settle(0)
	}
	cmd.Process.Signal(unix.SIGINT)
	cmd.Wait() // ends by the signal
	if err != nil {
		return 0, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return totalCalls(string(data))
}

// awaitTracer waits until a process is traced, or for two seconds.
func awaitTracer(pid int) {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if !strings.Contains(string(data), "\nTracerPid:\t0\n") {
			return
		}
	}
}

// totalCalls reads the last line of strace -c, which is
// "100.00  0.001111  5  203  12 total", and returns the calls per tunnel.
func totalCalls(table string) (float64, error) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] != "total" {
			continue
		}
		n, err := strconv.Atoi(f[3])
		return float64(n) / traced, err
	}
	return 0, fmt.Errorf("strace: no total in %q", table)
}
