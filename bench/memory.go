package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// memory is what a relay holds at a moment, in KiB.
type memory struct {
	rss         int // of its processes
	pss         int // the same, with its part of what processes share, without files
	descriptors int
	kernel      int // of the whole machine: slab, stacks, page tables, and what sockets hold
}

// memory returns what p holds now.
func (p *running) memory() (m memory, err error) {
	for _, pid := range processes(p.cmd.Process.Pid) {
		f, err := kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return m, fmt.Errorf("%s has ended: %w", p.name, err)
		}
		m.rss += f["Rss"]
		// The pages of programs and libraries are left out: which part of them
		// is this process's depends on what else runs at the moment.
		m.pss += f["Pss_Anon"] + f["Pss_Shmem"]
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return m, err
		}
		m.descriptors += len(fds)
	}
	f, err := kilobytes("/proc/meminfo")
	if err != nil {
		return m, err
	}
	m.kernel = slab(f["Slab"]) + f["KernelStack"] + f["PageTables"] + socketMemory()
	return m, nil
}

// kilobytes reads a file of lines like "Rss:  12 kB".
func kilobytes(file string) (map[string]int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	values := make(map[string]int)
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) == 3 && f[2] == "kB" {
			values[strings.TrimSuffix(f[0], ":")], _ = strconv.Atoi(f[1])
		}
	}
	return values, nil
}

// slab returns what the kernel's objects take, given the pages that it has for them,
// some of which it keeps for later. For root, /proc/slabinfo counts the objects;
// what is larger than two pages is not in there, and has pages of its own.
func slab(pages int) int {
	data, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		return pages
	}
	objects, slabs := 0, 0 // bytes, pages
	for line := range strings.Lines(string(data)) {
		// name, objects in use, objects, size, objects per slab, pages per slab ... slabs, shared
		f := strings.Fields(line)
		if len(f) != 16 {
			continue
		}
		n := func(i int) int { v, _ := strconv.Atoi(f[i]); return v }
		objects += n(1) * n(3)
		slabs += n(14) * n(5)
	}
	return objects/1024 + pages - slabs*os.Getpagesize()/1024
}

// socketMemory returns what TCP holds for buffers.
func socketMemory() int {
	data, _ := os.ReadFile("/proc/self/net/sockstat")
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "TCP:" {
			pages, _ := strconv.Atoi(f[len(f)-1])
			return pages * os.Getpagesize() / 1024
		}
	}
	return 0
}
