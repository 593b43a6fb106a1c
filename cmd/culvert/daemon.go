package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/firewall"
	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/control"
	"culvert/cmd/culvert/internal/explain"
	"culvert/cmd/culvert/internal/logring"
	"culvert/hwcrypto"
	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/ipsec/natt"
	"culvert/ipsec/portmap"
	"culvert/ipsec/xfrm"
	"culvert/l2tp"
	l2tpkernel "culvert/l2tp/kernel"
	l2tpuser "culvert/l2tp/user"
	"culvert/ppp/aaa"
	"culvert/ppp/netif"
)

// daemon is `culvert run`: the engines, the kernel under them, and what joins the two. Its methods run on the loop
// unless they say otherwise. The fields stand in the order in which a packet meets them.
type daemon struct {
	file    string
	cfg     *config.Config
	logs    *logring.Log
	book    *explain.Book // what the log said of each client
	rand    io.Reader
	started time.Time

	loop *loop
	dh   *workers // Diffie-Hellman, beside the loop

	path dataPath // who moves the packets; does not change

	natt         *natt.Conns         // UDP 500 and 4500; like the rest of these, nil without IPsec
	vrfs         map[string]*vrf     // the same in VRFs that we call from
	ways         vrfWays             // which packets go there
	esp          sealer              // the next, or the one after it
	xfrm         *xfrm.Backend       // ESP in the kernel
	userESP      userESP             // ESP in this process
	crypto       *hwcrypto.Providers // what does its ciphers
	engines      *engines            // chooses what does the kernel's
	kernelSpeeds kernelSpeeds        // what was measured of it
	engineWatch  *engineWatch        // leaves an engine that breaks; nil without one
	portmap      *portmap.Table      // tells clients behind one NAT apart for the kernel's L2TP; nil also without nf_tables
	ike          *ikev1.Engine       // who may have an SA
	suites       []ipsec.Suite       // what ESP can do

	mask       uint32            // of packet marks that are ours; does not change
	socks      sockets           // UDP 1701: control messages, and data where L2TP is ours
	plane      plane             // data messages: the next, or the one after it
	kernelL2TP *l2tpkernel.Plane // in the kernel
	userL2TP   *l2tpuser.Plane   // in this process
	l2tp       *l2tp.Engine      // tunnels and sessions

	users    *aaa.Local     // who may log in, and what they get
	bans     *bans          // who may not even try, for a while
	firewall firewall.Table // what the router's firewall does for us, if it may
	netif    *netif.Netif   // interfaces, addresses, routes
	dns      *resolvConf    // the name servers that the servers we call tell
	noMSS    sync.Once      // the kernel's lack has been told

	clients     map[ipsec.Mark]*client
	early       atomic.Int32       // control messages that wait for their client's SAs
	dialers     map[string]*dialer // by the client's name
	watcher     *watcher           // of the network around us, while there are any
	sessions    map[sessionKey]*session
	lastSession uint32 // number of the newest session, for the console

	chassis  *chassis
	estate   *estate
	stopping stopping

	socket   string // of the console
	console  *control.Server
	noPath   error          // why nothing can be moved, while nothing has to be
	newest   *config.Config // that waits for the daemon to begin anew
	changing sync.Mutex     // of the file, by the console
	ending   ending         // of the process
	anew     sync.Once      // it begins anew, if it does
}

// runDaemon is the command: it returns when the daemon has said goodbye to everybody.
func runDaemon(ctx context.Context, c *invocation) int {
	var d daemon
	code := d.live(ctx, c)
	if ctx.Err() != nil {
		return code // whoever ends the process wants it ended
	}
	if err := d.end(); err != nil {
		fmt.Fprintln(c.stderr, err)
		return exitFailed
	}
	return code
}

// live is from the first look at the configuration to the last goodbye.
func (d *daemon) live(ctx context.Context, c *invocation) int {
	cfg, err := config.Load(c.config)
	if err != nil {
		fmt.Fprintln(c.stderr, err)
		return exitFailed
	}
	logs, err := logring.New(cfg.Log, c.stderr)
	if err != nil {
		fmt.Fprintln(c.stderr, err)
		return exitFailed
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		logs.Close(ctx)
	}()
	workCtx, stopWork := context.WithCancel(context.Background())
	defer stopWork()
	d.file, d.socket = c.config, c.socket
	d.cfg = cfg
	d.logs = logs
	d.book = explain.New()
	d.rand = rand.Reader
	d.started = time.Now()
	d.loop = newLoop()
	d.dh = newWorkers(workCtx, runtime.GOMAXPROCS(0), 64)
	d.clients = make(map[ipsec.Mark]*client)
	d.sessions = make(map[sessionKey]*session)
	d.dialers = make(map[string]*dialer)
	d.dns = findResolvConf(resolvFiles)
	log := d.logger("system")
	d.bans = newBans(log, d.connected, &d.firewall)
	for _, w := range cfg.Warnings {
		log.Warn(w.String())
	}
	// The console's socket comes first: it is what keeps a second daemon from touching anything of the first one's.
	if d.console, err = control.Listen(c.socket, d.explained(d.serveConsole()), d.logger("console")); err != nil {
		log.Error("not started", "error", err)
		return exitFailed
	}
	defer d.console.Close()
	defer func() { d.engines.close(d.logger("crypto")) }() // after the SAs are released
	defer d.release()
	if err := errors.Join(d.prepareBoard(ctx), d.open()); err != nil {
		log.Error("not started", "error", err)
		return exitFailed
	}
	go d.console.Serve(workCtx)
	d.estate = newEstate(d, filepath.Join(filepath.Dir(c.socket), "farewell"))
	d.estate.execute(time.Now())
	d.loop.add(d.estate)

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-hup:
				d.loop.post(d.reload)
			case <-ctx.Done():
				d.loop.post(d.stop)
				return
			}
		}
	}()
	log.Info("started", "version", buildVersion(), "data-path", d.dataPath(), "use-ipsec", d.ike != nil)
	d.loop.add(d)
	d.loop.add(reaper{d})
	d.openBoard(workCtx)
	d.loop.run(d.stopped)
	d.closeBoard()
	d.estate.remove()
	log.Info("stopped")
	return exitDone
}

func (d *daemon) logger(topic string) *slog.Logger {
	return slog.New(d.book.Handler(d.logs.Handler())).With("topic", topic)
}

// open takes hold of the kernel and makes the engines, in the order in which an arriving packet meets them.
func (d *daemon) open() error {
	if err := d.choosePath(); err != nil {
		if busy(d.cfg) {
			return err
		}
		d.noPath = err // a router that is new is configured on its console first
	}
	if !busy(d.cfg) {
		d.logger("system").Warn("nothing to do yet: set enabled = true in [l2tp.server], or write an [l2tp.client.NAME]", "file", d.file)
	}
	d.mask = d.markMask()
	if d.path.l2tp == inUserspace {
		d.makeUserL2TP() // first, since our own ESP delivers to it
	}
	d.openEngines()
	if usesIPsec(d.cfg) {
		if err := d.openIPsec(); err != nil {
			return err
		}
	}
	if err := d.openL2TP(); err != nil {
		return err
	}
	if err := d.openPPP(); err != nil {
		return err
	}
	if err := d.dns.unset(""); err != nil { // what a daemon that crashed has left
		d.logger("system").Warn("resolv.conf cannot be written", "error", err)
	}
	d.applyFirewall()
	d.reconcile(d.started)
	return nil
}

// openIPsec: a datagram of UDP 500 or 4500 that is not ESP goes to the key exchange (tap 1); what that negotiates, the
// kernel applies, or package esp.
func (d *daemon) openIPsec() (err error) {
	log := d.logger("ipsec")
	// The sockets come first: a second daemon must fail on them before it takes the first one's SAs for a dead one's.
	if d.natt, err = natt.Open(d.nattOptions(log)); err != nil {
		return err
	}
	if d.path.esp == inUserspace {
		err = d.openUserESP(log)
	} else {
		err = d.openXFRM(log)
	}
	if err != nil {
		return err
	}
	d.suites = d.esp.Suites()
	d.ike = ikev1.New(d.ikeConfig(d.cfg), ikev1.Env{
		Backend:    d.ipsecBackend(),
		Send:       func(p ipsec.Path, msg []byte) { d.conns(p).Send(p, msg) },
		Keepalive:  func(p ipsec.Path) { d.conns(p).Keepalive(p) },
		Rand:       d.rand,
		Offload:    d.offload,
		Workers:    runtime.GOMAXPROCS(0),
		Failed:     d.bans.failed,
		Barred:     d.bans.barred,
		Log:        log,
		PeerUp:     d.clientUp,
		PeerDown:   d.clientDown,
		DialFailed: d.dialFailed,
	})
	d.loop.add(d.ike)
	d.natt.Serve(d.receiveIKE, d.receiveFirst)
	d.esp.Serve(func(ev ipsec.Event) {
		d.loop.post(func(now time.Time) { d.backendEvent(now, ev) })
	})
	if d.path.esp == inUserspace {
		d.serveUserESP()
	}
	return nil
}

// receiveIKE hands on a message of the key exchange; msg is valid only during the call.
func (d *daemon) receiveIKE(p ipsec.Path, msg []byte) {
	msg = append([]byte(nil), msg...)
	d.loop.offer(func(now time.Time) { d.ike.Receive(now, p, msg) })
}

// receiveFirst hands on what exchanges begin with, and comes back when it has been answered: a flood waits in the kernel,
// which drops what is too much.
func (d *daemon) receiveFirst(list []natt.Message) {
	d.loop.last(func(now time.Time) {
		d.natt.Together(func() {
			for _, m := range list {
				d.ike.Receive(now, m.Path, m.Data)
			}
		})
	})
}

// sealer is ESP: the kernel's, or our own.
type sealer interface {
	ipsec.Backend
	// Suites are those that can be agreed on, strongest first.
	Suites() []ipsec.Suite
	ESN() bool // extended sequence numbers can be done
	Serve(func(ipsec.Event))
	// Hold keeps what carries the mark from leaving for remote in the clear, until Unhold.
	Hold(m ipsec.Mark, remote netip.Addr) error
	Unhold(ipsec.Mark) error
	Close() error
}

// openXFRM takes hold of the kernel's ESP.
func (d *daemon) openXFRM(log *slog.Logger) error {
	if err := xfrm.Probe(); err != nil {
		if lacks := new(xfrm.ProbeError); !errors.As(err, &lacks) || lacks.Fatal() {
			return err
		}
		log.Warn("the kernel's IPsec is not complete", "error", err)
	}
	backend, err := xfrm.New(xfrm.Options{
		Log:      log,
		MarkMask: d.markMask(),
		Ports:    d.ports(),
		Require:  protection(d.cfg) == l2tp.ProtectionRequired,
	})
	if err != nil {
		return err
	}
	d.xfrm, d.esp = backend, backend
	if protection(d.cfg) != l2tp.ProtectionNone && d.path.l2tp == inKernel {
		d.openPortmap(log)
	}
	return nil
}

// ikeConfig is the key exchange's configuration without the suites that this kernel lacks: agreeing on one of those would
// end in an SA that cannot be made.
func (d *daemon) ikeConfig(cfg *config.Config) ikev1.Config {
	ike := cfg.IPsec
	ike.Suites, ike.ESN = d.suites, d.esp.ESN()
	ike.Peers = slices.Clone(ike.Peers)
	for i := range ike.Peers {
		p := &ike.Peers[i]
		var can, cannot []ipsec.Suite
		for _, s := range p.Proposal.Suites {
			if slices.ContainsFunc(d.suites, func(k ipsec.Suite) bool { return sameAlgorithms(k, s) }) {
				can = append(can, s)
			} else {
				cannot = append(cannot, s)
			}
		}
		p.Proposal.Suites = can
		if len(cannot) > 0 {
			d.logger("ipsec").Warn("ESP lacks suites of the proposal: load the modules of their algorithms", "peer", p.Name, "without", cannot)
		}
	}
	return ike
}

// sameAlgorithms compares all but the length that an integrity check value is cut to.
func sameAlgorithms(a, b ipsec.Suite) bool {
	return a.Cipher == b.Cipher && a.KeyBits == b.KeyBits && a.Integrity == b.Integrity
}

// offload runs Diffie-Hellman on a worker and its result on the loop.
func (d *daemon) offload(work func() (done func(now time.Time))) bool {
	return d.dh.submit(func() { d.loop.post(work()) })
}

// openL2TP: control messages arrive on the sockets of UDP 1701, on the connected socket of the tunnel they belong to, or
// out of our own ESP (tap 2); data messages stay in the kernel, or go up from the same sockets to PPP.
func (d *daemon) openL2TP() (err error) {
	log := d.logger("l2tp")
	if d.path.l2tp == inKernel {
		d.kernelL2TP = l2tpkernel.New(l2tpkernel.Options{Log: log, Receive: d.receiveControl, Protect: d.protect})
		d.plane = d.guardPlane(d.kernelL2TP)
	}
	d.l2tp = l2tp.New(l2tpConfig(d.cfg), l2tp.Env{
		Send:        d.sendControl,
		Plane:       d.plane,
		Rand:        d.rand,
		Log:         log,
		SessionUp:   d.sessionUp,
		SessionDown: d.sessionDown,
		TunnelDown:  d.tunnelDown,
		Released:    d.tunnelReleased,
	})
	d.loop.add(d.l2tp)
	if !d.cfg.Server.Enabled {
		return nil // the clients open what they need
	}
	for _, addr := range d.cfg.Server.Listen {
		_, err := d.listen(addr, "")
		if errors.Is(err, unix.EAFNOSUPPORT) && addr.Addr() == netip.IPv6Unspecified() {
			log.Info("the kernel has no IPv6, L2TP listens on IPv4 alone")
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// markMask is where our marks live in those of the kernel, which other programs use too.
func (d *daemon) markMask() uint32 {
	if m := d.cfg.IPsec.MarkMask; m != 0 {
		return m
	}
	return ikev1.DefaultMarkMask
}

// openPPP: PPP's control frames come from the channel of each session (tap 3, in session.go); IP goes its own way.
func (d *daemon) openPPP() (err error) {
	d.users = aaa.NewLocal(d.cfg.AAA, d.logger("ppp"))
	if d.netif, err = netif.New(); err != nil {
		return err
	}
	if err := d.netif.Sweep(); err != nil {
		d.logger("system").Warn("routes or ARP entries of a former run are left", "error", err)
	}
	return nil
}

// ports are the UDP ports that carry L2TP, each once.
func (d *daemon) ports() (ports []uint16) {
	if !d.cfg.Server.Enabled {
		return nil
	}
	seen := make(map[uint16]bool)
	for _, a := range d.cfg.Server.Listen {
		if !seen[a.Port()] {
			seen[a.Port()] = true
			ports = append(ports, a.Port())
		}
	}
	return ports
}

// reload reads the file again. A mistake in it changes nothing.
func (d *daemon) reload(now time.Time) {
	log := d.logger("system")
	cfg, err := config.Load(d.file)
	if err != nil {
		log.Error("configuration not changed", "error", err)
		return
	}
	if d.apply(now, cfg); d.newest == cfg {
		go d.beginAnew()
	}
}
