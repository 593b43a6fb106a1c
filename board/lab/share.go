package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Steer has packets that come to the node, by the interfaces that it has now, handled on these processors (RPS), whoever
// sent them: what is sent from one processor over virtual cables would else be its own work as far as the receiver's socket.
func (n *Node) Steer(cpus ...int) {
	n.lab.Helper()
	var mask uint64
	for _, c := range cpus {
		mask |= 1 << c
	}
	for _, i := range n.Interfaces("") {
		if i.Name != "lo" {
			n.sysfs("class/net/"+i.Name+"/queues/rx-0/rps_cpus", fmt.Sprintf("%x", mask))
		}
	}
}

// sharePeriod is short, so that who has used up a share is not away for longer than a busy router's processor may be.
const sharePeriod = 4000 // microseconds

// Share holds the programs that run on the node now, and those that they start, together to so many hundredths of one
// processor (cgroups, version 1 or 2). It is for labs that run [Here].
func (n *Node) Share(percent int) {
	n.lab.Helper()
	n.lab.Must(n.share(percent), "hold "+n.Name+" to its share of a processor")
}

func (n *Node) share(percent int) error {
	quota := sharePeriod * percent / 100
	name := fmt.Sprintf("culvert-lab-%d-%s", n.inode, n.Name)
	limits := map[string]string{"cpu.cfs_period_us": strconv.Itoa(sharePeriod), "cpu.cfs_quota_us": strconv.Itoa(quota)}
	dir := filepath.Join("/sys/fs/cgroup/cpu", name)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		const root = "/sys/fs/cgroup"
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+cpu"), 0); err != nil {
			return err
		}
		dir, limits = filepath.Join(root, name), map[string]string{"cpu.max": fmt.Sprintf("%d %d", quota, sharePeriod)}
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "culvert-lab-*"))
	for _, dir := range left {
		unix.Rmdir(dir) // of runs that were killed; one in use stays
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	n.lab.Cleanup(func() {
		n.Kill()
		// The kernel lets go of the last process a moment after its end.
		waitFor(context.Background(), 5*time.Second, func() bool { return !errors.Is(unix.Rmdir(dir), unix.EBUSY) })
	})
	for file, value := range limits {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
			return err
		}
	}
	for _, pid := range n.Processes() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// sysfs writes a file of the node's /sys.
func (n *Node) sysfs(name, value string) {
	n.lab.Helper()
	var err error
	n.Do(func() { err = os.WriteFile("/sys/"+name, []byte(value), 0) })
	n.lab.Must(err, "set "+name+" on "+n.Name)
}
