// Package ipsec is the vocabulary that the key exchange (ikev1) and the data planes (xfrm in the kernel, esp in
// userspace) share: what a security association is, which suite protects it, and how a Backend is told about it.
// It holds no behaviour beyond tables of key and block sizes.
//
// Sources: RFC 4301 (architecture), RFC 4303 (ESP), RFC 3948 (UDP encapsulation), RFC 2407 and RFC 4868 (suites).
package ipsec

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// SPI is a security parameters index as it stands on the wire, in host order. 0..255 are reserved (RFC 4303 section 2.1).
type SPI uint32

func (s SPI) String() string { return fmt.Sprintf("0x%08x", uint32(s)) }

// Mark names one IKE client in the data path: its inbound SAs stamp it on what they decrypt, and what is sent with it
// leaves through that client's outbound SA. Two clients behind one NAT differ by nothing else. Zero means "no IPsec".
type Mark uint32

func (m Mark) String() string { return fmt.Sprintf("0x%x", uint32(m)) }

// Path is where an IKE message came from or goes to. After the float of RFC 3947 Local.Port is 4500 and the
// socket adds and strips the non-ESP marker.
type Path struct {
	Local, Remote netip.AddrPort
}

func (p Path) String() string { return p.Local.String() + "<-" + p.Remote.String() }

// Valid says whether the path is complete enough to answer on.
func (p Path) Valid() bool { return p.Local.IsValid() && p.Remote.IsValid() }

// Mode is the encapsulation of a child SA (RFC 4301 section 4.1).
type Mode uint8

const (
	Transport Mode = iota + 1
	Tunnel
)

// Direction is seen from this host.
type Direction uint8

const (
	In Direction = iota + 1
	Out
)

func (d Direction) String() string {
	switch d {
	case In:
		return "in"
	case Out:
		return "out"
	}
	return fmt.Sprintf("direction %d", uint8(d))
}

// Encap holds the UDP ports of an encapsulated SA (RFC 3948); the zero value is plain ESP, IP protocol 50.
type Encap struct {
	Local, Remote uint16
}

// Selector is the inner traffic an SA may carry (RFC 4301 section 4.4.1.1). For transport mode the addresses are the
// outer ones, whatever a NATed peer wrote in its ID payload. A zero port or protocol means any.
type Selector struct {
	Local, Remote         netip.Prefix
	Proto                 uint8
	LocalPort, RemotePort uint16
}

// Lifetime bounds an SA; a zero field does not bound.
type Lifetime struct {
	Time    time.Duration
	Bytes   uint64
	Packets uint64
}

// SA is one direction of an ESP security association.
type SA struct {
	Dir           Direction
	SPI           SPI // chosen by the receiver: ours for In, the peer's for Out
	Mark          Mark
	Local, Remote netip.Addr // outer addresses
	Encap         Encap
	Mode          Mode
	Suite         Suite
	Keys          Keys
	Selector      Selector
	Replay        int  // window in packets, 0 means the backend's default
	ESN           bool // extended sequence numbers (RFC 4303 section 2.2.1)
	Soft, Hard    Lifetime
}

// ID returns what a Backend knows the SA by.
func (sa *SA) ID() SAID { return SAID{Dir: sa.Dir, SPI: sa.SPI, Mark: sa.Mark} }

// SAID names an installed SA. The mark is part of the name because two clients behind one NAT may pick the same SPI.
type SAID struct {
	Dir  Direction
	SPI  SPI
	Mark Mark
}

func (id SAID) String() string { return fmt.Sprintf("%s %s mark %s", id.Dir, id.SPI, id.Mark) }

// Usage counts what an SA has carried since it was installed.
type Usage struct {
	Bytes, Packets uint64
	LastUsed       time.Time // zero: never, or not known
	// IntegrityFailed and Replayed are drops; not every backend can tell them.
	IntegrityFailed, Replayed uint64
}

// Backend is a data plane that applies SAs. All calls are made from one goroutine and return in well under a
// millisecond. Conform in package ipsectest is what every Backend passes.
type Backend interface {
	// Install adds one SA. The first outbound SA of a mark also brings the policy that steers the mark's L2TP into ESP.
	// ErrSAExists if one of that name is installed, by us or (for In, whatever the mark) by somebody else: take another
	// SPI. An *SAError says what is wrong with the SA itself. After any error nothing has changed.
	Install(SA) error
	// Remove deletes one SA, and the policy with the mark's last outbound one. An unknown SA is not an error.
	Remove(SAID) error
	// Move re-addresses every SA of a mark whose NAT mapping changed, keeping keys and sequence numbers. To where it
	// already is changes nothing; ErrNoSA if the mark has no SA.
	Move(Mark, netip.AddrPort) error
	// Usage reads the counters of one SA; ErrNoSA if it is not installed.
	Usage(SAID) (Usage, error)
}

// Event is what a Backend reports by itself.
type Event struct {
	Kind EventKind
	ID   SAID
	// Remote is the new address and port of EventMapping.
	Remote netip.AddrPort
}

// EventKind tells the reports of a Backend apart.
type EventKind uint8

const (
	EventSoftExpire EventKind = iota + 1 // a soft lifetime passed: time to rekey
	EventHardExpire                      // a hard lifetime passed: the SA carries nothing any more; Remove takes away what is left of it
	EventMapping                         // an authentic packet came from another address or port (NAT rebinding)
)

var (
	// ErrNoSA says that the named SA is not installed.
	ErrNoSA = errors.New("ipsec: no such SA")
	// ErrSAExists says that the SA's name is taken: for an inbound SA the SPI, for an outbound one SPI and mark.
	ErrSAExists = errors.New("ipsec: SA exists")
)
