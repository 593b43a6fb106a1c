package hwcrypto

import "errors"

// Provider makes transforms by one means. Its methods may be called from any goroutine.
type Provider interface {
	// Name tells the means apart: "software", "af_alg aead".
	Name() string
	// New makes a transform. ErrUnsupported is in the error's tree if the provider does not do the suite.
	New(Config) (Transform, error)
}

// Config is what a transform is made for.
type Config struct {
	Suite Suite
	Keys  Keys
	// ESN says that sequence numbers have 64 bits, of which the packet carries the lower half (RFC 4303 section 2.2.1).
	ESN bool
}

// Transform protects the packets of one direction of one security association. It is not safe for concurrent use: the
// SA it belongs to guards it together with its sequence numbers.
//
// A packet is the ESP header of eight octets, the IV, the text, and the ICV, of which Seal fills the last; the text's
// length must be a multiple of Suite.Block. high is the upper half of the sequence number and counts with ESN only.
type Transform interface {
	// Seal encrypts the text in place and writes the ICV. After an error other than ErrPacket the packet is unchanged.
	Seal(packet []byte, high uint32) error
	// Open checks the ICV and decrypts the text in place. ErrAuth if the packet is not authentic; the packet's text may
	// then be lost. After an error that is neither ErrAuth nor ErrPacket the packet is unchanged.
	Open(packet []byte, high uint32) error
	// Close forgets the keys. Using the transform after it is an error.
	Close() error
}

// batchTransform is a Transform that is faster at several packets than at one after the other.
type batchTransform interface {
	// SealAll is Seal for each of the packets in turn, and says how many it has sealed; the error is that of the next.
	SealAll(packets [][]byte, high uint32) (sealed int, err error)
}

var (
	// ErrAuth says that a packet's ICV is not what its keys make of it.
	ErrAuth = errors.New("hwcrypto: packet is not authentic")
	// ErrPacket says that a packet cannot be of the suite by its length.
	ErrPacket = errors.New("hwcrypto: packet of impossible length")
	errClosed = errors.New("hwcrypto: transform is closed")
)

// split takes a packet apart; the parts alias it.
func (s Suite) split(p []byte) (iv, text, icv []byte, err error) {
	n := len(p) - s.Overhead()
	if n < s.Block() || n%s.Block() != 0 {
		return nil, nil, nil, ErrPacket
	}
	at := headerLen + s.IVLen()
	return p[headerLen:at], p[at : at+n], p[at+n:], nil
}
