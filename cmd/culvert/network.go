package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/ppp/netif"
)

// network sets up the router's own interfaces as `[network]` says, for an image that has nothing else to do it. Without the
// section it touches nothing. It works on a goroutine of its own: interfaces may come late, and the kernel may be slow.
type network struct {
	log    *slog.Logger
	resolv *resolvConf
	want   chan config.Network
	done   chan struct{}

	ifaces map[string]*netif.Interface
	leases map[string]*dhcpClient
}

// networkRetry is how often an interface that is not there is looked for.
const networkRetry = 2 * time.Second

// dhcpScript gets the lease from busybox's udhcpc and sets it; the root file system brings it.
const dhcpScript = "/usr/share/udhcpc/default.script"

// startNetwork begins with want, and goes over to what is sent later; it ends with ctx, and leaves everything as it is.
func startNetwork(ctx context.Context, want config.Network, resolv *resolvConf, log *slog.Logger) *network {
	n := &network{
		log: log, resolv: resolv, want: make(chan config.Network, 1), done: make(chan struct{}),
		ifaces: make(map[string]*netif.Interface), leases: make(map[string]*dhcpClient),
	}
	go n.run(ctx, want)
	return n
}

// change goes over to another configuration. It is called on the loop, and so never waits.
func (n *network) change(want config.Network) {
	select {
	case <-n.want: // nobody has seen it yet
	default:
	}
	n.want <- want
}

func (n *network) run(ctx context.Context, want config.Network) {
	defer close(n.done)
	var told []string // what has been said about a failure is not said at every attempt
	for {
		var retry <-chan time.Time
		if failed := n.apply(want); len(failed) > 0 {
			var text []string
			for _, err := range failed {
				text = append(text, err.Error())
			}
			if !reflect.DeepEqual(text, told) {
				n.log.Warn("the network is not as configured yet", "error", errors.Join(failed...))
			}
			told = text
			retry = time.After(networkRetry)
		} else if told != nil {
			n.log.Info("the network is as configured")
			told = nil
		}
		select {
		case <-ctx.Done():
			for _, c := range n.leases {
				c.stop()
			}
			return
		case want = <-n.want:
		case <-retry:
		}
	}
}

// apply does what can be done and returns what could not.
func (n *network) apply(want config.Network) (failed []error) {
	fail := func(err error) {
		if err != nil {
			failed = append(failed, err)
		}
	}
	if !want.Managed && len(n.ifaces) == 0 {
		return nil
	}
	handle, err := netif.New()
	if err != nil {
		return []error{err}
	}
	defer handle.Close()
	if want.Managed {
		fail(setForwarding(want.Forward))
		fail(n.resolv.set(peerDNS{client: "[network]", servers: want.DNS, own: true}))
	}
	keep := make(map[string]bool)
	for _, w := range want.Interfaces {
		if w.Disabled {
			continue
		}
		keep[w.Name] = true
		i, err := handle.ByName(w.Name)
		if err != nil {
			fail(err)
			continue
		}
		if old := n.ifaces[w.Name]; old == nil || old.Index() != i.Index() {
			n.ifaces[w.Name] = i
		}
		fail(i.SetNetwork(w.Addresses, w.DHCP, w.MTU))
		var routes []netif.Route
		for _, r := range w.Routes {
			routes = append(routes, netif.Route(r))
		}
		fail(i.SetRoutes(routes))
		if c := n.leases[w.Name]; w.DHCP && c == nil {
			n.leases[w.Name] = startDHCP(w.Name, n.log)
		} else if !w.DHCP && c != nil {
			c.stop()
			delete(n.leases, w.Name)
			fail(i.SetNetwork(w.Addresses, false, w.MTU))
		}
	}
	for name := range n.ifaces {
		if keep[name] {
			continue
		}
		if c := n.leases[name]; c != nil {
			c.stop()
			delete(n.leases, name)
		}
		if i, err := handle.ByName(name); err == nil {
			fail(i.SetNetwork(nil, false, 0))
		}
		delete(n.ifaces, name)
	}
	return failed
}

// setForwarding lets the machine be a router, or not.
func setForwarding(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0)
	if err6 := os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte(value), 0); !errors.Is(err6, os.ErrNotExist) {
		err = errors.Join(err, err6)
	}
	return err
}

// dhcpClient keeps busybox's udhcpc running on one interface.
type dhcpClient struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func startDHCP(ifname string, log *slog.Logger) *dhcpClient {
	ctx, cancel := context.WithCancel(context.Background())
	c := &dhcpClient{cancel, make(chan struct{})}
	go func() {
		defer close(c.done)
		// The child dies with the thread that started it, and so with this process.
		runtime.LockOSThread()
		for {
			err := runDHCP(ctx, ifname, log)
			if ctx.Err() != nil {
				return
			}
			log.Warn("the DHCP client ended, and is started again", "interface", ifname, "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Second):
			}
		}
	}()
	return c
}

func (c *dhcpClient) stop() {
	c.cancel()
	<-c.done
}

func runDHCP(ctx context.Context, ifname string, log *slog.Logger) error {
	program, err := exec.LookPath("udhcpc")
	if err != nil {
		return fmt.Errorf("%w: install busybox's udhcpc, or give the interface an address", err)
	}
	cmd := exec.CommandContext(ctx, program, "-f", "-i", ifname, "-s", dhcpScript)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	said, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	cmd.Stdout = cmd.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		text := strings.TrimPrefix(lines.Text(), "udhcpc: ")
		if strings.Contains(text, "lease of") {
			log.Info("DHCP", "interface", ifname, "says", text)
		} else {
			log.Debug("DHCP", "interface", ifname, "says", text)
		}
	}
	return cmd.Wait()
}
