package main

import (
	"cmp"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/cmd/culvert/internal/console"
	"culvert/hwcrypto"
	"culvert/ipsec"
	"culvert/ipsec/esp"
	"culvert/ipsec/natt"
	"culvert/l2tp"
	"culvert/l2tp/sock"
	l2tpuser "culvert/l2tp/user"
)

// userESP is ESP in this process: a packet of UDP 4500 or of IP protocol 50 is opened on the goroutine that read it, and
// what is in it goes up to L2TP by function calls, as far as the TUN device.
type userESP struct {
	*esp.Backend
	raw *esp.Raw
}

// Suites are those that can be done without the kernel.
func (userESP) Suites() []ipsec.Suite { return esp.Suites() }

// ESN says that our own ESP counts as far as it has to.
func (userESP) ESN() bool { return true }

// Hold has nothing to do: what is sent with a mark leaves through the mark's SA, or not at all.
func (userESP) Hold(ipsec.Mark, netip.Addr) error { return nil }

// Unhold likewise.
func (userESP) Unhold(ipsec.Mark) error { return nil }

func (u userESP) Close() error { return errors.Join(u.raw.Close(), u.Backend.Close()) }

// nattOptions are those of the sockets of IKE; encapsulated ESP on them is the kernel's or ours.
func (d *daemon) nattOptions(log *slog.Logger) natt.Options {
	if d.path.esp == inKernel {
		return natt.Options{Encap: true, Strangers: true, Log: log}
	}
	return natt.Options{ESP: d.espReader, Strangers: true, Log: log}
}

// openUserESP makes the backend; its sockets are those of IKE, and raw ones.
func (d *daemon) openUserESP(log *slog.Logger) error {
	raw, err := esp.OpenRaw(esp.RawOptions{Log: log})
	if err != nil {
		return err
	}
	crypto := providerOptions(d.cfg.System.CryptoEngine)
	crypto.Log = log
	d.crypto = hwcrypto.Open(crypto)
	out := espOut{natt: d.natt, raw: raw, ways: &d.ways}
	d.userESP = userESP{esp.New(esp.Options{
		Crypto: d.crypto,
		Now:    d.clock,
		SendUDP: func(p ipsec.Path, packet []byte) error {
			return out.conns(p).SendESP(p, packet)
		},
		SendUDPBatch: func(p ipsec.Path, packets [][]byte) (int, error) {
			return out.conns(p).SendESPBatch(p, packets)
		},
		SendRaw: func(local, remote netip.Addr, packet []byte) error {
			return out.raws(local, remote).Send(local, remote, packet)
		},
		SendRawBatch: func(local, remote netip.Addr, packets [][]byte) (int, error) {
			return out.raws(local, remote).SendBatch(local, remote, packets)
		},
		Log: log,
	}), raw}
	d.esp = d.userESP
	d.loop.add(d.userESP.Backend)
	return nil
}

// espOut are the sockets that our own ESP leaves by: those of a VRF for the calls in there.
type espOut struct {
	natt *natt.Conns
	raw  *esp.Raw
	ways *vrfWays
}

func (o *espOut) conns(p ipsec.Path) *natt.Conns {
	if v := o.ways.find(p.Local.Addr(), p.Remote.Addr()); v != nil {
		return v.natt
	}
	return o.natt
}

func (o *espOut) raws(local, remote netip.Addr) *esp.Raw {
	if v := o.ways.find(local, remote); v != nil {
		return v.raw
	}
	return o.raw
}

// serveUserESP begins to receive, and meanwhile finds out who does the ciphers of the proposals fastest; until that is
// known Go's own do them.
func (d *daemon) serveUserESP() {
	d.userESP.raw.Serve(d.espReader)
	d.measureCrypto(slices.DeleteFunc(cryptoSuites(d.cfg), func(s ipsec.Suite) bool {
		return !slices.ContainsFunc(d.suites, func(k ipsec.Suite) bool { return sameAlgorithms(k, s) })
	})...)
}

// measureCrypto makes sure that later SAs of the suites get the fastest ciphers.
func (d *daemon) measureCrypto(suites ...ipsec.Suite) {
	if d.path.esp != inUserspace {
		return
	}
	go func() {
		for _, s := range suites {
			if s, ok := esp.Suite(s); ok {
				d.crypto.Choose(s)
			}
		}
	}()
}

// espReader takes packets of ESP, on the goroutine of their socket.
func (d *daemon) espReader() (recv func(p ipsec.Path, packet []byte), flush func()) {
	l2tpReader := d.userL2TP.Receiver()
	var now time.Time // of the batch
	return func(p ipsec.Path, packet []byte) {
			if now.IsZero() {
				now = d.clock()
			}
			if dg, ok := d.userESP.Open(now, p, packet); ok {
				peer := l2tp.Peer{Local: dg.Local, Remote: dg.Remote, Via: l2tp.Via(dg.Mark)}
				if !l2tpReader.Deliver(peer, dg.Payload) {
					d.receiveControl(peer, dg.Payload)
				}
			}
		}, func() {
			now = time.Time{}
			l2tpReader.Flush()
		}
}

// makeUserL2TP makes the data plane in this process.
func (d *daemon) makeUserL2TP() {
	d.userL2TP = l2tpuser.New(l2tpuser.Options{Send: d.sendData, SendBatch: d.sendDataBatch})
	d.plane = d.userL2TP
}

// clock is time.Now with one system call instead of two where the kernel maps no clock into the process.
func (d *daemon) clock() time.Time { return d.started.Add(time.Since(d.started)) }

// sendData sends a data message: what has a mark through the SA of that mark, by whoever does ESP.
func (d *daemon) sendData(p l2tp.Peer, buf []byte, at int) error {
	if p.Via != 0 && d.path.esp == inUserspace {
		return d.userESP.Send(ipsec.Mark(p.Via), p.Local, p.Remote, buf, at)
	}
	s := d.socks.find(p)
	if s == nil {
		return errNoSocket
	}
	return s.Send(sock.Datagram{Local: p.Local, Remote: p.Remote, Mark: uint32(p.Via)}, buf[at:])
}

// sendDataBatch is sendData for several.
func (d *daemon) sendDataBatch(p l2tp.Peer, bufs [][]byte, at int) (sent int, err error) {
	if p.Via != 0 && d.path.esp == inUserspace {
		return d.userESP.SendBatch(ipsec.Mark(p.Via), p.Local, p.Remote, bufs, at)
	}
	s := d.socks.find(p)
	if s == nil {
		return 0, errNoSocket
	}
	for i := range bufs {
		bufs[i] = bufs[i][at:]
	}
	return s.SendBatch(sock.Datagram{Local: p.Local, Remote: p.Remote, Mark: uint32(p.Via)}, bufs)
}

var errNoSocket = errors.New("no socket of L2TP has this address")

// cryptoEngine is who does ESP's ciphers.
func (d *daemon) cryptoEngine() string {
	if d.crypto == nil {
		return "kernel"
	}
	names := []string{}
	for _, c := range d.crypto.Choices() {
		if !slices.Contains(names, c.Provider) {
			names = append(names, c.Provider)
		}
	}
	return cmp.Or(strings.Join(names, ", "), hwcrypto.Software{}.Name())
}

// userDrops are the counters of what our own data path has thrown away; those of the kernel's are in /proc/net/xfrm_stat.
func (d *daemon) userDrops() (rows []console.Counter) {
	add := func(name string, n uint64) {
		if n > 0 {
			rows = append(rows, console.Counter{Name: name, Value: n})
		}
	}
	if d.userESP.Backend != nil {
		drops := d.userESP.Drops()
		add("esp-drop-malformed", drops.Malformed)
		add("esp-drop-unknown-spi", drops.Unknown)
		add("esp-drop-encapsulation", drops.Encap)
		add("esp-drop-expired", drops.Expired)
		add("esp-drop-replayed", drops.Replayed)
		add("esp-drop-integrity", drops.Integrity)
		add("esp-drop-crypto", drops.Crypto)
		add("esp-drop-dummy", drops.Dummy)
		add("esp-drop-not-udp", drops.NotUDP)
		add("esp-drop-selector", drops.Selector)
		add("esp-drop-checksum", drops.Checksum)
		add("esp-drop-no-sa", drops.NoSA)
		add("esp-drop-not-sent", drops.Send)
	}
	if d.userL2TP != nil {
		drops := d.userL2TP.Drops()
		add("l2tp-data-drop-malformed", drops.Malformed)
		add("l2tp-data-drop-unknown", drops.Unknown)
		add("l2tp-data-drop-foreign", drops.Foreign)
	}
	return rows
}
