package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Options are for Run.
type Options struct {
	Program  string // this binary
	DataPath string // `[system] data-path` of both ends
	Out      io.Writer
	// Seconds is how long each direction is measured.
	Seconds float64
}

// The addresses of the play, all of them reserved for examples and private use (RFC 5737, RFC 1918).
var (
	serverOutside = netip.MustParsePrefix("192.0.2.1/24")
	natOutside    = netip.MustParsePrefix("192.0.2.2/24")
	natInside     = netip.MustParsePrefix("10.0.0.1/24")
	clientOutside = netip.MustParsePrefix("10.0.0.2/24")
	serverInside  = netip.MustParseAddr("192.168.99.1")
)

const (
	user, iface = "anna", "l2tp-out1"

	startTime   = 20 * time.Second
	connectTime = 60 * time.Second
	endTime     = 15 * time.Second
)

// Run plays it. An error says which step failed; what was said before it has been written to Out.
func Run(ctx context.Context, o Options) (err error) {
	d := &show{o: o}
	defer func() {
		err = errors.Join(err, d.close())
	}()
	for _, act := range []func(context.Context) error{d.stage, d.serve, d.connect, d.converse, d.part} {
		if err := act(ctx); err != nil {
			d.logs()
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// show is one performance.
type show struct {
	o       Options
	step    int
	dir     string
	net     *network
	wire    *wire
	server  *instance
	client  *instance
	address netip.Addr // the client's, inside the tunnel
}

func (d *show) say(format string, args ...any) {
	d.step++
	fmt.Fprintf(d.o.Out, "%d. %s\n", d.step, fmt.Sprintf(format, args...))
}

func (d *show) add(format string, args ...any) {
	fmt.Fprintf(d.o.Out, "   %s\n", strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n   "))
}

// stage builds the network.
func (d *show) stage(context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "culvert-demo-"); err != nil {
		return err
	}
	if d.net, err = newNetwork(); err != nil {
		return err
	}
	d.say("Made a small network out of network namespaces; this machine's own is not touched.")
	if d.net.noNAT == nil {
		d.add("client %s -- NAT %s -- server %s", clientOutside.Addr(), natOutside.Addr(), serverOutside.Addr())
	} else {
		d.add("client %s -- router -- server %s", clientOutside.Addr(), serverOutside.Addr())
		d.add("(without a NAT in between, for this kernel has none: %v)", d.net.noNAT)
	}
	d.wire, err = d.net.middle.watch(toServer)
	return err
}

const serverConfig = `[system]
identity = "demo-server"
data-path = %q

[ip.pool.vpn]
ranges = ["192.168.99.2-192.168.99.100"]

[ppp.profile.vpn]
local-address = "192.168.99.1"
remote-address = "vpn"

[ppp.secret.%s]
password = %q
profile = "vpn"

[l2tp.server]
enabled = true
use-ipsec = "required"
ipsec-secret = %q
default-profile = "vpn"
`

const clientConfig = `[system]
identity = "demo-client"
data-path = %q

[l2tp.client.%s]
connect-to = %q
user = %q
password = %q
use-ipsec = true
ipsec-secret = %q
`

// serve starts the server.
func (d *show) serve(ctx context.Context) (err error) {
	const secret, password = "demo's pre-shared key", "correct horse battery staple"
	d.server, err = d.net.server.start(d.o.Program, filepath.Join(d.dir, "server"), fmt.Sprintf(serverConfig, d.o.DataPath, user, password, secret))
	if err != nil {
		return err
	}
	if err := d.server.ready(ctx, startTime); err != nil {
		return fmt.Errorf("the server did not start: %w", err)
	}
	d.say("Started a server: culvert run, with one user and a pre-shared key in its file.")
	path, why := d.server.dataPath()
	d.add("data path: %s (ESP + L2TP + PPP)", path)
	if d.o.DataPath == "auto" {
		d.add("because %s", why)
	} else if d.o.DataPath == "userspace" {
		d.add("of the kernel it takes sockets and a TUN device; culvert demo -data-path auto asks for more")
	}
	d.client, err = d.net.client.start(d.o.Program, filepath.Join(d.dir, "client"),
		fmt.Sprintf(clientConfig, d.o.DataPath, iface, serverOutside.Addr(), user, password, secret))
	return err
}

// connect waits for the client, which dials by itself.
func (d *show) connect(ctx context.Context) error {
	begun := time.Now()
	if err := d.client.ready(ctx, startTime); err != nil {
		return fmt.Errorf("the client did not start: %w", err)
	}
	var m row
	err := waitFor(ctx, connectTime, func() (bool, error) {
		rows, err := d.client.rows(ctx, "/interface l2tp-client monitor "+iface)
		if err != nil || len(rows) != 1 {
			return false, err
		}
		m = rows[0]
		return m.text("status") == "connected", nil
	})
	if err != nil {
		return fmt.Errorf("the client does not connect (it says %q, %q): %w", m.text("status"), m.text("last-disconnect-reason"), err)
	}
	took := time.Since(begun)
	if d.address, err = netip.ParseAddr(m.text("local-address")); err != nil {
		return fmt.Errorf("the client has no address: %w", err)
	}
	d.say("Started a client, which dialled %s: connected after %.2f s.", serverOutside.Addr(), took.Seconds())
	peers, err := d.server.rows(ctx, "/ip ipsec active-peers print")
	if err != nil || len(peers) == 0 {
		return fmt.Errorf("the server shows no IKE peer: %w", err)
	}
	nat := "no NAT between them, so ESP goes as IP protocol 50"
	if peers[0].text("natt-peer") == "true" {
		nat = "they noticed the NAT, so ESP goes inside UDP port 4500"
	}
	d.add("IKE: proved that both know the pre-shared key (%s), %s", peers[0].text("proposal"), nat)
	d.add("L2TP and PPP: logged in as %s, who got the address %s, on the interface %s with MTU %s", user, d.address, iface, m.text("mtu"))
	d.add("what protects it: %s", m.text("encoding"))
	return nil
}

// converse sends traffic, and looks at it from outside.
func (d *show) converse(ctx context.Context) error {
	rtt, err := d.net.client.ping(ctx, serverInside, 10*time.Second)
	if err != nil {
		return fmt.Errorf("ping %s through the tunnel: %w", serverInside, err)
	}
	back, err := d.net.server.ping(ctx, d.address, 10*time.Second)
	if err != nil {
		return fmt.Errorf("ping %s through the tunnel: %w", d.address, err)
	}
	d.say("Pinged through the tunnel: the server (%s) answers in %.2f ms, the client (%s) in %.2f ms.",
		serverInside, ms(rtt), d.address, ms(back))

	up, err := transfer(ctx, d.net.client, d.net.server, serverInside, d.o.Seconds)
	if err != nil {
		return fmt.Errorf("TCP to the server: %w", err)
	}
	down, err := transfer(ctx, d.net.server, d.net.client, d.address, d.o.Seconds)
	if err != nil {
		return fmt.Errorf("TCP to the client: %w", err)
	}
	d.say("Sent data by TCP through the tunnel, and compared SHA-256 at both ends: equal.")
	d.add("client to server: %s", up)
	d.add("server to client: %s", down)
	resource, err := d.server.rows(ctx, "/system resource print")
	if err == nil && len(resource) == 1 {
		d.add("(client, NAT, server and both ends of TCP share this machine; the ciphers are done by: %s)", resource[0].text("crypto-engine"))
	}

	seen := d.wire.counts()
	if seen.clear > 0 {
		return fmt.Errorf("between client and server %d packets were neither IKE nor ESP", seen.clear)
	}
	if seen.sealed == 0 {
		return errors.New("between client and server not one packet was seen")
	}
	d.say("Listened between them meanwhile: %d packets, every one of them IKE or ESP, not one readable.", seen.sealed)

	text, err := d.server.ask(ctx, "/ppp active print", false)
	if err != nil {
		return err
	}
	d.say("What the server's operator sees (culvert console):")
	d.add("> /ppp active print\n%s", strings.TrimRight(text, "\n"))
	if !strings.Contains(text, user) || !strings.Contains(text, d.address.String()) {
		return fmt.Errorf("it does not show %s at %s", user, d.address)
	}
	return nil
}

// part ends it the orderly way.
func (d *show) part(ctx context.Context) error {
	if err := d.client.stop(endTime); err != nil {
		return fmt.Errorf("the client ended badly: %w", err)
	}
	var left string
	err := waitFor(ctx, endTime, func() (bool, error) {
		left = ""
		for _, command := range []string{"/ppp active print", "/ip pool used print", "/ip ipsec installed-sa print"} {
			rows, err := d.server.rows(ctx, command)
			if err != nil {
				return false, err
			}
			if len(rows) > 0 {
				left += fmt.Sprintf("%s: %v\n", command, rows)
			}
		}
		return left == "", nil
	})
	if err != nil {
		return fmt.Errorf("the server did not notice that the client has left (%s): %w", left, err)
	}
	if err := d.server.stop(endTime); err != nil {
		return fmt.Errorf("the server ended badly: %w", err)
	}
	d.say("The client said goodbye; its address is free again, its keys are gone. The server ended, too.")
	return nil
}

// logs shows what the daemons said, when something went wrong.
func (d *show) logs() {
	for _, i := range []*instance{d.server, d.client} {
		if i != nil {
			fmt.Fprintf(d.o.Out, "\nThe log of the %s:\n%s\n", i.name, i.log.String())
		}
	}
}

// close removes everything.
func (d *show) close() error {
	var errs []error
	for _, i := range []*instance{d.client, d.server} {
		if i != nil {
			i.kill()
		}
	}
	if d.wire != nil {
		d.wire.close()
	}
	if d.net != nil {
		d.net.close()
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// waitFor polls until done, which may be with an error, or until the time is over.
func waitFor(ctx context.Context, timeout time.Duration, done func() (bool, error)) error {
	deadline := time.Now().Add(timeout)
	for {
		ok, err := done()
		if ok {
			return err
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("not within %v", timeout), err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
