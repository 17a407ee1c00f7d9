package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is the CPU time used up to a moment.
type usage struct {
	relay   time.Duration // by the processes of a relay
	machine time.Duration // by everyone, in steps of 10 ms
	at      time.Time
}

// usage returns what has been used until now.
func (p *running) usage() (usage, error) {
	machine, err := machineTime()
	if err != nil {
		return usage{}, err
	}
	u := usage{machine: machine, at: time.Now()}
	for _, pid := range processes(p.cmd.Process.Pid) {
		t, err := processTime(pid)
		if err != nil {
			return usage{}, fmt.Errorf("%s has ended: %w", p.name, err)
		}
		u.relay += t
	}
	return u, nil
}

// since returns what was used between two moments.
func (u usage) since(begin usage) (relay, machine, wall time.Duration) {
	return u.relay - begin.relay, u.machine - begin.machine, u.at.Sub(begin.at)
}

// processTime returns the CPU time of all threads of a process, also of those that
// have ended, and that of its children that have ended.
//
// The clock of a process has the scheduler's own nanoseconds; /proc/PID/stat
// rounds the same sum to 10 ms. See clock_getcpuclockid(3).
func processTime(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	t := time.Duration(ts.Nano())
	if f := stat(pid); f != nil {
		t += ticks(f[13]) + ticks(f[14]) // cutime, cstime
	}
	return t, nil
}

// machineTime returns the CPU time that was not idle.
func machineTime() (t time.Duration, err error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	for i, f := range strings.Fields(line)[1:9] { // user to steal; guests are in user
		if i != 3 && i != 4 { // idle, iowait
			t += ticks(f)
		}
	}
	return t, nil
}

// ticks reads a count of USER_HZ, which is 100 on every architecture that Go knows.
func ticks(s string) time.Duration {
	n, _ := strconv.ParseInt(s, 10, 64)
	return time.Duration(n) * 10 * time.Millisecond
}

// stat returns the fields of /proc/PID/stat that follow the name: state first. It
// returns nil if there is no such process.
func stat(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	s := string(data)
	return strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
}

// processes returns pid and its descendants.
func processes(pid int) []int {
	children := make(map[int][]int)
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		child, _ := strconv.Atoi(filepath.Base(dir))
		if f := stat(child); f != nil {
			parent, _ := strconv.Atoi(f[1])
			children[parent] = append(children[parent], child)
		}
	}
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i]]...)
	}
	return list
}
