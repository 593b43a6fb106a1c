package l2tp

import (
	"sort"
	"time"
)

// TunnelInfo describes a control connection to the rest of the house.
type TunnelInfo struct {
	Peer          Peer
	Local, Remote TunnelID
	HostName      string // the peer's own words, made printable
	Vendor        string
	Firmware      uint16
	Dialed        bool // we sent the SCCRQ
	Created       time.Time
}

// SessionInfo describes a session. Spec is what the data plane knows it by: {Spec.Tunnel.Local, Local} is the key under
// which a plane hands out the session's descriptor.
type SessionInfo struct {
	Tunnel        TunnelInfo
	Spec          SessionSpec
	Local, Remote SessionID
	CallSerial    uint32
	Calling       string // Calling Number; empty from most clients
	Called        string
	SubAddress    string
	TxSpeed       uint32 // bit/s as the LAC claims, zero if it does not
	RxSpeed       uint32
	Framing       uint32
	Bearer        uint32
	PrivateGroup  string
	Proxy         Proxy
	Dialed        bool
	Created       time.Time
}

// Proxy is what a LAC that already talked PPP tells about it (RFC 2661 section 4.4.5). PPP may start anew regardless.
type Proxy struct {
	InitialReceivedLCP, LastSentLCP, LastReceivedLCP []byte
	AuthType                                         uint16 // 1 text, 2 CHAP, 3 PAP, 4 none, 5 MS-CHAPv1; 0: not told
	AuthName                                         string
	AuthChallenge, AuthResponse                      []byte
	AuthID                                           uint16
}

// Snapshot is what operators and tests look at.
type Snapshot struct {
	Tunnels  []TunnelStatus
	Sessions int // established ones
	HalfOpen int // tunnels whose set-up has not finished
	Drops    map[Drop]uint64
	Closing  bool
}

// TunnelStatus is one control connection.
type TunnelStatus struct {
	TunnelInfo
	State       string
	Since       time.Time // of the state
	Window      int       // what we let be outstanding at the moment
	PeerWindow  int
	Unacked     int // sent and not acknowledged
	Queued      int // not yet sent
	Retransmits uint64
	LastHeard   time.Time
	Sessions    []SessionStatus
}

// SessionStatus is one session.
type SessionStatus struct {
	SessionInfo
	State string
	Since time.Time
}

// Snapshot copies everything, ordered by id.
func (e *Engine) Snapshot(now time.Time) Snapshot {
	s := Snapshot{HalfOpen: e.halfOpen.Len(), Drops: make(map[Drop]uint64), Closing: e.closing}
	for i, n := range e.drops {
		if n != 0 {
			s.Drops[Drop(i)] = n
		}
	}
	for _, t := range e.tunnels {
		ts := TunnelStatus{
			TunnelInfo: t.info(), State: t.state.String(), Since: t.since,
			Window: min(t.d.cwnd, t.d.peerWindow), PeerWindow: t.d.peerWindow,
			Unacked: int(t.d.high - t.d.una), Retransmits: t.d.retransmits, LastHeard: t.heard,
		}
		ts.Queued = len(t.d.queue) - ts.Unacked
		for _, c := range t.sessions {
			if c.state == sessionEstablished {
				s.Sessions++
			}
			ts.Sessions = append(ts.Sessions, SessionStatus{c.describe(), c.state.String(), c.since})
		}
		sort.Slice(ts.Sessions, func(i, j int) bool {
			a, b := ts.Sessions[i], ts.Sessions[j]
			return a.Local < b.Local
		})
		s.Tunnels = append(s.Tunnels, ts)
	}
	sort.Slice(s.Tunnels, func(i, j int) bool {
		a, b := s.Tunnels[i], s.Tunnels[j]
		return a.Local < b.Local
	})
	return s
}
