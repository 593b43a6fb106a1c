package lab

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An XL2TPD is the daemon xl2tpd on a node, which runs a pppd for each session.
type XL2TPD struct {
	*Daemon
	node *Node
}

const (
	xl2tpdControl = "/run/xl2tpd/l2tp-control"
	pppdLog       = "/run/pppd.log"
)

func (n *Node) xl2tpd(conf, pppOptions string) (*XL2TPD, error) {
	// Even root of the guest reads the host's files as whoever started the guest, and pppd is for root and a group only.
	if f, err := os.Open("/usr/sbin/pppd"); err != nil {
		return nil, fmt.Errorf("pppd cannot be read: run the lab as root, or as a member of pppd's group: %w", err)
	} else {
		f.Close()
	}
	n.WriteFile("/etc/xl2tpd/xl2tpd.conf", conf)
	n.WriteFile("/etc/xl2tpd/l2tp-secrets", "")
	n.WriteFile("/etc/ppp/options", "")
	n.WriteFile("/etc/ppp/options.lab", pppOptions)
	n.WriteFile("/run/xl2tpd/.keep", "")
	n.Do(func() { // what a distribution does when a link comes up is not under test, and costs a dozen processes each time
		for _, script := range []string{"ip-pre-up", "ip-up", "ip-down", "ipv6-up", "ipv6-down"} {
			os.Remove("/etc/ppp/" + script)
		}
	})
	n.logs = []string{pppdLog}
	d, err := n.StartDaemon("xl2tpd", "xl2tpd", "-D", "-C", xl2tpdControl, "-p", "/run/xl2tpd.pid")
	if err != nil {
		return nil, err
	}
	x := &XL2TPD{d, n}
	if !waitFor(n.lab.Context(), time.Minute, func() bool { return !d.Running() || len(d.Lines("Listening on IP address")) > 0 }) || !d.Running() {
		return nil, fmt.Errorf("xl2tpd did not start: %s", lastLines(d.Log(), 5))
	}
	return x, nil
}

// LAC says whom xl2tpd and pppd shall call, and as who.
type LAC struct {
	Server         netip.Addr
	Port           int // source port; 0: an ephemeral one
	User, Password string
	Auth           string        // the one method to agree to: "mschap-v2" (also when empty), "mschap", "chap", "pap", "eap"
	Echo           time.Duration // LCP echo interval; 0: none
	MTU            int           // 1400 when 0
	Redial         time.Duration // call again that long after a session was lost; 0: never
	PPP            []string      // more options of pppd
	Conf           []string      // more lines of the lac section
}

// LAC starts xl2tpd as a client; Call makes it connect.
func (n *Node) LAC(c LAC) (*XL2TPD, error) {
	auth := c.Auth
	if auth == "" {
		auth = "mschap-v2"
	}
	mtu := c.MTU
	if mtu == 0 {
		mtu = 1400
	}
	opts := []string{"noauth", "nodefaultroute", "ipcp-accept-local", "ipcp-accept-remote", "noccp", "nobsdcomp", "nodeflate",
		"novj", "debug", "logfile " + pppdLog, fmt.Sprintf("mtu %d", mtu), fmt.Sprintf("mru %d", mtu),
		fmt.Sprintf("name %q", c.User), fmt.Sprintf("password %q", c.Password)}
	for _, a := range []string{"pap", "chap", "mschap", "mschap-v2", "eap"} {
		if a != auth {
			opts = append(opts, "refuse-"+a)
		}
	}
	if c.Echo > 0 {
		opts = append(opts, fmt.Sprintf("lcp-echo-interval %d", int(c.Echo.Seconds())), "lcp-echo-failure 3")
	}
	opts = append(opts, c.PPP...)
	redial := "redial = no"
	if c.Redial > 0 {
		redial = fmt.Sprintf("redial = yes\nredial timeout = %d", int(max(c.Redial.Seconds(), 1)))
	}
	conf := fmt.Sprintf("[global]\nport = %d\n[lac lab]\nlns = %v\npppoptfile = /etc/ppp/options.lab\nppp debug = yes\n"+
		"length bit = yes\n%s\n%s\n", c.Port, c.Server, redial, strings.Join(c.Conf, "\n"))
	return n.xl2tpd(conf, strings.Join(opts, "\n")+"\n")
}

// LNS says whom xl2tpd and pppd shall let in.
type LNS struct {
	Local, Pool string            // "192.168.99.1", "192.168.99.2-192.168.99.100"
	Users       map[string]string // name -> password
	Auth        string            // "mschap-v2" when empty
	MTU         int               // 1400 when 0
	DNS         string            // the name server it tells; empty: none
}

// LNS starts xl2tpd as a server.
func (n *Node) LNS(c LNS) (*XL2TPD, error) {
	auth := c.Auth
	if auth == "" {
		auth = "mschap-v2"
	}
	mtu := c.MTU
	if mtu == 0 {
		mtu = 1400
	}
	var secrets strings.Builder
	for name, password := range c.Users {
		fmt.Fprintf(&secrets, "%q * %q *\n", name, password)
	}
	n.WriteFile("/etc/ppp/chap-secrets", secrets.String())
	n.WriteFile("/etc/ppp/pap-secrets", secrets.String())
	opts := fmt.Sprintf("require-%s\nnoccp\nnobsdcomp\nnodeflate\nnovj\nnodefaultroute\nnoipdefault\ndebug\nlogfile %s\nmtu %d\nmru %d\n"+
		"lcp-echo-interval 10\nlcp-echo-failure 3\n", auth, pppdLog, mtu, mtu)
	if c.DNS != "" {
		opts += "ms-dns " + c.DNS + "\n"
	}
	conf := fmt.Sprintf("[global]\nport = 1701\n[lns default]\nip range = %s\nlocal ip = %s\nrequire authentication = yes\n"+
		"pppoptfile = /etc/ppp/options.lab\nppp debug = yes\nlength bit = yes\n", c.Pool, c.Local)
	return n.xl2tpd(conf, opts)
}

// Call makes the client open its tunnel and session.
func (x *XL2TPD) Call() error { return x.control("c lab") }

// HangUp makes the client close its tunnel, telling the server.
func (x *XL2TPD) HangUp() error { return x.control("d lab") }

func (x *XL2TPD) control(command string) (err error) {
	x.node.Do(func() {
		var f *os.File
		// Without O_NONBLOCK the open would wait for a reader that may have died.
		if f, err = os.OpenFile(xl2tpdControl, os.O_WRONLY|unix.O_NONBLOCK, 0); err != nil {
			return
		}
		defer f.Close()
		_, err = f.WriteString(command)
	})
	if err != nil {
		return fmt.Errorf("xl2tpd control: %w", err)
	}
	return nil
}
