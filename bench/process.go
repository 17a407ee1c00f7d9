package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// running is a relay that has been started.
type running struct {
	*relay
	cmd  *exec.Cmd
	addr netip.AddrPort
	out  *os.File // what it says on stderr

	segment int // of the tunnels that are opened; see dial
}

// site is where a relay runs.
type site struct {
	dir     string // its own
	config  string // its configuration file, in dir
	listen  netip.AddrPort
	origin  netip.AddrPort
	isRoot  bool
	cores   int
	maximum int // connections that it is to bear
}

// startTimeout is how long a relay may take until it relays.
const startTimeout = 10 * time.Second

// start runs r and waits until it relays. A uid other than zero is the user that it
// runs as.
func (b *bench) start(ctx context.Context, r *relay, uid int) (*running, error) {
	return b.startFor(ctx, r, uid, b.origin.addr)
}

// startFor is start with another origin.
func (b *bench) startFor(ctx context.Context, r *relay, uid int, origin netip.AddrPort) (*running, error) {
	s, err := b.site(r, uid, origin)
	if err != nil {
		return nil, err
	}
	out, err := os.Create(filepath.Join(s.dir, "stderr"))
	if err != nil {
		return nil, err
	}
	p := &running{relay: r, addr: s.listen, out: out}
	p.cmd = exec.Command(r.file, r.args(s)...)
	p.cmd.Dir, p.cmd.Stderr = s.dir, out // stdout, where access logs go, is /dev/null
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, r.env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid != 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	err = errors.New("not tried")
	for end := time.Now().Add(startTimeout); err != nil && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(5 * time.Millisecond)
		err = p.relays(origin)
	}
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("start: %w%s", err, p.lastWords())
	}
	b.origin.settle(0)
	return p, nil
}

// relays reports, as an error, whether p does not relay yet.
func (p *running) relays(origin netip.AddrPort) error {
	if p.datagrams {
		return p.answersDatagrams()
	}
	c, err := p.tunnel(origin)
	if err == nil {
		c.close()
	}
	return err
}

// site makes the directory and the configuration that r is started with.
func (b *bench) site(r *relay, uid int, origin netip.AddrPort) (site, error) {
	s := site{origin: origin, isRoot: os.Geteuid() == 0 && uid == 0, cores: numCPU(), maximum: 6000}
	free := listen
	if r.datagrams {
		free, s.maximum = bindUDP, 10000
	}
	fd, addr, err := free()
	if err != nil {
		return s, err
	}
	unix.Close(fd) // the port is the relay's now; nobody else takes one
	s.listen = addr
	if s.dir, err = os.MkdirTemp(b.dir, r.name); err != nil {
		return s, err
	}
	if uid != 0 {
		if err := os.Chown(s.dir, uid, uid); err != nil {
			return s, err
		}
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return s, err
	}
	s.config = filepath.Join(s.dir, "config")
	if r.config == nil {
		return s, nil
	}
	return s, os.WriteFile(s.config, []byte(r.config(s)), 0o644)
}

// stop ends the relay and all of its processes.
func (p *running) stop() {
	unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
	p.cmd.Wait()
}

// lastWords returns the end of what the relay said on stderr.
func (p *running) lastWords() string {
	defer p.out.Close()
	data, _ := io.ReadAll(io.NewSectionReader(p.out, 0, 1<<16))
	data = bytes.TrimSpace(data)
	if i := bytes.LastIndexByte(data, '\n'); i >= 0 {
		data = data[i+1:]
	}
	if len(data) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s)", data)
}

// startAll runs all relays that take part in the work. It notes those that do not
// start.
func (b *bench) startAll(ctx context.Context, w string) (list []*running) {
	for _, r := range b.relays {
		if !r.does(w) {
			continue
		}
		p, err := b.start(ctx, r, 0)
		if err != nil {
			b.report.note(r.name, err)
			continue
		}
		list = append(list, p)
	}
	return list
}

func stopAll(list []*running) {
	for _, p := range list {
		p.stop()
		p.out.Close()
	}
}

// goBuild builds swivel from the module that this command belongs to.
func goBuild(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", file, "swivel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build swivel: %w (run this inside the module, or say -swivel file)", err)
	}
	return nil
}

// copySelf makes a copy of this program that other users may run: go run keeps its
// own in a directory of this user.
func copySelf(file string) error {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o755)
}

// lookPath returns the path of a program, or "" if there is none.
func lookPath(file string) string {
	// Daemons live where users other than root do not look.
	for _, dir := range []string{"", "/usr/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, file)); err == nil {
			return path
		}
	}
	return ""
}
