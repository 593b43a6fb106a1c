package ikev1

import (
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	"filippo.io/bigmod"
)

// errPublicValue refuses a Diffie-Hellman public value that has the wrong length, is not on the curve, or lies in a
// subgroup so small that the secret would be known to everybody (1 < g^x < p-1, RFC 2412 appendix E).
var errPublicValue = errors.New("ikev1: invalid Diffie-Hellman public value")

// dhKey is one side's private value. Drawing it is cheap and needs the random source; public and shared are the slow
// part, touch nothing else, and may run on a worker.
type dhKey struct {
	group   Group
	private []byte
}

// dhLengths gives, for each group, the octets of the public value in a KE payload and of the private exponent. MODP
// exponents have at least twice the bits of the group's strength (RFC 3526 section 8).
var dhLengths = map[Group]struct{ public, private int }{
	MODP1024: {128, 32}, MODP1536: {192, 32}, MODP2048: {256, 32}, MODP3072: {384, 40}, MODP4096: {512, 48},
	ECP256: {64, 32}, ECP384: {96, 48}, ECP521: {132, 66}, X25519: {32, 32},
}

// publicLen is the length of a public value in octets, 0 for a group that is not implemented.
func (g Group) publicLen() int { return dhLengths[g].public }

func (g Group) curve() ecdh.Curve {
	switch g {
	case ECP256:
		return ecdh.P256()
	case ECP384:
		return ecdh.P384()
	case ECP521:
		return ecdh.P521()
	case X25519:
		return ecdh.X25519()
	}
	return nil
}

// newDHKey draws a private value.
func newDHKey(g Group, rand io.Reader) (*dhKey, error) {
	n := dhLengths[g].private
	if n == 0 {
		return nil, fmt.Errorf("ikev1: %s is not implemented", g)
	}
	k := &dhKey{group: g, private: make([]byte, n)}
	for range 16 {
		if _, err := io.ReadFull(rand, k.private); err != nil {
			return nil, fmt.Errorf("ikev1: random source: %w", err)
		}
		curve := g.curve()
		if curve == nil {
			k.private[0] |= 0x80 // full length, and never zero
			return k, nil
		}
		if g == ECP521 {
			k.private[0] &= 1
		}
		if _, err := curve.NewPrivateKey(k.private); err == nil { // refuses zero and anything from the group order up
			return k, nil
		}
	}
	return nil, fmt.Errorf("ikev1: random source yields no private value for %s", g)
}

// public computes the body of our KE payload (RFC 2409 section 5, RFC 5903 section 7: both coordinates; RFC 8031: u).
func (k *dhKey) public() ([]byte, error) {
	if curve := k.group.curve(); curve != nil {
		private, err := curve.NewPrivateKey(k.private)
		if err != nil {
			return nil, err
		}
		pub := private.PublicKey().Bytes()
		if k.group != X25519 {
			pub = pub[1:] // the octet that says "uncompressed"
		}
		return pub, nil
	}
	p, err := modulus(k.group)
	if err != nil {
		return nil, err
	}
	two := bigmod.NewNat().SetUint(2).ExpandFor(p)
	return bigmod.NewNat().Exp(two, k.private, p).Bytes(p), nil
}

// shared computes g^xy from the peer's KE payload: for MODP as long as the modulus, for curves the x coordinate alone.
func (k *dhKey) shared(peer []byte) ([]byte, error) {
	if len(peer) != k.group.publicLen() {
		return nil, errPublicValue
	}
	if curve := k.group.curve(); curve != nil {
		private, err := curve.NewPrivateKey(k.private)
		if err != nil {
			return nil, err
		}
		if k.group != X25519 {
			peer = append([]byte{4}, peer...)
		}
		public, err := curve.NewPublicKey(peer)
		if err != nil {
			return nil, errPublicValue
		}
		secret, err := private.ECDH(public)
		if err != nil {
			return nil, errPublicValue
		}
		return secret, nil
	}
	p, err := modulus(k.group)
	if err != nil {
		return nil, err
	}
	y, err := bigmod.NewNat().SetBytes(peer, p) // refuses y >= p
	if err != nil || y.IsZero() == 1 || y.IsOne() == 1 || y.IsMinusOne(p) == 1 {
		return nil, errPublicValue
	}
	return bigmod.NewNat().Exp(y, k.private, p).Bytes(p), nil
}

// modulus returns the prime of a MODP group; preparing one for Montgomery arithmetic is done once.
func modulus(g Group) (*bigmod.Modulus, error) {
	if get, ok := moduli[g]; ok {
		return get()
	}
	return nil, fmt.Errorf("ikev1: %s is no MODP group", g)
}

var moduli = func() map[Group]func() (*bigmod.Modulus, error) {
	m := make(map[Group]func() (*bigmod.Modulus, error), len(primes))
	for g, digits := range primes {
		m[g] = sync.OnceValues(func() (*bigmod.Modulus, error) {
			b, err := hex.DecodeString(digits)
			if err != nil {
				return nil, err
			}
			return bigmod.NewModulus(b)
		})
	}
	return m
}()

// primes of RFC 2409 section 6.2 and RFC 3526 sections 2 to 5; the generator is 2 in all of them.
var primes = map[Group]string{
	MODP1024: "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd" +
		"ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed" +
		"ee386bfb5a899fa5ae9f24117c4b1fe649286651ece65381ffffffffffffffff",
	MODP1536: "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd" +
		"ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed" +
		"ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f" +
		"83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca237327ffffffffffffffff",
	MODP2048: "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd" +
		"ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed" +
		"ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f" +
		"83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b" +
		"e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510" +
		"15728e5a8aacaa68ffffffffffffffff",
	MODP3072: "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd" +
		"ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed" +
		"ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f" +
		"83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b" +
		"e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510" +
		"15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7" +
		"abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c" +
		"bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a93ad2caffffffffffffffff",
	MODP4096: "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd" +
		"ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed" +
		"ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f" +
		"83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b" +
		"e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510" +
		"15728e5a8aaac42dad33170d04507a33a85521abdf1cba64ecfb850458dbef0a8aea71575d060c7db3970f85a6e1e4c7" +
		"abf5ae8cdb0933d71e8c94e04a25619dcee3d2261ad2ee6bf12ffa06d98a0864d87602733ec86a64521f2b18177b200c" +
		"bbe117577a615d6c770988c0bad946e208e24fa074e5ab3143db5bfce0fd108e4b82d120a92108011a723c12a787e6d7" +
		"88719a10bdba5b2699c327186af4e23c1a946834b6150bda2583e9ca2ad44ce8dbbbc2db04de8ef92e8efc141fbecaa6" +
		"287c59474e6bc05d99b2964fa090c3a2233ba186515be7ed1f612970cee2d7afb81bdd762170481cd0069127d5b05aa9" +
		"93b4ea988d8fddc186ffb7dc90a6c08f4df435c934063199ffffffffffffffff",
}
