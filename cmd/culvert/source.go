package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/console"
	"culvert/cmd/culvert/internal/logring"
	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/ppp"
)

// source shows the daemon to the console. It runs on the console's goroutines and takes its snapshots on the loop; what
// has to ask the kernel under its RTNL lock does so afterwards, outside.
type source struct {
	d   *daemon
	ctx context.Context
}

func (s source) on(f func(now time.Time)) { s.d.loop.call(s.ctx, f) }

func (s source) Config() (cfg *config.Config) {
	cfg = new(config.Config) // should the loop be gone
	s.on(func(time.Time) { cfg = cmp.Or(s.d.newest, s.d.cfg) })
	return cfg
}

func (s source) Log() *logring.Ring { return s.d.logs.Ring() }

// Active joins IKE, L2TP and PPP: one row a user.
func (s source) Active() (rows []console.ActiveRow) {
	var units []pppUnit
	s.on(func(now time.Time) {
		for _, x := range s.d.sessions {
			if !x.up || x.closed || x.dialer != nil {
				continue
			}
			snap := x.link.Snapshot(now)
			tunnel := x.l2tp.Tunnel
			r := console.ActiveRow{
				Name: snap.User, Service: snap.Service, CallerID: snap.CallerID, Address: snap.Remote, Local: snap.Local,
				Uptime: console.Span(snap.Uptime), Since: x.since, Encoding: snap.Encoding, Session: console.Hex(x.number),
				Profile: snap.Profile, Auth: snap.Method.String(), Iface: x.unit.Name(), MTU: snap.MTU, MRU: snap.MRU,
				Remote: tunnel.Peer.Remote.String(), Mark: console.Hex(tunnel.Peer.Via), Host: tunnel.HostName,
				Tunnel: uint32(tunnel.Local), RTunnel: uint32(tunnel.Remote), LSession: uint32(x.l2tp.Local),
				RSession: uint32(x.l2tp.Remote), CallSN: x.l2tp.CallSerial, IdleTime: console.Span(snap.Idle),
			}
			if c := s.d.clients[ipsec.Mark(tunnel.Peer.Via)]; c != nil {
				r.Remote, r.IKEPeer, r.IKEID = c.info.Remote.String(), c.info.Peer, c.info.Identity
				r.Encoding = encoding(c.info.Suite, snap.Encoding)
			}
			rows, units = append(rows, r), append(units, x.unit)
		}
	})
	for i := range rows {
		if st, err := units[i].Stats(); err == nil {
			rows[i].RxBytes, rows[i].TxBytes, rows[i].RxPkts, rows[i].TxPkts = st.RxBytes, st.TxBytes, st.RxPackets, st.TxPackets
		}
	}
	return rows
}

// encoding is what protects the user's packets, outermost first.
func encoding(suite ipsec.Suite, mppe string) string {
	e := "esp " + suite.String()
	if mppe != "" {
		e += ", " + mppe
	}
	return e
}

// Interfaces lists the links' interfaces, and the static bindings nobody uses at the moment.
func (s source) Interfaces() (rows []console.InterfaceRow) {
	s.on(func(now time.Time) {
		static := maps.Clone(s.d.cfg.AAA.Bindings) // user -> interface
		for _, x := range s.d.sessions {
			if x.unit == nil || x.closed || x.dialer != nil {
				continue
			}
			snap := x.link.Snapshot(now)
			r := console.InterfaceRow{
				Dynamic: x.grant.Interface == "", Running: x.up, Name: x.unit.Name(), User: snap.User, MTU: snap.MTU, MRU: snap.MRU,
				Client: x.l2tp.Tunnel.Peer.Remote.Addr().String(), Uptime: console.Span(snap.Uptime), Encoding: snap.Encoding,
			}
			if c := s.d.clients[ipsec.Mark(x.l2tp.Tunnel.Peer.Via)]; c != nil {
				r.Encoding = encoding(c.info.Suite, snap.Encoding)
			}
			if x.grant.Interface != "" {
				delete(static, snap.User)
			}
			rows = append(rows, r)
		}
		for user, name := range static {
			rows = append(rows, console.InterfaceRow{Name: name, User: user})
		}
	})
	return rows
}

// Clients are the tunnels that we dial.
func (s source) Clients() (rows []console.ClientState) {
	var units []pppUnit
	s.on(func(now time.Time) {
		for _, dl := range s.d.dialers {
			r := console.ClientState{Name: dl.cfg.Name, Status: dl.status(now), Attempts: dl.attempt, LastReason: dl.reason}
			if dl.stage == dialWaiting && !dl.redial.at.IsZero() {
				r.NextDial = console.Span(max(0, dl.redial.at.Sub(now)))
			}
			if dl.remote.IsValid() {
				r.Server = dl.remote.String()
			}
			var unit pppUnit
			if x := dl.session; x != nil && x.up && !x.closed {
				snap := x.link.Snapshot(now)
				r.Uptime, r.Encoding, r.MTU, r.MRU = console.Span(snap.Uptime), snap.Encoding, snap.MTU, snap.MRU
				r.Idle = console.Span(snap.Idle)
				r.Local, r.Remote, r.Server = snap.Local, snap.Remote, x.l2tp.Tunnel.Peer.Remote.String()
				if c := s.d.clients[ipsec.Mark(x.l2tp.Tunnel.Peer.Via)]; c != nil {
					r.Encoding = encoding(c.info.Suite, snap.Encoding)
				}
				unit = x.unit
			}
			rows, units = append(rows, r), append(units, unit)
		}
	})
	for i, u := range units {
		if u == nil {
			continue
		}
		if st, err := u.Stats(); err == nil {
			rows[i].RxBytes, rows[i].TxBytes = st.RxBytes, st.TxBytes
		}
	}
	return rows
}

func (s source) Tunnels() (rows []console.TunnelRow) {
	s.on(func(now time.Time) {
		for _, t := range s.d.l2tp.Snapshot(now).Tunnels {
			rows = append(rows, console.TunnelRow{
				Tunnel: uint32(t.Local), RTunnel: uint32(t.Remote), State: t.State, Remote: t.Peer.Remote.String(),
				Local: t.Peer.Local.String(), Host: t.HostName, Vendor: t.Vendor, Sessions: len(t.Sessions),
				Uptime: console.Span(now.Sub(t.Created)), Mark: console.Hex(t.Peer.Via), Window: t.PeerWindow,
			})
		}
	})
	return rows
}

func (s source) IKEPeers() (rows []console.IKEPeerRow) {
	s.on(func(now time.Time) {
		if s.d.ike == nil {
			return
		}
		for _, p := range s.d.ike.Snapshot(now).Peers {
			r := console.IKEPeerRow{
				Responder: true, NATT: p.NATT != "unsupported" && p.NATT != "none", ID: p.Identity, State: p.State, PH2Total: p.Children,
				Remote: p.Remote.String(), Local: p.Local.String(), Peer: p.Peer, Cookies: p.Initiator + ":" + p.Responder,
				Suite:  fmt.Sprintf("%s/%s/%s", p.Cipher, p.Hash, p.Group),
				Vendor: p.Software, Mark: console.Hex(p.Mark),
			}
			if p.Auth != ikev1.PreSharedKey {
				r.Suite += "/" + p.Auth.String()
			}
			if !p.Since.IsZero() {
				r.Uptime, r.Expires = console.Span(now.Sub(p.Since)), console.Span(p.RemainingLifetime)
			}
			if !p.LastHeard.IsZero() {
				r.LastSeen = console.Span(now.Sub(p.LastHeard))
			}
			rows = append(rows, r)
		}
	})
	return rows
}

func (s source) SAs() (rows []console.SARow) {
	s.on(func(now time.Time) {
		if s.d.ike == nil {
			return
		}
		for _, a := range s.d.ike.Snapshot(now).SAs {
			r := console.SARow{
				ESP: true, SPI: console.Hex(a.SPI), Dir: a.Dir.String(), State: "mature",
				AuthAlg: a.Suite.Integrity.String(), EncAlg: cipherName(a.Suite), KeySize: a.Suite.KeyBits,
				AddTime: now.Add(-a.Age).Format(time.DateTime), Expires: console.Span(a.Hard),
				Lifetime: fmt.Sprintf("%s/%s", console.Span(a.Lifetime), console.Span(a.Age+a.Hard)),
				Bytes:    a.Usage.Bytes, Packets: a.Usage.Packets, Failed: a.Usage.IntegrityFailed, Replayed: a.Usage.Replayed,
				Mark: console.Hex(a.Mark),
			}
			if a.State != "active" {
				r.State = a.State
			}
			local, remote := withPort(a.Local.String(), a.Encap.Local), withPort(a.Remote.String(), a.Encap.Remote)
			if r.Src, r.Dst = remote, local; a.Dir == ipsec.Out {
				r.Src, r.Dst = local, remote
			}
			rows = append(rows, r)
		}
	})
	return rows
}

// cipherName is the encryption alone: RouterOS shows integrity in a column of its own.
func cipherName(s ipsec.Suite) string {
	name, _, _ := strings.Cut(s.String(), "/")
	return name
}

func withPort(addr string, port uint16) string {
	if port == 0 {
		return addr
	}
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return fmt.Sprintf("%s:%d", addr, port)
}

func (s source) PoolsUsed() (rows []console.PoolUsedRow) {
	s.on(func(time.Time) {
		for _, l := range s.d.users.Snapshot().Leases {
			if l.Pool != "" {
				rows = append(rows, console.PoolUsedRow{Pool: l.Pool, Address: l.Addr, Owner: "l2tp", Info: l.Owner})
			}
		}
	})
	return rows
}

// Bans are those who are not answered.
func (s source) Bans() (rows []console.BanRow) {
	s.on(func(now time.Time) {
		for _, o := range s.d.bans.banned(now) {
			r := console.BanRow{Address: o.source.String(), Creation: o.until.Add(-o.longest).Format(time.DateTime), Timeout: console.Span(o.until.Sub(now)), Where: "culvert", Source: o.source}
			if o.source.IsSingleIP() {
				r.Address = o.source.Addr().String()
			}
			if s.d.firewall.Up() {
				r.Where = "kernel"
			}
			rows = append(rows, r)
		}
	})
	return rows
}

// IPsecStatistics counts what was thrown away and why, from the sockets up.
func (s source) IPsecStatistics() (rows []console.Counter) {
	s.on(func(now time.Time) {
		var ike ikev1.Snapshot
		if s.d.ike != nil {
			ike = s.d.ike.Snapshot(now)
			rows = append(rows, console.Counter{Name: "ike-clients", Value: uint64(ike.Clients)},
				console.Counter{Name: "ike-half-open", Value: uint64(ike.HalfOpen)},
				console.Counter{Name: "ike-stateless", Value: ike.Stateless},
				console.Counter{Name: "ike-sas", Value: uint64(len(ike.SAs))})
		}
		for _, name := range slices.Sorted(maps.Keys(ike.Drops)) {
			rows = append(rows, console.Counter{Name: "ike-drop-" + name, Value: ike.Drops[name]})
		}
		tunnels := s.d.l2tp.Snapshot(now)
		whys := slices.Collect(maps.Keys(tunnels.Drops))
		sort.Slice(whys, func(i, j int) bool { return whys[i] < whys[j] })
		for _, why := range whys {
			if n := tunnels.Drops[why]; n > 0 {
				rows = append(rows, console.Counter{Name: "l2tp-drop-" + strings.ReplaceAll(why.String(), " ", "-"), Value: n})
			}
		}
		rows = append(rows, s.d.userDrops()...)
		if s.d.natt != nil {
			rows = append(rows, console.Counter{Name: "ike-overrun", Value: s.d.natt.Stats().Overrun})
		}
		rows = append(rows, console.Counter{Name: "loop-dropped", Value: s.d.loop.dropped.Load()})
	})
	return rows
}

func (s source) Resource() console.Resource {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	r := console.Resource{
		Now: time.Now(), Uptime: console.Span(time.Since(s.d.started)), Version: buildVersion(), ProcessHeap: mem.Sys, CPUCount: runtime.NumCPU(),
		Architecture: runtime.GOARCH, Platform: "culvert", DataPath: s.d.dataPath(), CryptoEngine: s.d.cryptoEngine(), LogDropped: s.d.logs.Dropped(),
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		unit := uint64(max(1, info.Unit))
		r.FreeMemory, r.TotalMemory = uint64(info.Freeram)*unit, uint64(info.Totalram)*unit
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		r.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	if s.d.chassis != nil {
		r.Board, r.CPU = s.d.chassis.info.Name(), s.d.chassis.info.CPU
	}
	return r
}

// Act does what a command asks for. A user's disconnection is over when the interface is gone.
func (s source) Act(ctx context.Context, a console.Action) error {
	switch a.Verb {
	case console.Note:
		s.d.logger("system").Info("said on the console", "text", a.Text)
		return nil
	case console.Reboot:
		s.on(func(now time.Time) { s.d.endWith(now, reboot) })
		return nil
	case console.Shutdown:
		s.on(func(now time.Time) { s.d.endWith(now, powerOff) })
		return nil
	case console.Pardon:
		err := errors.New("not banned any more")
		s.on(func(now time.Time) {
			if s.d.bans.pardon(now, a.Source) {
				err = nil
			}
		})
		return err
	case console.Disconnect:
	default:
		return fmt.Errorf("%s: not an action", a.Verb)
	}
	gone := errors.New("no such session any more")
	done := make(chan struct{})
	s.on(func(now time.Time) {
		for _, x := range s.d.sessions {
			if x.number == a.SessionID && !x.closed {
				gone = nil
				x.gone = append(x.gone, func() { close(done) })
				x.link.Close(now, ppp.Cause{Code: ppp.CauseAdmin, Text: "disconnected by the operator"})
				return
			}
		}
	})
	if gone != nil {
		return gone
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
