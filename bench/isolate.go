package main

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolatedVariable is set in the process that measures.
const isolatedVariable = "SWIVEL_BENCH_ISOLATED"

// inside reports whether this is the process that isolated has started. By the
// variable alone, someone who sets it would have the host's /proc mounted over.
func inside() bool { return os.Getpid() == 1 && os.Getenv(isolatedVariable) != "" }

// isolated runs this command again as the first process of new namespaces: with
// that process the kernel ends whatever it has started.
func isolated() error {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), isolatedVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		// Sent when the thread that starts it ends, which main has locked.
		Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	// What has been measured when someone interrupts is still printed.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT, syscall.SIGTERM)
	go func() { // until the process ends
		for s := range interrupts {
			cmd.Process.Signal(s)
		}
	}()
	return cmd.Wait()
}

// furnish makes new namespaces usable: a /proc that shows them, and loopback.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount private", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return os.NewSyscallError("mount /proc", err)
	}
	for file, value := range map[string]string{
		"net/ipv4/ip_local_port_range": "10000 65535",
		// Bounds what closed connections leave behind from one relay to the next.
		"net/ipv4/tcp_max_tw_buckets": "10000",
	} {
		if err := os.WriteFile("/proc/sys/"+file, []byte(value), 0); err != nil {
			return err
		}
	}
	return loopbackUp()
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return os.NewSyscallError("ioctl SIOCSIFFLAGS", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}
