package main

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
)

// labPath is the server's data path in a test: what passes on one has to pass on all.
type labPath string

const (
	pathKernel    labPath = ""
	pathUserspace labPath = "userspace" // although the kernel could
	pathMixed     labPath = "mixed"     // a kernel with ESP and without PPP
)

func (p labPath) setting() string {
	switch p {
	case pathKernel:
		return "kernel"
	case pathMixed:
		return "auto"
	}
	return string(p)
}

// prepare makes the node's kernel one that the path is the best for.
func (p labPath) prepare(n *lab.Node) {
	if p != pathMixed {
		return
	}
	// Opening a socket's file says ENXIO, as that of a device without a driver does.
	var err error
	n.Do(func() {
		const nothing = "/run/no-driver"
		if err = unix.Mknod(nothing, unix.S_IFSOCK|0o600, 0); err == nil || errors.Is(err, fs.ErrExist) {
			err = unix.Mount(nothing, "/dev/ppp", "", unix.MS_BIND, "")
		}
	})
	if err != nil {
		panic("hide /dev/ppp: " + err.Error())
	}
}

// check sees that the server took the path.
func (p labPath) check(t *testing.T, l *lab.L, c *lab.Culvert) {
	t.Helper()
	want := map[labPath]string{pathKernel: "+kernel+kernel", pathUserspace: "+user+user", pathMixed: "xfrm+user+user"}[p]
	if lines := c.Lines("data path chosen", want); len(lines) != 1 {
		t.Fatalf("the data path is not ...%s:\n%s", want, c.Log())
	}
}

// onKernel is a scenario on the kernel's data path.
func onKernel(f func(t *testing.T, l *lab.L, path labPath)) func(*testing.T, *lab.L) {
	return func(t *testing.T, l *lab.L) { f(t, l, pathKernel) }
}

// scenarios are what the other data paths are tested with; the kernel's have tests of their own, on both kernels.
var scenarios = []struct {
	name string
	run  func(t *testing.T, l *lab.L, path labPath)
}{
	{"direct", direct},
	{"behind a NAT", behindNAT},
	{"five behind a NAT", fiveBehindNAT},
	{"refusals", refusals},
	{"cleartext", cleartext},
	{"foreign tunnel", foreignTunnel},
	{"client killed", clientKilled},
	{"server killed", serverKilled},
	{"shutdown", shutdown},
	{"rekey", rekey},
	{"calls", callsDirect},
	{"calls behind a NAT", callsNAT},
	{"calls on demand", callsOnDemand},
}

// Each path has one guest for all of them.
func TestLabUserspace(t *testing.T) { allScenarios(t, pathUserspace) }
func TestLabMixed(t *testing.T)     { allScenarios(t, pathMixed) }

func allScenarios(t *testing.T, path labPath) {
	inLab(t, func(t *testing.T, l *lab.L) {
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) { s.run(t, l.Sub(t), path) })
		}
	}, lab.Kernels("6.12"), lab.Memory("1G"), lab.Timeout(12*time.Minute))
}
