package ikev1

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// maxOffer is how many transforms are proposed at once: some servers choke on long lists.
const maxOffer = 8

// What is offered where nothing is configured. Both lists are short. Windows servers accept AES-256 with ECP384, AES-128
// with ECP256 and 3DES with MODP1024, all of them with SHA1; small routers know nothing but the last.
var (
	modernOffer = []phase1Choice{
		{cipher: AES256, hash: SHA256, group: MODP2048}, {cipher: AES256, hash: SHA1, group: MODP2048}, {cipher: AES256, hash: SHA1, group: ECP384},
		{cipher: AES128, hash: SHA1, group: ECP256}, {cipher: AES128, hash: SHA1, group: MODP2048},
	}
	legacyOffer = []phase1Choice{
		{cipher: AES256, hash: SHA1, group: MODP1024}, {cipher: AES128, hash: SHA1, group: MODP1024},
		{cipher: TripleDES, hash: SHA1, group: MODP2048}, {cipher: TripleDES, hash: SHA1, group: MODP1024},
	}
	// commonSuites has SHA1 in front because there are servers that cut HMAC-SHA-256 to 96 bits, and SoftEther has no
	// other.
	commonSuites = []ipsec.Suite{
		{Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA1, ICVBits: 96},
		{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA1, ICVBits: 96},
		{Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA256, ICVBits: 128},
		{Cipher: ipsec.TripleDES, KeyBits: 192, Integrity: ipsec.HMACSHA1, ICVBits: 96},
	}
)

// CommonSuites are what is proposed for phase 2 where nothing is configured. Every server that is known takes one of them.
func CommonSuites() []ipsec.Suite { return slices.Clone(commonSuites) }

// can leaves out the suites that the data plane cannot do, unless nothing would be left.
func (e *Engine) can(suites []ipsec.Suite) []ipsec.Suite {
	out := slices.DeleteFunc(slices.Clone(suites), func(s ipsec.Suite) bool {
		return len(e.cfg.Suites) > 0 && !slices.ContainsFunc(e.cfg.Suites, func(k ipsec.Suite) bool {
			return k.Cipher == s.Cipher && k.KeyBits == s.KeyBits && k.Integrity == s.Integrity
		})
	})
	if len(out) == 0 {
		return suites
	}
	return out
}

// offers are the lists of phase 1 transforms to propose to a peer, one after the other. A profile that names nothing is
// filled in with what they hold, for the server may begin phase 1 as well. In aggressive mode the public value goes with
// the first message, so every list has one group only.
func offers(peer *Peer) (lists [][]phase1Choice) {
	p := &peer.Profile
	var all [][]phase1Choice
	if len(p.Ciphers) == 0 {
		all = [][]phase1Choice{modernOffer, legacyOffer}
		p.Ciphers, p.Hashes, p.Groups = nil, nil, nil
		for _, c := range slices.Concat(all...) {
			p.Ciphers, p.Hashes, p.Groups = with(p.Ciphers, c.cipher), with(p.Hashes, c.hash), with(p.Groups, c.group)
		}
	} else {
		var list []phase1Choice
		for _, c := range p.Ciphers {
			for _, h := range p.Hashes {
				for _, g := range p.Groups {
					if g.publicLen() != 0 && h.newHash() != nil {
						list = append(list, phase1Choice{cipher: c, hash: h, group: g})
					}
				}
			}
		}
		all = [][]phase1Choice{list}
	}
	for i, list := range all {
		all[i] = slices.Clone(list)
		for j := range list {
			all[i][j].method = peer.methods(peer.Exchange == Aggressive)[0]
		}
	}
	for _, list := range all {
		if peer.Exchange == Aggressive {
			for _, g := range groupsOf(list) {
				own := slices.DeleteFunc(slices.Clone(list), func(c phase1Choice) bool { return c.group != g })
				lists = slices.AppendSeq(lists, slices.Chunk(own, maxOffer))
			}
			continue
		}
		lists = slices.AppendSeq(lists, slices.Chunk(list, maxOffer))
	}
	return lists
}

// with appends what is not there yet.
func with[T comparable](list []T, x T) []T {
	if slices.Contains(list, x) {
		return list
	}
	return append(list, x)
}

func groupsOf(list []phase1Choice) (groups []Group) {
	for _, c := range list {
		groups = with(groups, c.group)
	}
	return groups
}

// phase1Offer writes transforms as RFC 2409 appendix A has them, in the order and forms that Windows uses.
func phase1Offer(list []phase1Choice, lifetime time.Duration) isakmp.SA {
	p := isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP}
	for i, c := range list {
		t := isakmp.Transform{Number: uint8(i + 1), ID: isakmp.TransformKeyIKE}
		switch c.cipher {
		case TripleDES:
			t.Attributes = append(t.Attributes, isakmp.Basic(isakmp.P1Encryption, isakmp.Enc3DES))
		default:
			t.Attributes = append(t.Attributes, isakmp.Basic(isakmp.P1Encryption, isakmp.EncAES), isakmp.Basic(isakmp.P1KeyLength, uint16(8*c.cipher.keyLen())))
		}
		t.Attributes = append(t.Attributes,
			isakmp.Basic(isakmp.P1Hash, numberOf(hashNumbers, c.hash)), isakmp.Basic(isakmp.P1Group, uint16(c.group)),
			isakmp.Basic(isakmp.P1AuthMethod, numberOf(methodNumbers, c.method)),
			isakmp.Basic(isakmp.P1LifeType, isakmp.LifeSeconds), isakmp.Variable32(isakmp.P1LifeDuration, seconds(lifetime, defaultLifetime)))
		p.Transforms = append(p.Transforms, t)
	}
	return isakmp.NewSA(p)
}

// phase2Offer writes ESP transforms (RFC 2407 section 4.5), all in one proposal.
func phase2Offer(list []phase2Choice, spi ipsec.SPI) isakmp.SA {
	p := isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoESP, SPI: be32(uint32(spi))}
	for i, c := range list {
		t := isakmp.Transform{Number: uint8(i + 1), ID: isakmp.ESPAES}
		t.Attributes = append(t.Attributes, isakmp.Basic(isakmp.P2Encap, uint16(c.encap)))
		switch c.suite.Cipher {
		case ipsec.TripleDES:
			t.ID = isakmp.ESP3DES
		case ipsec.ChaCha20Poly1305:
			t.ID = isakmp.ESPChaCha20Poly1305
		case ipsec.AESGCM:
			t.ID = isakmp.ESPAESGCM16
			fallthrough
		default:
			t.Attributes = append(t.Attributes, isakmp.Basic(isakmp.P2KeyLength, uint16(c.suite.KeyBits)))
		}
		if !c.suite.AEAD() {
			t.Attributes = append(t.Attributes, isakmp.Basic(isakmp.P2Auth, numberOf(authNumbers, c.suite.Integrity)))
		}
		if c.group != 0 {
			t.Attributes = append(t.Attributes, isakmp.Basic(isakmp.P2Group, uint16(c.group)))
		}
		if c.esn {
			t.Attributes = append(t.Attributes, isakmp.Basic(isakmp.P2ESN, 1)) // RFC 4304
		}
		t.Attributes = append(t.Attributes,
			isakmp.Basic(isakmp.P2LifeType, isakmp.LifeSeconds), isakmp.Variable32(isakmp.P2LifeDuration, seconds(c.lifetime, defaultPhase2)))
		if c.kilobytes != 0 {
			t.Attributes = append(t.Attributes,
				isakmp.Basic(isakmp.P2LifeType, isakmp.LifeKilobytes), isakmp.Variable32(isakmp.P2LifeDuration, uint32(min(c.kilobytes, math.MaxUint32))))
		}
		p.Transforms = append(p.Transforms, t)
	}
	return isakmp.NewSA(p)
}

const defaultPhase2 = time.Hour // of SAs that we propose, where the proposal names no lifetime

// numberOf is the wire's number of an algorithm, 0 if it has none.
func numberOf[K ~uint64, V comparable](numbers map[K]V, v V) uint16 {
	for n, x := range numbers {
		if x == v {
			return uint16(n)
		}
	}
	return 0
}

// seconds is a lifetime for the wire.
func seconds(d, unset time.Duration) uint32 {
	if d <= 0 {
		d = unset
	}
	return uint32(min(max(d, minLifetime), maxLifetime) / time.Second)
}

// takenPhase1 reads the server's choice: one transform, and one that was offered.
func takenPhase1(offered []phase1Choice, lifetime time.Duration, answer isakmp.SA) (c phase1Choice, ok bool) {
	if len(answer.Proposals) != 1 || len(answer.Proposals[0].Transforms) != 1 || answer.Proposals[0].Protocol != isakmp.ProtoISAKMP {
		return c, false
	}
	if c, ok = decodePhase1(answer.Proposals[0].Transforms[0]); !ok {
		return c, false
	}
	c.lifetime = min(c.lifetime, time.Duration(seconds(lifetime, defaultLifetime))*time.Second)
	return c, slices.ContainsFunc(offered, func(x phase1Choice) bool {
		return x.cipher == c.cipher && x.hash == c.hash && x.group == c.group && x.method == c.method
	})
}

// takenPhase2 is the same for phase 2. The ICV's length and our lifetime are in the offer; a shorter lifetime is obeyed.
func takenPhase2(offered []phase2Choice, answer isakmp.SA) (c phase2Choice, ok bool) {
	if len(answer.Proposals) != 1 || len(answer.Proposals[0].Transforms) != 1 || len(answer.Proposals[0].SPI) != 4 {
		return c, false
	}
	got := answer.Proposals[0]
	decoded, ok := decodePhase2(got.Transforms[0])
	if !ok || got.Protocol != isakmp.ProtoESP {
		return c, false
	}
	for _, c := range offered {
		if decoded.suite.Cipher != c.suite.Cipher || decoded.suite.KeyBits != c.suite.KeyBits || decoded.suite.Integrity != c.suite.Integrity ||
			decoded.encap != c.encap || decoded.group != c.group || decoded.esn != c.esn {
			continue
		}
		c.spi = ipsec.SPI(beUint32(got.SPI))
		c.proposal = got
		c.lifetime = min(c.lifetime, decoded.lifetime)
		if decoded.kilobytes != 0 {
			c.kilobytes = decoded.kilobytes
		}
		return c, c.spi >= 256
	}
	return c, false
}

// responderLifetime reads RESPONDER-LIFETIME (RFC 2407 section 4.6.3.1), by which a server asks for less than was
// offered; false if it is not there.
func responderLifetime(payloads []isakmp.Payload, proto isakmp.Protocol) (d time.Duration, ok bool) {
	for _, p := range payloads {
		if p.Type != isakmp.PayloadNotify {
			continue
		}
		n, err := isakmp.ParseNotification(p.Body)
		if err != nil || n.Type != isakmp.NotifyResponderLifetime || n.Protocol != proto {
			continue
		}
		attrs, err := isakmp.ParseAttributes(n.Data)
		if err != nil {
			continue
		}
		typ, duration := uint16(isakmp.P1LifeType), uint16(isakmp.P1LifeDuration)
		if proto == isakmp.ProtoESP {
			typ, duration = isakmp.P2LifeType, isakmp.P2LifeDuration
		}
		d, _ = lifetimes(attrs, typ, duration)
		return d, true
	}
	return 0, false
}

// describeChoices lists what we offered.
func describeChoices(list []phase1Choice) string {
	var out []string
	for _, c := range list {
		out = append(out, c.String())
	}
	return strings.Join(out, ", ")
}

func describeSuites(list []ipsec.Suite, g Group) string {
	return fmt.Sprintf("%v, pfs %s", list, pfsName(g))
}
