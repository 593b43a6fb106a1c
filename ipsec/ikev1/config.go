package ikev1

import (
	"fmt"
	"net/netip"
	"time"

	"culvert/ipsec"
)

// Config is everything an Engine obeys. It is replaced whole by Reconfigure.
type Config struct {
	// Peers are tried most specific Remote first; a message from an address that no peer covers gets no answer.
	Peers []Peer
	// HalfOpen bounds exchanges whose initiator has not yet authenticated; 0 means DefaultHalfOpen.
	HalfOpen int
	// MarkMask is where in the 32-bit packet mark this engine's marks live (shared with other users of marks); 0 means DefaultMarkMask.
	MarkMask uint32
	// Ports are the local UDP ports that L2TP listens on, the only ones that quick mode may select; empty means 1701.
	Ports []uint16
	// Fragment is the longest datagram, headers included, that a message goes in whole to a peer that announces IKE
	// fragmentation; 0 means DefaultFragment.
	Fragment int
	// Suites are all that the data plane can do; empty means everything. ESN says that it can do extended sequence numbers.
	Suites []ipsec.Suite
	ESN    bool
}

const (
	DefaultHalfOpen = 1000
	DefaultMarkMask = 0x7fff0000
)

// Peer is one `[ipsec.peer.NAME]` with its identity, profile and proposal resolved.
type Peer struct {
	Name               string
	Remote             []netip.Prefix
	Secret             ipsec.Secret // pre-shared key; may be empty where there are Keys or Credentials
	Keys               []UserKey    // more pre-shared keys, each one user's own
	Credentials        *Credentials // certificates; nil for none. With keys as well, the proposal that is chosen decides
	Exchange           ExchangeMode
	ID                 string // how we show ourselves, as Dial.ID; empty for the address that the peer dialled
	RemoteID           string // how the peer has to show itself, as Dial.ID; empty: as Exchange says
	Profile            Profile
	Proposal           Proposal
	SendInitialContact bool
}

// ExchangeMode is how phase 1 is done. Main expects a peer to show itself by its address, as RFC 2409 section 5.4 has it;
// MainL2TP is main mode that accepts any identity, as RouterOS names it.
type ExchangeMode uint8

const (
	Main ExchangeMode = iota
	Aggressive
	MainL2TP
)

// Profile is `[ipsec.profile.NAME]`, phase 1. The lists are what is acceptable, strongest first.
type Profile struct {
	Ciphers        []Cipher
	Hashes         []Hash
	Groups         []Group
	Lifetime       time.Duration // upper bound; the initiator's shorter one is obeyed
	NATTraversal   bool
	DPDInterval    time.Duration // 0 disables
	DPDMaxFailures int
}

// Proposal is `[ipsec.proposal.NAME]`, phase 2. Ciphers that are not AEAD combine with each of Integrity.
type Proposal struct {
	Suites   []ipsec.Suite // every acceptable suite, strongest first; ICVBits filled in
	Lifetime time.Duration
	Bytes    uint64 // upper bound: an SA that has carried so much is renewed; 0 for none
	PFS      Group  // 0: none demanded; a peer that brings a KE payload of an allowed group is answered either way
}

// Cipher is a phase 1 encryption algorithm with its key length (RFC 2409 appendix A, RFC 3602).
type Cipher uint8

const (
	AES256 Cipher = iota + 1
	AES192
	AES128
	TripleDES
)

// Hash is a phase 1 hash; the PRF is its HMAC (RFC 2409 section 4, RFC 4868).
type Hash uint8

const (
	SHA512 Hash = iota + 1
	SHA384
	SHA256
	SHA1
	MD5
)

// Group is a Diffie-Hellman group by its IANA number (RFC 2409, 3526, 5903, 8031).
type Group uint8

const (
	MODP1024 Group = 2
	MODP1536 Group = 5
	MODP2048 Group = 14
	MODP3072 Group = 15
	MODP4096 Group = 16
	ECP256   Group = 19
	ECP384   Group = 20
	ECP521   Group = 21
	X25519   Group = 31
)

var (
	cipherNames = map[Cipher]string{AES256: "aes-256", AES192: "aes-192", AES128: "aes-128", TripleDES: "3des"}
	hashNames   = map[Hash]string{SHA512: "sha512", SHA384: "sha384", SHA256: "sha256", SHA1: "sha1", MD5: "md5"}
	groupNames  = map[Group]string{MODP1024: "modp1024", MODP1536: "modp1536", MODP2048: "modp2048", MODP3072: "modp3072",
		MODP4096: "modp4096", ECP256: "ecp256", ECP384: "ecp384", ECP521: "ecp521", X25519: "x25519"}
)

func (c Cipher) String() string { return nameOf(cipherNames, c, "cipher") }
func (h Hash) String() string   { return nameOf(hashNames, h, "hash") }
func (g Group) String() string  { return nameOf(groupNames, g, "group") }

// ParseCipher, ParseHash and ParseGroup read the names that the configuration uses.
func ParseCipher(s string) (Cipher, bool) { return valueOf(cipherNames, s) }
func ParseHash(s string) (Hash, bool)     { return valueOf(hashNames, s) }
func ParseGroup(s string) (Group, bool)   { return valueOf(groupNames, s) }

func nameOf[K interface {
	comparable
	~uint8
}](names map[K]string, k K, kind string) string {
	if s, ok := names[k]; ok {
		return s
	}
	return fmt.Sprintf("%s %d", kind, uint8(k))
}

func valueOf[K comparable](names map[K]string, s string) (k K, ok bool) {
	for k, name := range names {
		if name == s {
			return k, true
		}
	}
	return k, false
}
