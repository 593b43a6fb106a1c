package ikev1

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// phase1Choice is one phase 1 transform, decoded.
type phase1Choice struct {
	cipher   Cipher
	hash     Hash
	group    Group
	method   AuthMethod
	lifetime time.Duration
}

// String does not mention pre-shared keys, which almost everyone has.
func (c phase1Choice) String() string {
	s := fmt.Sprintf("%s/%s/%s", c.cipher, c.hash, c.group)
	if c.method != PreSharedKey {
		s += "/" + c.method.String()
	}
	return s
}

const (
	defaultLifetime = 8 * time.Hour    // RFC 2407 section 4.5, where an offer names none
	minLifetime     = 10 * time.Second // as short as a configuration may want it
	maxLifetime     = 10 * 365 * 24 * time.Hour
)

// choosePhase1 picks from an offer the transform that stands first in the profile's order, whatever the initiator's order
// is, and returns an SA payload that holds it exactly as it was offered. keLen, if not zero, is the length of the public
// value that has come already: aggressive mode cannot negotiate the group. methods are how the peer may be authenticated,
// the best first; none stands for pre-shared keys.
func choosePhase1(offer isakmp.SA, p *Profile, keLen int, methods ...AuthMethod) (best phase1Choice, answer isakmp.SA, ok bool) {
	bestRank := 0
	if len(methods) == 0 {
		methods = []AuthMethod{PreSharedKey}
	}
	for _, prop := range offer.Proposals {
		if prop.Protocol != isakmp.ProtoISAKMP {
			continue
		}
		for _, t := range prop.Transforms {
			c, supported := decodePhase1(t)
			if !supported || keLen != 0 && keLen != c.group.publicLen() {
				continue
			}
			cipher, hash, group := slices.Index(p.Ciphers, c.cipher), slices.Index(p.Hashes, c.hash), slices.Index(p.Groups, c.group)
			method := slices.Index(methods, c.method)
			if cipher < 0 || hash < 0 || group < 0 || method < 0 {
				continue
			}
			rank := method<<24 | cipher<<16 | hash<<8 | group
			if ok && rank >= bestRank {
				continue
			}
			best, bestRank, ok = c, rank, true
			prop := prop
			prop.Transforms = []isakmp.Transform{t}
			answer = isakmp.SA{DOI: offer.DOI, Situation: offer.Situation, Proposals: []isakmp.Proposal{prop}}
		}
	}
	return best, answer, ok
}

// decodePhase1 reads a transform; false if it wants anything that we do not do. Attributes that we do not know speak
// against it, for the answer would promise to obey them.
func decodePhase1(t isakmp.Transform) (c phase1Choice, ok bool) {
	if t.ID != isakmp.TransformKeyIKE {
		return c, false
	}
	var enc, bits, method uint64
	for _, a := range t.Attributes {
		v, isNumber := a.Uint()
		if !isNumber {
			return c, false
		}
		switch a.Type {
		case isakmp.P1Encryption:
			enc = v
		case isakmp.P1KeyLength:
			bits = v
		case isakmp.P1Hash:
			c.hash = hashNumbers[v]
		case isakmp.P1AuthMethod:
			method = v
		case isakmp.P1Group:
			if v > 255 {
				return c, false
			}
			c.group = Group(v)
		case isakmp.P1LifeType, isakmp.P1LifeDuration, isakmp.P1GroupType:
		default:
			return c, false
		}
	}
	switch {
	case enc == isakmp.Enc3DES && (bits == 0 || bits == 192):
		c.cipher = TripleDES
	case enc == isakmp.EncAES && bits == 256:
		c.cipher = AES256
	case enc == isakmp.EncAES && bits == 192:
		c.cipher = AES192
	case enc == isakmp.EncAES && (bits == 128 || bits == 0): // RFC 3602 section 5.3 demands the length; without it 128 is meant
		c.cipher = AES128
	default:
		return c, false
	}
	c.lifetime, _ = lifetimes(t.Attributes, isakmp.P1LifeType, isakmp.P1LifeDuration)
	known := false
	c.method, known = methodNumbers[method]
	return c, known && c.hash != 0 && c.group.publicLen() != 0
}

var hashNumbers = map[uint64]Hash{
	isakmp.HashMD5: MD5, isakmp.HashSHA1: SHA1, isakmp.HashSHA256: SHA256, isakmp.HashSHA384: SHA384, isakmp.HashSHA512: SHA512,
}

// lifetimes reads the pairs of life type and duration, which belong together by their order. The time is clamped to
// what timers can bear.
func lifetimes(attrs []isakmp.Attribute, typ, duration uint16) (d time.Duration, kilobytes uint64) {
	d = defaultLifetime
	unit := uint64(0)
	for _, a := range attrs {
		v, ok := a.Uint()
		switch {
		case !ok || v == 0: // zero is how some say "unlimited"
		case a.Type == typ:
			unit = v
		case a.Type == duration && unit == isakmp.LifeSeconds:
			d = min(max(time.Duration(min(v, uint64(maxLifetime/time.Second)))*time.Second, minLifetime), maxLifetime)
		case a.Type == duration && unit == isakmp.LifeKilobytes:
			kilobytes = v
		}
	}
	return d, kilobytes
}

// describeOffer lists what was offered, for an operator who has to compare; a hostile offer is cut.
func describeOffer(offer isakmp.SA) string {
	const most = 24
	var out []string
	for _, p := range offer.Proposals {
		for _, t := range p.Transforms {
			if len(out) == most {
				return strings.Join(append(out, "..."), ", ")
			}
			text := t.Format(p.Protocol)
			if c, ok := decodePhase1(t); ok && p.Protocol == isakmp.ProtoISAKMP {
				text = c.String()
			} else if c, ok := decodePhase2(t); ok && p.Protocol == isakmp.ProtoESP {
				text = c.suite.String()
				if c.group != 0 {
					text += " with " + c.group.String()
				}
			}
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	return strings.Join(out, ", ")
}

// describe lists what a profile accepts.
func (p *Profile) describe() string {
	return fmt.Sprint(p.Ciphers, " / ", p.Hashes, " / ", p.Groups)
}

// phase2Choice is one ESP transform, decoded, with what goes with it.
type phase2Choice struct {
	suite     ipsec.Suite
	esn       bool  // extended sequence numbers
	group     Group // of perfect forward secrecy, 0 for none
	encap     uint64
	lifetime  time.Duration
	kilobytes uint64
	spi       ipsec.SPI // the initiator's
	proposal  isakmp.Proposal
}

// refusal says why no transform would do; the greatest is the nearest miss and the one worth telling.
type refusal uint8

const (
	refuseSuite refusal = iota + 1
	refuseGroup
	refuseNoPFS
	refusePlain
	refuseUDP
	refuseTunnel
)

var refusals = [...]string{
	"",
	"no common suite: add one of the offered to the proposal's enc-algorithms and auth-algorithms",
	"perfect forward secrecy with a group that is not allowed: add it to the profile's dh-group or set pfs-group",
	"the proposal demands perfect forward secrecy and the peer does not offer it: set pfs-group none",
	"there is a NAT on the way and the peer offers ESP without UDP encapsulation",
	"the peer wants UDP encapsulation, but does not use port 4500",
	"tunnel mode: L2TP over IPsec runs in transport mode",
}

func (r refusal) String() string { return refusals[r] }

// phase2Rules is what an offer of phase 2 is measured by.
type phase2Rules struct {
	proposal *Proposal
	profile  *Profile
	keLen    int // length of the KE payload, 0 for none
	nat      bool
	floated  bool
	// shortSHA256: the peer cuts HMAC-SHA-256 to 96 bits where RFC 4868 has 128; anything else is better.
	shortSHA256 bool
	culvert     bool // the peer means what we mean by the numbers for private use
	esn         bool // we can do extended sequence numbers
}

// choosePhase2 picks the transform whose suite stands first in the proposal, whatever the initiator's order is.
func choosePhase2(offer isakmp.SA, r *phase2Rules) (best phase2Choice, why refusal, ok bool) {
	bestRank := 0
	why = refuseSuite
	for _, prop := range offer.Proposals {
		if prop.Protocol != isakmp.ProtoESP || len(prop.SPI) != 4 || combined(offer, prop.Number) {
			continue
		}
		spi := ipsec.SPI(beUint32(prop.SPI))
		if spi < 256 { // reserved, RFC 4303 section 2.1
			continue
		}
		for _, t := range prop.Transforms {
			c, supported := decodePhase2(t)
			if !supported || c.suite.Cipher == ipsec.ChaCha20Poly1305 && !r.culvert || c.esn && !r.esn {
				continue
			}
			rank := r.rank(c.suite)
			if rank < 0 {
				continue
			}
			order := rank << 1
			if !c.esn {
				order++ // where there is a choice
			}
			if miss := r.check(&c); miss != 0 {
				why = max(why, miss)
				continue
			}
			if ok && order >= bestRank {
				continue
			}
			bestRank, ok = order, true
			best = c
			best.suite = r.proposal.Suites[rank&0xffff] // with the length of the ICV
			best.spi = spi
			best.proposal = prop
			best.proposal.Transforms = []isakmp.Transform{t}
		}
	}
	return best, why, ok
}

// combined says that a proposal number stands for ESP together with another protocol, which we do not do.
func combined(offer isakmp.SA, number uint8) bool {
	return slices.ContainsFunc(offer.Proposals, func(p isakmp.Proposal) bool {
		return p.Number == number && p.Protocol != isakmp.ProtoESP
	})
}

// rank is a suite's place in the proposal, -1 if it is not there. The low 16 bits are the index.
func (r *phase2Rules) rank(s ipsec.Suite) int {
	i := slices.IndexFunc(r.proposal.Suites, func(x ipsec.Suite) bool {
		return x.Cipher == s.Cipher && x.KeyBits == s.KeyBits && x.Integrity == s.Integrity
	})
	if i >= 0 && r.shortSHA256 && s.Integrity == ipsec.HMACSHA256 {
		i |= 1 << 16
	}
	return i
}

// check holds a transform of an acceptable suite against the rest; 0 if all is well.
func (r *phase2Rules) check(c *phase2Choice) refusal {
	switch c.encap {
	case isakmp.EncapTunnel, isakmp.EncapUDPTunnel, isakmp.EncapUDPTunnelDraft:
		return refuseTunnel
	case isakmp.EncapUDPTransport, isakmp.EncapUDPTransportDraft:
		if !r.floated {
			return refuseUDP
		}
	case isakmp.EncapTransport, 0: // RFC 2407 section 4.5 leaves the default to the host
		if r.nat {
			return refusePlain
		}
	default:
		return refuseSuite
	}
	if r.keLen == 0 {
		if r.proposal.PFS != 0 {
			return refuseNoPFS
		}
		if c.group != 0 {
			return refuseGroup // announces a group and brings no public value
		}
		return 0
	}
	if c.group == 0 || c.group.publicLen() != r.keLen || c.group != r.proposal.PFS && !slices.Contains(r.profile.Groups, c.group) {
		return refuseGroup
	}
	return 0
}

// udp says that the chosen SA is encapsulated in UDP.
func (c *phase2Choice) udp() bool {
	return c.encap == isakmp.EncapUDPTransport || c.encap == isakmp.EncapUDPTransportDraft
}

// decodePhase2 reads an ESP transform; false if it is not of a suite that encrypts and authenticates. NULL, DES, and GMAC,
// which yields no key for a cipher, never pass.
func decodePhase2(t isakmp.Transform) (c phase2Choice, ok bool) {
	var auth, bits uint64
	for _, a := range t.Attributes {
		v, isNumber := a.Uint()
		if !isNumber {
			return c, false
		}
		switch a.Type {
		case isakmp.P2Encap:
			c.encap = v
		case isakmp.P2Auth:
			auth = v
		case isakmp.P2KeyLength:
			bits = v
		case isakmp.P2Group:
			if v > 255 {
				return c, false
			}
			c.group = Group(v)
		case isakmp.P2LifeType, isakmp.P2LifeDuration:
		case isakmp.P2ESN:
			if c.esn = v == 1; v > 1 {
				return c, false
			}
		default:
			return c, false
		}
	}
	c.lifetime, c.kilobytes = lifetimes(t.Attributes, isakmp.P2LifeType, isakmp.P2LifeDuration)
	s := &c.suite
	switch t.ID {
	case isakmp.ESP3DES:
		s.Cipher, s.KeyBits = ipsec.TripleDES, 192
		if bits != 0 && bits != 192 {
			return c, false
		}
	case isakmp.ESPChaCha20Poly1305:
		s.Cipher, s.KeyBits = ipsec.ChaCha20Poly1305, 256
		if bits != 0 && bits != 256 {
			return c, false
		}
	case isakmp.ESPAES, isakmp.ESPAESGCM16:
		s.Cipher = ipsec.AESCBC
		if t.ID == isakmp.ESPAESGCM16 {
			s.Cipher = ipsec.AESGCM
		}
		switch bits {
		case 0: // RFC 3602 section 5.3 demands the length; without it 128 is meant
			s.KeyBits = 128
		case 128, 192, 256:
			s.KeyBits = int(bits)
		default:
			return c, false
		}
	default:
		return c, false
	}
	s.Integrity = authNumbers[auth]
	return c, s.AEAD() == (auth == 0) && s.AEAD() == (s.Integrity == ipsec.IntegrityNone)
}

var authNumbers = map[uint64]ipsec.Integrity{
	isakmp.AuthHMACMD5: ipsec.HMACMD5, isakmp.AuthHMACSHA1: ipsec.HMACSHA1, isakmp.AuthHMACSHA256: ipsec.HMACSHA256,
	isakmp.AuthHMACSHA384: ipsec.HMACSHA384, isakmp.AuthHMACSHA512: ipsec.HMACSHA512,
}

// describe lists what a proposal accepts.
func (p *Proposal) describe() string {
	return fmt.Sprint(p.Suites)
}
