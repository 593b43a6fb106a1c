package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A ClientConfig says how a client reaches its server.
type ClientConfig struct {
	Server         netip.Addr
	User, Password string
	IKE            IKE           // nothing to authenticate with: plain L2TP
	LAC            LAC           // Server, User, Password and, where IKE names one, Port are taken from above
	Timeout        time.Duration // for each of IKE and L2TP with PPP; 30 s when 0
}

// A Client is a strongSwan + xl2tpd + pppd client on a node of its own.
type Client struct {
	*Node
	Config ClientConfig
	Charon *Charon // nil for plain L2TP, and before Connect
	L2TP   *XL2TPD
}

// NewClient makes a client of a node; nothing runs before Connect.
func NewClient(n *Node, c ClientConfig) *Client {
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	c.LAC.Server, c.LAC.User, c.LAC.Password = c.Server, c.User, c.Password
	if c.IKE.Port != 0 {
		c.LAC.Port = c.IKE.Port
	}
	return &Client{Node: n, Config: c}
}

// Connect starts what is not running, negotiates, and returns the address that the server gave.
// It may be called from any goroutine.
func (c *Client) Connect(ctx context.Context) (netip.Addr, error) {
	if err := c.Secure(ctx); err != nil {
		return netip.Addr{}, err
	}
	return c.Dial(ctx)
}

// Secure is the IPsec half of Connect.
func (c *Client) Secure(ctx context.Context) (err error) {
	if !c.Config.IKE.Secures() {
		return nil
	}
	if c.Charon == nil || !c.Charon.Running() {
		if c.Charon, err = c.Node.Charon(); err != nil {
			return err
		}
		if err := c.Charon.Load(ctx, c.Config.Server, c.Config.IKE); err != nil {
			return err
		}
	}
	return c.Charon.Initiate(ctx, c.Config.Timeout)
}

// Dial is the L2TP and PPP half of Connect.
func (c *Client) Dial(ctx context.Context) (addr netip.Addr, err error) {
	if c.L2TP == nil || !c.L2TP.Running() {
		if c.L2TP, err = c.Node.LAC(c.Config.LAC); err != nil {
			return netip.Addr{}, err
		}
	}
	from := len(c.pppd())
	if err := c.L2TP.Call(); err != nil {
		return netip.Addr{}, err
	}
	var failure error
	up := waitFor(ctx, c.Config.Timeout, func() bool {
		// pppd sets the address, takes it back and sets it again before it says so.
		if strings.Contains(c.pppd()[from:], "remote IP address ") {
			addr = c.Addr("ppp0")
			return addr.IsValid()
		}
		failure = c.refused(from)
		return failure != nil
	})
	switch {
	case failure != nil:
		return netip.Addr{}, failure
	case !up:
		return netip.Addr{}, fmt.Errorf("%s: no address within %v of calling", c.Name, c.Config.Timeout)
	}
	return addr, nil
}

// pppd returns what pppd has logged.
func (c *Client) pppd() string {
	b, _ := c.ReadFile(pppdLog)
	return string(b)
}

// ErrAuth is the server's refusal of the name or the password.
var ErrAuth = errors.New("authentication failed")

// refused looks for the reason why the call that began at that length of pppd's log will not come up.
func (c *Client) refused(from int) error {
	log := c.pppd()
	log = log[min(from, len(log)):]
	switch {
	case strings.Contains(log, "authentication failed") || strings.Contains(log, "uthentication failure"):
		return fmt.Errorf("%s: %w: %s", c.Name, ErrAuth, grep(log, "uthentication fail"))
	case strings.Contains(log, "LCP terminated by peer"):
		return fmt.Errorf("%s: %s", c.Name, grep(log, "LCP terminated by peer"))
	case !c.L2TP.Running():
		return fmt.Errorf("%s: xl2tpd ended", c.Name)
	}
	return nil
}

func grep(log, word string) string {
	for _, line := range strings.Split(log, "\n") {
		if strings.Contains(line, word) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// Inner is the address that the server has inside the tunnel, as of the last call.
func (c *Client) Inner() (addr netip.Addr) {
	for _, line := range strings.Split(c.pppd(), "\n") {
		if _, s, ok := strings.Cut(line, "remote IP address "); ok {
			if a, err := netip.ParseAddr(strings.TrimSpace(s)); err == nil {
				addr = a
			}
		}
	}
	return addr
}

// Disconnect takes the session, the tunnel and the SAs down in order, and waits until the client is rid of them.
func (c *Client) Disconnect(ctx context.Context) error {
	if c.L2TP != nil && c.L2TP.Running() {
		// pppd first, as NetworkManager does it: told to hang up, xl2tpd would cut the session under pppd, whose farewell
		// then waits six seconds for nobody.
		c.signalPPPD(syscall.SIGTERM)
		if !waitFor(ctx, 10*time.Second, func() bool { return len(c.Interfaces("ppp")) == 0 }) {
			return fmt.Errorf("%s: the session did not go down", c.Name)
		}
		if err := c.L2TP.HangUp(); err != nil {
			return err
		}
	}
	if c.Charon != nil && c.Charon.Running() {
		// The last StopCCN and its acknowledgement still need the SA.
		waitFor(ctx, 2*time.Second, func() bool { return c.L2TP == nil || len(c.L2TP.Lines("Connection", "closed to")) > 0 })
		return c.Charon.Terminate(ctx)
	}
	return nil
}

// signalPPPD signals the pppd that xl2tpd runs.
func (c *Client) signalPPPD(s syscall.Signal) {
	b, err := c.ReadFile("/run/ppp0.pid")
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
		syscall.Kill(pid, s)
	}
}

// Kill makes the client vanish without a word, its kernel's state with it.
func (c *Client) Kill() {
	c.Node.Kill()
	c.FlushIPsec()
	c.Charon, c.L2TP = nil, nil
	c.Do(func() { os.Remove(pppdLog); os.Remove("/run/charon.vici"); os.Remove("/run/charon.pid") })
}
