package l2tp

import (
	"fmt"
	"net/netip"
)

// TunnelID and SessionID name a tunnel and a session at one end (RFC 2661 section 3.1); zero is reserved.
type (
	TunnelID  uint16
	SessionID uint16
)

// Via is the security association a datagram came out of or has to leave through, in the data path's own terms (the
// packet mark on Linux). Zero is cleartext. An L2TP peer is an address and its Via, never an address alone: two
// clients behind one NAT differ by nothing else.
type Via uint32

// Peer is the other end of a control connection.
type Peer struct {
	Local, Remote netip.AddrPort
	Via           Via
}

func (p Peer) String() string {
	if p.Via == 0 {
		return p.Remote.String()
	}
	return fmt.Sprintf("%s via 0x%x", p.Remote, uint32(p.Via))
}

// Tunnel and Session describe to a data plane what it has to carry.
type (
	TunnelSpec struct {
		Peer          Peer
		Local, Remote TunnelID
	}
	SessionSpec struct {
		Tunnel        TunnelSpec
		Local, Remote SessionID
		SendSeq       bool // data messages carry sequence numbers
		RequireSeq    bool // and those that arrive without are dropped
		LNS           bool // we decide about sequence numbers
	}
)

// DataPlane carries the data messages of sessions. Calls come from one goroutine and return in well under a millisecond.
// The engine opens a session's path before it answers the call that asked for it, so that no early PPP frame is lost.
// Local ids name what is open: the rest of a spec may have changed since (see TunnelMover and SequenceSetter).
type DataPlane interface {
	OpenTunnel(TunnelSpec) error
	CloseTunnel(TunnelSpec)
	OpenSession(SessionSpec) error
	CloseSession(SessionSpec)
}

// A DataPlane may be able to do more; the engine asks by type assertion.
type (
	// SequenceSetter changes SendSeq and RequireSeq of an open session: a LAC asks for sequence numbers only in the ICCN,
	// after the path was opened. Without it the engine closes and opens the session again.
	SequenceSetter interface{ SetSequence(SessionSpec) error }
	// TunnelMover points an open tunnel at the new address or port in the spec (a NAT forgot its mapping).
	TunnelMover interface{ MoveTunnel(TunnelSpec) error }
	// TrafficCounter tells how many data packets have arrived in a tunnel. While they do no HELLO is needed.
	TrafficCounter interface {
		Received(TunnelSpec) (packets uint64, ok bool)
	}
)
