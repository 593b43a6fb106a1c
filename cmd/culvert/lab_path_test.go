package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
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

// toml is the configuration's part that asks for the path.
func (p labPath) toml() string { return fmt.Sprintf("[system]\ndata-path = %q\n", p.setting()) }

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
func (p labPath) check(t *testing.T, c *lab.Culvert) {
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

// less is how much of n a path takes that is not the kernel's: what these tests show does not need as much of it.
func less[N ~int64](p labPath, n N) N {
	if p == pathKernel {
		return n
	}
	return n / 4
}

// A scenario passes on every data path.
type scenario struct {
	name string
	run  func(t *testing.T, l *lab.L, path labPath)
}

// scenarios are what the other data paths are tested with; the kernel's have tests of their own, on both kernels.
var scenarios = []scenario{
	{"direct", direct},
	{"behind a NAT", behindNAT},
	{"five behind a NAT", fiveBehindNAT},
	{"refusals", refusals},
	{"cleartext", cleartext},
	{"early", early},
	{"foreign tunnel", foreignTunnel},
	{"rebind", rebind},
	{"client killed", clientKilled},
	{"server killed", serverKilled},
	{"shutdown", shutdown},
	{"rekey", rekey},
}

// clientScenarios are the same for the calling side.
var clientScenarios = []scenario{
	{"direct", callsDirect},
	{"behind a NAT", callsNAT},
	{"plain", callsPlain},
	{"on demand", callsOnDemand},
	{"refused", clientRefused},
	{"server gone", serverGone},
	{"culvert on the kernel", func(t *testing.T, l *lab.L, path labPath) { culvertCallsCulvert(t, l, path, pathKernel) }},
	{"called from the kernel", func(t *testing.T, l *lab.L, path labPath) { culvertCallsCulvert(t, l, pathKernel, path) }},
}

// siteScenarios are those of routers that call.
var siteScenarios = []scenario{
	{"VRF", inVRF},
	{"VRF behind a NAT", inVRFBehindNAT},
	{"answers from elsewhere", answersElsewhere},
	{"site to site", siteToSite},
	{"IPv6 outside", overIPv6},
	{"settings", callSettings},
}

// Each path has one guest for all of its scenarios, or two.
func TestLabUserspace(t *testing.T)       { allScenarios(t, pathUserspace, scenarios, "6.12") }
func TestLabUserspaceClient(t *testing.T) { allScenarios(t, pathUserspace, clientScenarios, "6.12") }
func TestLabUserspaceSite(t *testing.T)   { allScenarios(t, pathUserspace, siteScenarios, "6.12") }
func TestLabMixed(t *testing.T) {
	allScenarios(t, pathMixed, pick("behind a NAT", "five behind a NAT", "cleartext", "early", "foreign tunnel", "shutdown"), "6.12")
}

// An older kernel knows less of what the sockets ask for.
func TestLabUserspaceOld(t *testing.T) {
	allScenarios(t, pathUserspace, pick("direct", "behind a NAT"), "6.1")
}

func pick(names ...string) (out []scenario) {
	for _, s := range scenarios {
		if slices.Contains(names, s.name) {
			out = append(out, s)
		}
	}
	return out
}

func allScenarios(t *testing.T, path labPath, what []scenario, kernel string) {
	inLab(t, func(t *testing.T, l *lab.L) {
		for _, s := range what {
			t.Run(s.name, func(t *testing.T) { s.run(t, l.Sub(t), path) })
		}
	}, lab.Kernels(kernel), lab.Memory("1G"), lab.Timeout(12*time.Minute))
}
