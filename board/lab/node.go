package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Node is a machine of the lab's network: a network namespace, and a mount namespace with an /etc, /var and /run of its
// own, so that every daemon finds its configuration and its sockets where it looks for them.
type Node struct {
	Name string
	Up   *Link // to the router it was attached to first; nil for a router

	lab      *L
	net, mnt *os.File
	tid      int // the thread that keeps the namespaces, by which ip(8) finds them
	inode    uint64
	quit     chan struct{}
	links    int
	logs     []string // files that daemons write besides their output
	cpus     unix.CPUSet
}

// Namespace makes a node without any link but its loopback.
func (l *L) Namespace(name string) *Node {
	l.Helper()
	n := &Node{Name: name, lab: l, quit: make(chan struct{})}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and its namespaces end together
		err := n.make()
		ready <- err
		if err == nil {
			<-n.quit
		}
	}()
	if err := <-ready; err != nil {
		l.Fatalf("make namespace %s: %v", name, err)
	}
	l.m.mu.Lock()
	l.m.nodes = append(l.m.nodes, n)
	l.m.mu.Unlock()
	return n
}

// make turns the calling thread into the node's first.
func (n *Node) make() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	const private = "/run/.private"
	layer := func(dir string) func() error {
		up, work := private+dir+"/up", private+dir+"/work"
		return func() error {
			if err := mkdir(up, work)(); err != nil {
				return err
			}
			return mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+up+",workdir="+work)()
		}
	}
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		mount("run", "/run", "tmpfs", 0, "mode=755"),
		mkdir("/run/lock", private),
		layer("/etc"),
		layer("/var"),
		mount("sys", "/sys", "sysfs", 0, ""), // shows this namespace's interfaces
		func() error { return unix.Sethostname([]byte(n.Name)) },
		func() error { return linkUp("lo") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	var err error
	if n.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if n.mnt, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(n.net.Fd()), &st); err != nil {
		return err
	}
	n.inode, n.tid = st.Ino, unix.Gettid()
	return nil
}

// Do runs f on a thread of the node and waits for it. Sockets opened, files touched and processes started by f itself
// (not by goroutines that it starts) are the node's. f must not fail the test: that is for the test's own goroutine.
func (n *Node) Do(f func()) {
	done := make(chan struct{})
	n.Go(func() {
		defer close(done)
		f()
	})
	<-done
}

// Go is Do without waiting.
func (n *Node) Go(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: a thread that has left home is not used again
		if err := n.enter(); err != nil {
			panic(fmt.Sprintf("lab: enter namespace %s: %v", n.Name, err))
		}
		f()
	}()
}

// Pin has the programs that are started on the node from now on run on these processors only; none means all.
func (n *Node) Pin(cpus ...int) {
	n.cpus.Zero()
	for _, c := range cpus {
		n.cpus.Set(c)
	}
}

func (n *Node) enter() error {
	if n.cpus.Count() > 0 {
		if err := unix.SchedSetaffinity(0, &n.cpus); err != nil {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(int(n.mnt.Fd()), unix.CLONE_NEWNS); err != nil {
		return err
	}
	return unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET)
}

// A Cmd is an exec.Cmd that starts in a node.
type Cmd struct {
	*exec.Cmd
	node *Node
}

// Command prepares a program to run in the node; it is killed when ctx ends.
func (n *Node) Command(ctx context.Context, argv ...string) *Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = 2 * time.Second
	return &Cmd{cmd, n}
}

// Start starts the program in the node.
func (c *Cmd) Start() (err error) {
	c.node.Do(func() { err = c.Cmd.Start() })
	return err
}

// Run starts the program and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns what it wrote to its standard output; the error carries the rest.
func (c *Cmd) Output() ([]byte, error) {
	var out, diag bytes.Buffer
	c.Stdout, c.Stderr = &out, &diag
	if err := c.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, strings.TrimSpace(diag.String()))
	}
	return out.Bytes(), nil
}

// CombinedOutput runs the program and returns all that it wrote.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Run runs a program in the node to its end and returns its standard output; failure fails the test.
func (n *Node) Run(argv ...string) string {
	n.lab.Helper()
	out, err := n.Command(n.lab.Context(), argv...).Output()
	if err != nil {
		n.lab.Fatalf("on %s: %v", n.Name, err)
	}
	return string(out)
}

// IP runs ip(8) with several of its commands at once.
func (n *Node) IP(commands ...string) {
	n.lab.Helper()
	cmd := n.Command(n.lab.Context(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		n.lab.Fatalf("on %s: ip: %v\n%s\nof\n%s", n.Name, err, out, strings.Join(commands, "\n"))
	}
}

// WriteFile writes a file as the node sees it, with its directories.
func (n *Node) WriteFile(name, content string) {
	n.lab.Helper()
	var err error
	n.Do(func() {
		if err = os.MkdirAll(filepath.Dir(name), 0o755); err == nil {
			os.Remove(name) // what lies below may be a link or have another mode
			err = os.WriteFile(name, []byte(content), 0o600)
		}
	})
	n.lab.Must(err, "write "+name+" on "+n.Name)
}

// ReadFile reads a file as the node sees it.
func (n *Node) ReadFile(name string) (b []byte, err error) {
	n.Do(func() { b, err = os.ReadFile(name) })
	return b, err
}

// Sysctl sets a parameter of the node's network: "net.ipv4.ip_forward".
func (n *Node) Sysctl(name, value string) {
	n.lab.Helper()
	var err error
	n.Do(func() {
		err = os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0o644)
	})
	n.lab.Must(err, "set "+name+" on "+n.Name)
}

// Interfaces lists the node's interfaces whose name starts with prefix.
func (n *Node) Interfaces(prefix string) (found []net.Interface) {
	n.Do(func() {
		all, err := net.Interfaces()
		if err != nil {
			return
		}
		for _, i := range all {
			if strings.HasPrefix(i.Name, prefix) {
				found = append(found, i)
			}
		}
	})
	return found
}

// Addr returns the first IPv4 address of an interface, invalid when there is none.
func (n *Node) Addr(iface string) (addr netip.Addr) {
	n.Do(func() {
		i, err := net.InterfaceByName(iface)
		if err != nil {
			return
		}
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				addr = p.Addr()
				return
			}
		}
	})
	return addr
}

// Processes returns the ids of the processes in the node.
func (n *Node) Processes() (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || pid == 1 {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && st.Ino == n.inode {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Kill ends every process in the node at once, as a power cut would: nobody says goodbye. It returns when they are gone.
func (n *Node) Kill() {
	waitFor(context.Background(), 5*time.Second, func() bool {
		pids := n.Processes()
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		return len(pids) == 0
	})
}

// close ends the node's processes and gives its namespaces up.
func (n *Node) close() {
	n.Kill()
	n.net.Close()
	n.mnt.Close()
	close(n.quit)
}

// FlushIPsec removes the kernel state that a killed IKE daemon leaves behind, as a reboot would.
func (n *Node) FlushIPsec() {
	n.lab.Helper()
	n.IP("xfrm state flush", "xfrm policy flush")
}

// IPsecState returns the kernel's security associations and policies in ip(8)'s words; empty when there are none.
// The socket policies by which IKE daemons exempt themselves do not count.
func (n *Node) IPsecState() string {
	n.lab.Helper()
	state := n.Run("ip", "xfrm", "state")
	var policies []string
	var block []string
	flush := func() {
		if text := strings.Join(block, "\n"); text != "" && !strings.Contains(text, "socket ") {
			policies = append(policies, text)
		}
		block = nil
	}
	for _, line := range strings.Split(n.Run("ip", "xfrm", "policy"), "\n") {
		if line != "" && line[0] != '\t' && line[0] != ' ' {
			flush()
		}
		if line != "" {
			block = append(block, line)
		}
	}
	flush()
	return strings.TrimSpace(state + "\n" + strings.Join(policies, "\n"))
}
