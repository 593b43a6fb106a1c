package console

import (
	"context"
	"net/netip"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/logring"
)

// Source is the daemon as the console sees it. Each method returns a snapshot that the caller may keep; all may be called
// from any goroutine, several at a time. The order of rows does not matter: the console sorts them.
type Source interface {
	// Config is the configuration in force: identity, users, profiles, pools, proposals.
	Config() *config.Config
	Active() []ActiveRow
	Interfaces() []InterfaceRow
	// Clients are the states of the tunnels that are dialled; those without one are not.
	Clients() []ClientState
	Tunnels() []TunnelRow
	IKEPeers() []IKEPeerRow
	SAs() []SARow
	PoolsUsed() []PoolUsedRow
	Bans() []BanRow
	// IPsecStatistics are counters in the order in which they are shown.
	IPsecStatistics() []Counter
	Resource() Resource
	Routerboard() Routerboard
	Log() *logring.Ring
	// ReadFile is the file that the configuration came from, as it is now.
	ReadFile() ([]byte, error)
	// Change puts another text of the configuration in force and into the file: all of it, or nothing and an error. base is
	// what the file held when the change began.
	Change(ctx context.Context, base, text []byte) error
	// Traffic counts what went through an interface.
	Traffic(name string) (Traffic, error)
	// Act does what a command asks for, and returns when it has been done or refused.
	Act(context.Context, Action) error
}

// Action is something that a command wants done.
type Action struct {
	Verb Verb
	// SessionID is of the ActiveRow that Disconnect is about, and User its name.
	SessionID uint32
	User      string
	Text      string       // of Note
	Source    netip.Prefix // of the BanRow that Pardon is about
}

// Verb names an Action.
type Verb uint8

const (
	Disconnect Verb = iota + 1 // `/ppp active remove`
	Note                       // `:log info "..."`
	Reboot                     // `/system reboot`
	Shutdown                   // `/system shutdown`
	Pardon                     // `/ip firewall ban remove`
)

func (v Verb) String() string {
	switch v {
	case Disconnect:
		return "disconnect"
	case Note:
		return "note"
	case Reboot:
		return "reboot"
	case Shutdown:
		return "shutdown"
	case Pardon:
		return "pardon"
	}
	return "nothing"
}

// Traffic counts what an interface has received and sent since it was made.
type Traffic struct{ RxBytes, RxPackets, TxBytes, TxPackets uint64 }

// Span is a duration as RouterOS writes it: "1w2d3h4m5s".
type Span time.Duration

func (s Span) String() string {
	return config.FormatDuration(time.Duration(s).Truncate(time.Second))
}

// MarshalText makes JSON show what print shows.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Hex is a number that is written in base 16: session and mark numbers, SPIs.
type Hex uint32

func (h Hex) String() string {
	const digits = "0123456789abcdef"
	b := []byte("0x00000000")
	for i := range 8 {
		b[9-i] = digits[h>>(4*i)&15]
	}
	return string(b)
}

// MarshalText makes JSON show what print shows.
func (h Hex) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// In the rows below the json tag names the property, `flag` gives a boolean its letter in the flags column, and `text`
// marks what print detail puts in quotes. Where `blank` stands, a zero is shown as nothing; JSON has every property always.

// ActiveRow is one connected user, with the IKE client and the L2TP session that carry it.
type ActiveRow struct {
	RADIUS   bool       `json:"radius" flag:"R"` // authenticated by RADIUS
	Name     string     `json:"name" text:""`
	Service  string     `json:"service"`                   // "l2tp"
	CallerID string     `json:"caller-id" text:""`         // address or calling number
	Address  netip.Addr `json:"address"`                   // the peer's end of the link
	Uptime   Span       `json:"uptime"`                    // since the link came up
	Encoding string     `json:"encoding" text:""`          // "esp aes-256-cbc/sha256", or empty in the clear
	Session  Hex        `json:"session-id"`                // unique for the life of the daemon
	Since    time.Time  `json:"since"`                     // when the link came up
	Local    netip.Addr `json:"local-address" blank:""`    // our end of the link
	IPv6     netip.Addr `json:"ipv6-address" blank:""`     // the peer's link-local address, when IPV6CP is open
	Profile  string     `json:"profile" text:""`           //
	Auth     string     `json:"authentication"`            // "mschap2"
	Iface    string     `json:"interface" text:""`         //
	MTU      int        `json:"mtu"`                       //
	MRU      int        `json:"mru"`                       //
	RxBytes  uint64     `json:"rx-byte"`                   // from the peer
	TxBytes  uint64     `json:"tx-byte"`                   // to the peer
	RxPkts   uint64     `json:"rx-packet"`                 //
	TxPkts   uint64     `json:"tx-packet"`                 //
	Remote   string     `json:"remote-endpoint"`           // outer address and port
	IKEPeer  string     `json:"ike-peer" text:"" blank:""` // name of the [ipsec.peer] it came through; empty without IPsec
	IKEID    string     `json:"ike-id" text:"" blank:""`   // the identity that it showed, or its certificate's fingerprint
	Mark     Hex        `json:"ike-mark" blank:""`         // the IKE client's number in the data path
	Host     string     `json:"host-name" text:""`         // Host Name AVP
	Tunnel   uint32     `json:"tunnel-id"`                 // ours
	RTunnel  uint32     `json:"remote-tunnel-id"`          // the peer's
	LSession uint32     `json:"l2tp-session-id"`           // ours
	RSession uint32     `json:"remote-session-id"`         // the peer's
	CallSN   uint32     `json:"call-serial-number"`        //
	IdleTime Span       `json:"idle-time" blank:""`        // since the last traffic, where it is counted
}

// InterfaceRow is one interface of the L2TP server. Static bindings that nobody uses are rows too, without an address.
type InterfaceRow struct {
	Dynamic  bool   `json:"dynamic" flag:"D"`
	Running  bool   `json:"running" flag:"R"`
	Name     string `json:"name" text:""`
	User     string `json:"user" text:""`
	MTU      int    `json:"mtu" blank:""`
	MRU      int    `json:"mru" blank:""`
	Client   string `json:"client-address" blank:""` // outer address
	Uptime   Span   `json:"uptime" blank:""`
	Encoding string `json:"encoding" text:"" blank:""`
}

// ClientState is one tunnel that this router dials, as `/interface l2tp-client monitor` shows it.
type ClientState struct {
	Name       string     `json:"name" text:""`
	Status     string     `json:"status"` // "dialing", "verifying password", "connected", "terminating", "disconnected", "waiting for packets"
	Uptime     Span       `json:"uptime" blank:""`
	Idle       Span       `json:"idle-time" blank:""` // since the last packet either way
	Encoding   string     `json:"encoding" text:"" blank:""`
	MTU        int        `json:"mtu" blank:""`
	MRU        int        `json:"mru" blank:""`
	Local      netip.Addr `json:"local-address" blank:""`  // our end of the link
	Remote     netip.Addr `json:"remote-address" blank:""` // the server's
	Server     string     `json:"remote-endpoint" blank:""`
	Attempts   int        `json:"attempts"`
	NextDial   Span       `json:"next-dial" blank:""` // until the next attempt
	RxBytes    uint64     `json:"rx-byte"`
	TxBytes    uint64     `json:"tx-byte"`
	LastReason string     `json:"last-disconnect-reason" blank:""`
}

// TunnelRow is one L2TP control connection.
type TunnelRow struct {
	Tunnel   uint32 `json:"tunnel-id"`
	RTunnel  uint32 `json:"remote-tunnel-id"`
	State    string `json:"state"` // "established" ...
	Remote   string `json:"remote-endpoint"`
	Host     string `json:"host-name" text:""`
	Vendor   string `json:"vendor-name" text:""`
	Sessions int    `json:"sessions"`
	Uptime   Span   `json:"uptime"`
	Local    string `json:"local-endpoint"`
	Mark     Hex    `json:"ike-mark"`
	Window   int    `json:"remote-window"`
}

// IKEPeerRow is one IKE client: a phase 1 that is up or coming up.
type IKEPeerRow struct {
	Responder bool   `json:"responder" flag:"R"`
	NATT      bool   `json:"natt-peer" flag:"N"`
	ID        string `json:"id" text:""` // what the peer showed
	State     string `json:"state"`      // "message-1-received" ... "established"
	Uptime    Span   `json:"uptime"`
	PH2Total  int    `json:"ph2-total"`
	Remote    string `json:"remote-address"` // with port after the float to 4500
	Local     string `json:"local-address"`
	Peer      string `json:"peer" text:""` // name in the configuration
	Cookies   string `json:"spi"`          // "initiator:responder", hexadecimal
	Suite     string `json:"proposal"`     // "aes-256/sha256/modp2048"
	Vendor    string `json:"vendor" text:""`
	LastSeen  Span   `json:"last-seen"` // since the last authentic message
	Expires   Span   `json:"expires-in"`
	Mark      Hex    `json:"mark"`
}

// SARow is one direction of one ESP SA. It holds no keys, so none can be shown.
type SARow struct {
	HW       bool   `json:"hw-aead" flag:"H"` // a crypto engine does it
	ESP      bool   `json:"esp" flag:"E"`     // always
	SPI      Hex    `json:"spi"`
	Dir      string `json:"direction"` // "in" or "out"
	Src      string `json:"src-address"`
	Dst      string `json:"dst-address"`
	State    string `json:"state"` // "mature", "dying"
	AuthAlg  string `json:"auth-algorithm"`
	EncAlg   string `json:"enc-algorithm"`
	KeySize  int    `json:"enc-key-size"`
	AuthKey  masked `json:"auth-key"`
	EncKey   masked `json:"enc-key"`
	AddTime  string `json:"addtime"`      // local time
	Expires  Span   `json:"expires-in"`   // to the hard limit
	Lifetime string `json:"add-lifetime"` // "24m/30m", soft and hard
	Bytes    uint64 `json:"current-bytes"`
	Packets  uint64 `json:"current-packets"`
	Failed   uint64 `json:"integrity-failed"`
	Replayed uint64 `json:"replayed"`
	Replay   int    `json:"replay"` // window, packets
	Mark     Hex    `json:"mark"`
}

// masked is a secret that is there and never shown.
type masked struct{}

func (masked) String() string               { return "***" }
func (masked) MarshalText() ([]byte, error) { return []byte("***"), nil }

// PoolUsedRow is one leased address.
type PoolUsedRow struct {
	Pool    string     `json:"pool" text:""`
	Address netip.Addr `json:"address"`
	Owner   string     `json:"owner"`        // "l2tp"
	Info    string     `json:"info" text:""` // the user
}

// BanRow is one address, of IPv6 a network, that is not answered for a while.
type BanRow struct {
	Address  string       `json:"address" text:""`
	Creation string       `json:"creation-time"`
	Timeout  Span         `json:"timeout"` // until it ends
	Where    string       `json:"where"`   // "culvert", or "kernel" where the firewall drops its packets
	Source   netip.Prefix `json:"-"`
}

// Counter is one line of statistics.
type Counter struct {
	Name  string // kebab-case
	Value uint64
}

// Resource is `/system resource`.
type Resource struct {
	Uptime       Span   `json:"uptime"`
	Version      string `json:"version"`
	FreeMemory   uint64 `json:"free-memory"` // octets
	TotalMemory  uint64 `json:"total-memory"`
	ProcessHeap  uint64 `json:"process-memory"` // of this daemon, octets
	CPU          string `json:"cpu"`
	CPUCount     int    `json:"cpu-count"`
	Architecture string `json:"architecture-name"`
	Board        string `json:"board-name"`
	Platform     string `json:"platform"`
	Kernel       string `json:"kernel"`
	DataPath     string `json:"data-path"`     // what `auto` came to: "xfrm+kernel+kernel"
	CryptoEngine string `json:"crypto-engine"` // what does ESP
	LogDropped   uint64 `json:"log-lines-dropped"`

	Now time.Time `json:"-"` // the daemon's clock
}

// Routerboard is what the board says of itself; what it does not say is empty.
type Routerboard struct {
	Routerboard bool   `json:"routerboard"`
	BoardName   string `json:"board-name"`
	Model       string `json:"model"`
	Serial      string `json:"serial-number"`
	Firmware    string `json:"current-firmware"` // RouterBOOT's
	Upgrade     string `json:"upgrade-firmware"`
	MAC         string `json:"mac-address"`
	System      string `json:"system"` // the chip as the kernel calls it
	SoC         string `json:"soc"`    // and as its maker does
	Engine      string `json:"crypto-engine"`
	SerialPort  string `json:"serial-port"` // yes, no
}
