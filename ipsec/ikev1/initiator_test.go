package ikev1

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
	"culvert/ipsec/isakmp"
)

// initiator is a client for tests. It has its own key derivation and its own cryptography, so that a fault in the
// engine's does not cancel out; the codec is the only thing the two share.
type initiator struct {
	t        *testing.T
	rand     *rand.Rand
	psk      []byte
	remote   netip.AddrPort // public, as the server sees us on port 500
	float    netip.AddrPort // the same on port 4500
	private  netip.Addr     // our own address, differs from remote where there is a NAT
	server   netip.Addr     // as we dialled it
	main1    []byte         // first message as a template; the cookie is replaced
	quickSA  []byte         // SA payload of quick mode
	idBody   []byte
	ids      [][]byte // of quick mode, nil for private[17/1701] and server[17/1701]
	noIDs    bool
	sendOA   bool
	pfs      Group
	extraMM5 []isakmp.Payload
	aggr     bool

	// What has been agreed.
	ci, cr    isakmp.Cookie
	enc, hash uint64
	keyBits   uint64
	group     Group
	natt      *isakmp.NATT
	nated     bool
	serverNAT bool
	floated   bool
	ni, nr    []byte
	gi, gr    []byte
	secret    []byte
	private1  any
	skeyid    []byte
	d, a, key []byte
	iv, last  []byte
	saBody    []byte
	sentMM5   []byte
	up        bool
	vids      []isakmp.VendorID
	quicks    map[uint32]*initQuick
	children  []*initChild
	deleted   []ipsec.SPI // by the server
	gone      bool        // the server deleted the ISAKMP SA
	acks      []uint32    // R-U-THERE-ACK
	probes    []uint32    // R-U-THERE
	errors    []isakmp.NotifyType
	ignoreDPD bool
	lastSent  []byte
	lastQuick []byte
	answered  map[uint32]*initQuick // quick modes that the server began
	confirmed int
}

type initQuick struct {
	mid      uint32
	iv       []byte
	ni       []byte
	spi      uint32
	private  any
	ke       []byte
	sa       []byte
	ids      [][]byte
	done     bool
	third    []byte
	question []byte
}

type initChild struct {
	in, out       ipsec.SPI // seen from the client
	keyIn, keyOut []byte    // whole KEYMAT
	oa            []netip.Addr
	transform     isakmp.Transform
	proposal      uint8
}

func newInitiator(t *testing.T, seed uint64) *initiator {
	c := &initiator{
		t: t, rand: rand.New(rand.NewPCG(seed, 7)), psk: []byte("mySecret"),
		remote: netip.MustParseAddrPort("203.0.113.9:500"), float: netip.MustParseAddrPort("203.0.113.9:4500"),
		private: netip.MustParseAddr("203.0.113.9"), server: serverAddr,
		quicks: make(map[uint32]*initQuick),
	}
	return c
}

// behindNAT gives the client a private address and mapped ports.
func (c *initiator) behindNAT(public string, port uint16, private string) *initiator {
	c.remote = netip.AddrPortFrom(netip.MustParseAddr(public), port)
	c.float = netip.AddrPortFrom(netip.MustParseAddr(public), port+1)
	c.private = netip.MustParseAddr(private)
	return c
}

func (c *initiator) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(c.rand.Uint32())
	}
	return b
}

func (c *initiator) newHash() func() hash.Hash {
	switch c.hash {
	case isakmp.HashMD5:
		return md5.New
	case isakmp.HashSHA1:
		return sha1.New
	case isakmp.HashSHA256:
		return sha256.New
	case isakmp.HashSHA384:
		return sha512.New384
	case isakmp.HashSHA512:
		return sha512.New
	}
	c.t.Fatalf("server chose hash %d", c.hash)
	return nil
}

func (c *initiator) prf(key []byte, parts ...[]byte) []byte {
	m := hmac.New(c.newHash(), key)
	m.Write(bytes.Join(parts, nil))
	return m.Sum(nil)
}

func (c *initiator) digest(parts ...[]byte) []byte {
	h := c.newHash()()
	h.Write(bytes.Join(parts, nil))
	return h.Sum(nil)
}

func (c *initiator) block(key []byte) cipher.Block {
	var b cipher.Block
	var err error
	if c.enc == isakmp.Enc3DES {
		b, err = des.NewTripleDESCipher(key)
	} else {
		b, err = aes.NewCipher(key)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *initiator) blockLen() int {
	if c.enc == isakmp.Enc3DES {
		return 8
	}
	return 16
}

func prime(g Group) *big.Int {
	p, _ := new(big.Int).SetString(primes[g], 16)
	return p
}

// keyPair makes a public value with math/big or crypto/ecdh.
func (c *initiator) keyPair(g Group) (private any, public []byte) {
	curves := map[Group]ecdh.Curve{ECP256: ecdh.P256(), ECP384: ecdh.P384(), ECP521: ecdh.P521(), X25519: ecdh.X25519()}
	if curve := curves[g]; curve != nil {
		n := map[Group]int{ECP256: 32, ECP384: 48, ECP521: 66, X25519: 32}[g]
		b := c.random(n)
		b[0] = 0
		b[1] |= 1
		k, err := curve.NewPrivateKey(b)
		if err != nil {
			c.t.Fatal(err)
		}
		public = k.PublicKey().Bytes()
		if g != X25519 {
			public = public[1:]
		}
		return k, public
	}
	x := new(big.Int).SetBytes(c.random(32))
	y := new(big.Int).Exp(big.NewInt(2), x, prime(g))
	return x, y.FillBytes(make([]byte, dhLengths[g].public))
}

func (c *initiator) agree(g Group, private any, peer []byte) []byte {
	if k, ok := private.(*ecdh.PrivateKey); ok {
		if g != X25519 {
			peer = append([]byte{4}, peer...)
		}
		p, err := k.Curve().NewPublicKey(peer)
		if err != nil {
			c.t.Fatal(err)
		}
		s, err := k.ECDH(p)
		if err != nil {
			c.t.Fatal(err)
		}
		return s
	}
	return new(big.Int).Exp(new(big.Int).SetBytes(peer), private.(*big.Int), prime(g)).FillBytes(make([]byte, dhLengths[g].public))
}

func (c *initiator) message(x isakmp.Exchange, mid uint32, encrypted bool, iv []byte, payloads ...isakmp.Payload) (msg, next []byte) {
	h := isakmp.Header{Initiator: c.ci, Responder: c.cr, Next: payloads[0].Type, Exchange: x, MessageID: mid}
	body := isakmp.AppendPayloads(nil, payloads)
	if encrypted {
		h.Flags = isakmp.Encrypted
		for len(body)%c.blockLen() != 0 {
			body = append(body, 0)
		}
		cipher.NewCBCEncrypter(c.block(c.key), iv).CryptBlocks(body, body)
		next = bytes.Clone(body[len(body)-c.blockLen():])
	}
	msg = append(h.Append(nil), body...)
	isakmp.SetLength(msg)
	return msg, next
}

// encrypt composes a message of octets that need not be payloads.
func (c *initiator) encrypt(x isakmp.Exchange, mid uint32, iv []byte, first isakmp.PayloadType, body []byte) []byte {
	for len(body)%c.blockLen() != 0 {
		body = append(body, 0)
	}
	cipher.NewCBCEncrypter(c.block(c.key), iv).CryptBlocks(body, body)
	msg := append(isakmp.Header{Initiator: c.ci, Responder: c.cr, Next: first, Exchange: x, Flags: isakmp.Encrypted, MessageID: mid}.Append(nil), body...)
	isakmp.SetLength(msg)
	return msg
}

// first is message 1 of main mode, from the template with a fresh cookie, or of aggressive mode.
func (c *initiator) first() []byte {
	copy(c.ci[:], c.random(8))
	c.ci[0] |= 1
	msg := bytes.Clone(c.main1)
	copy(msg, c.ci[:])
	h, err := isakmp.ParseHeader(msg)
	if err != nil {
		c.t.Fatal(err)
	}
	payloads, _, err := isakmp.ParsePayloads(h.Next, msg[isakmp.HeaderLen:], false)
	if err != nil {
		c.t.Fatal(err)
	}
	c.saBody, _ = single(payloads, isakmp.PayloadSA)
	if c.aggr {
		c.ni = c.random(16)
		c.private1, c.gi = c.keyPair(c.group)
		list := append([]isakmp.Payload{payloads[0]}, isakmp.Payload{Type: isakmp.PayloadKE, Body: c.gi},
			isakmp.Payload{Type: isakmp.PayloadNonce, Body: c.ni}, isakmp.Payload{Type: isakmp.PayloadID, Body: c.id()})
		msg, _ = c.message(isakmp.Aggressive, 0, false, nil, append(list, payloads[1:]...)...)
	}
	c.lastSent = msg
	return msg
}

func (c *initiator) id() []byte {
	if c.idBody == nil {
		c.idBody = isakmp.IDFromAddr(c.private, 17, 500).Append(nil)
	}
	return c.idBody
}

func (c *initiator) natHash(a netip.AddrPort) []byte {
	return c.digest(c.ci[:], c.cr[:], a.Addr().AsSlice(), []byte{byte(a.Port() >> 8), byte(a.Port())})
}

func (c *initiator) parse(msg []byte) (isakmp.Header, []isakmp.Payload) {
	h, err := isakmp.ParseHeader(msg)
	if err != nil {
		c.t.Fatalf("server sent %x: %v", msg, err)
	}
	if int(h.Length) != len(msg) || h.Initiator != c.ci {
		c.t.Fatalf("server sent length %d of %d, initiator %v", h.Length, len(msg), h.Initiator)
	}
	if h.Flags&isakmp.Encrypted != 0 {
		return h, nil
	}
	payloads, _, err := isakmp.ParsePayloads(h.Next, msg[isakmp.HeaderLen:], false)
	if err != nil {
		c.t.Fatalf("server sent %x: %v", msg, err)
	}
	return h, payloads
}

func (c *initiator) open(msg, iv []byte) (payloads []isakmp.Payload, rest, next []byte) {
	h, _ := isakmp.ParseHeader(msg)
	body := bytes.Clone(msg[isakmp.HeaderLen:])
	if len(body) == 0 || len(body)%c.blockLen() != 0 {
		c.t.Fatalf("server sent %d octets of ciphertext", len(body))
	}
	next = bytes.Clone(body[len(body)-c.blockLen():])
	cipher.NewCBCDecrypter(c.block(c.key), iv).CryptBlocks(body, body)
	payloads, used, err := isakmp.ParsePayloads(h.Next, body, true)
	if err != nil {
		c.t.Fatalf("cannot read what the server encrypted: %v", err)
	}
	return payloads, body[4+len(payloads[0].Body) : used], next
}

// receive takes the server's message and returns what a client answers, nil for nothing.
func (c *initiator) receive(msg []byte) []byte {
	h, payloads := c.parse(msg)
	switch {
	case h.Exchange == isakmp.Main && c.cr.IsZero():
		return c.third(h, payloads)
	case h.Exchange == isakmp.Main && c.gr == nil && count(payloads, isakmp.PayloadKE) == 1:
		return c.fifth(payloads)
	case h.Exchange == isakmp.Main && !c.up && c.gr != nil && h.Flags&isakmp.Encrypted != 0:
		c.sixth(msg)
	case h.Exchange == isakmp.Aggressive && !c.up:
		return c.aggressiveThird(h, payloads)
	case h.Exchange == isakmp.Quick:
		return c.quickSecond(h, msg)
	case h.Exchange == isakmp.Informational:
		return c.informed(h, msg, payloads)
	}
	return nil
}

// chosen reads the one transform of an answer and checks that it is among what was offered, octet for octet.
func (c *initiator) chosen(offer, answer []byte) (isakmp.Proposal, isakmp.Transform) {
	want, err := isakmp.ParseSA(offer)
	if err != nil {
		c.t.Fatal(err)
	}
	got, err := isakmp.ParseSA(answer)
	if err != nil {
		c.t.Fatalf("server's SA payload: %v", err)
	}
	if len(got.Proposals) != 1 || len(got.Proposals[0].Transforms) != 1 {
		c.t.Fatalf("server answers with %d proposals", len(got.Proposals))
	}
	p, tr := got.Proposals[0], got.Proposals[0].Transforms[0]
	for _, wp := range want.Proposals {
		for _, wt := range wp.Transforms {
			a := isakmp.NewSA(isakmp.Proposal{Number: wp.Number, Protocol: wp.Protocol, Transforms: []isakmp.Transform{wt}}).Append(nil)
			b := isakmp.NewSA(isakmp.Proposal{Number: p.Number, Protocol: p.Protocol, Transforms: []isakmp.Transform{tr}}).Append(nil)
			if bytes.Equal(a, b) {
				return p, tr
			}
		}
	}
	c.t.Fatalf("server answers with a transform that was not offered: %v", p)
	return p, tr
}

func (c *initiator) readPhase1(tr isakmp.Transform) {
	for _, a := range tr.Attributes {
		v, _ := a.Uint()
		switch a.Type {
		case isakmp.P1Encryption:
			c.enc = v
		case isakmp.P1Hash:
			c.hash = v
		case isakmp.P1KeyLength:
			c.keyBits = v
		case isakmp.P1Group:
			c.group = Group(v)
		}
	}
	if c.enc == isakmp.Enc3DES {
		c.keyBits = 192
	}
}

func (c *initiator) readVendors(payloads []isakmp.Payload) {
	for _, p := range payloads {
		if p.Type != isakmp.PayloadVendor {
			continue
		}
		v, _ := isakmp.IdentifyVendor(p.Body)
		c.vids = append(c.vids, v.ID)
		if d, ok := v.ID.NATT(); ok {
			if c.natt != nil {
				c.t.Fatalf("server answers with more than one dialect of NAT traversal: %v", c.vids)
			}
			c.natt = &d
		}
	}
}

func (c *initiator) natd() (out []isakmp.Payload) {
	if c.natt == nil {
		return nil
	}
	return []isakmp.Payload{
		{Type: c.natt.D, Body: c.natHash(netip.AddrPortFrom(c.server, 500))},
		{Type: c.natt.D, Body: c.natHash(netip.AddrPortFrom(c.private, 500))},
	}
}

func (c *initiator) checkNATD(payloads []isakmp.Payload) {
	if c.natt == nil {
		return
	}
	var hashes [][]byte
	for _, p := range payloads {
		if p.Type == c.natt.D {
			hashes = append(hashes, p.Body)
		}
	}
	if len(hashes) != 2 {
		c.t.Fatalf("server sent %d NAT-D payloads", len(hashes))
	}
	c.nated = !bytes.Equal(hashes[0], c.natHash(netip.AddrPortFrom(c.private, 500)))
	c.serverNAT = !bytes.Equal(hashes[1], c.natHash(netip.AddrPortFrom(c.server, 500)))
}

func (c *initiator) third(h isakmp.Header, payloads []isakmp.Payload) []byte {
	c.cr = h.Responder
	sa, _ := single(payloads, isakmp.PayloadSA)
	_, tr := c.chosen(c.saBody, sa)
	c.readPhase1(tr)
	c.readVendors(payloads)
	c.ni = c.random(20)
	c.private1, c.gi = c.keyPair(c.group)
	list := append([]isakmp.Payload{{Type: isakmp.PayloadKE, Body: c.gi}, {Type: isakmp.PayloadNonce, Body: c.ni}}, c.natd()...)
	c.lastSent, _ = c.message(isakmp.Main, 0, false, nil, list...)
	return c.lastSent
}

func (c *initiator) derive() {
	c.skeyid = c.prf(c.psk, c.ni, c.nr)
	c.d = c.prf(c.skeyid, c.secret, c.ci[:], c.cr[:], []byte{0})
	c.a = c.prf(c.skeyid, c.d, c.secret, c.ci[:], c.cr[:], []byte{1})
	e := c.prf(c.skeyid, c.a, c.secret, c.ci[:], c.cr[:], []byte{2})
	n := int(c.keyBits / 8)
	if len(e) < n {
		k1 := c.prf(e, []byte{0})
		k2 := c.prf(e, k1)
		k3 := c.prf(e, k2)
		e = append(append(k1, k2...), k3...)
	}
	c.key = e[:n]
	c.iv = c.digest(c.gi, c.gr)[:c.blockLen()]
}

func (c *initiator) fifth(payloads []isakmp.Payload) []byte {
	c.gr, _ = single(payloads, isakmp.PayloadKE)
	c.nr, _ = single(payloads, isakmp.PayloadNonce)
	c.gr, c.nr = bytes.Clone(c.gr), bytes.Clone(c.nr)
	c.checkNATD(payloads)
	c.secret = c.agree(c.group, c.private1, c.gr)
	c.derive()
	c.floated = c.natt != nil && (c.nated || c.serverNAT)
	proof := c.prf(c.skeyid, c.gi, c.gr, c.ci[:], c.cr[:], c.saBody, c.id())
	list := append([]isakmp.Payload{{Type: isakmp.PayloadID, Body: c.id()}, {Type: isakmp.PayloadHash, Body: proof}}, c.extraMM5...)
	c.lastSent, c.last = c.message(isakmp.Main, 0, true, c.iv, list...)
	return c.lastSent
}

func (c *initiator) sixth(msg []byte) {
	payloads, _, next := c.open(msg, c.last)
	id, _ := single(payloads, isakmp.PayloadID)
	hash, _ := single(payloads, isakmp.PayloadHash)
	if !bytes.Equal(hash, c.prf(c.skeyid, c.gr, c.gi, c.cr[:], c.ci[:], c.saBody, id)) {
		c.t.Fatal("HASH_R is wrong")
	}
	c.iv, c.up, c.lastSent = next, true, nil
}

func (c *initiator) aggressiveThird(h isakmp.Header, payloads []isakmp.Payload) []byte {
	c.cr = h.Responder
	sa, _ := single(payloads, isakmp.PayloadSA)
	_, tr := c.chosen(c.saBody, sa)
	c.readPhase1(tr)
	c.readVendors(payloads)
	c.gr, _ = single(payloads, isakmp.PayloadKE)
	c.nr, _ = single(payloads, isakmp.PayloadNonce)
	c.gr, c.nr = bytes.Clone(c.gr), bytes.Clone(c.nr)
	c.checkNATD(payloads)
	c.secret = c.agree(c.group, c.private1, c.gr)
	c.derive()
	id, _ := single(payloads, isakmp.PayloadID)
	hash, _ := single(payloads, isakmp.PayloadHash)
	if !bytes.Equal(hash, c.prf(c.skeyid, c.gr, c.gi, c.cr[:], c.ci[:], c.saBody, id)) {
		c.t.Fatal("HASH_R is wrong")
	}
	c.floated = c.natt != nil && (c.nated || c.serverNAT)
	proof := c.prf(c.skeyid, c.gi, c.gr, c.ci[:], c.cr[:], c.saBody, c.id())
	c.lastSent, c.iv = c.message(isakmp.Aggressive, 0, true, c.iv, append([]isakmp.Payload{{Type: isakmp.PayloadHash, Body: proof}}, c.natd()...)...)
	c.up = true
	return c.lastSent
}

func (c *initiator) midIV(mid uint32) []byte { return c.digest(c.iv, be32(mid))[:c.blockLen()] }

// quick is message 1 of quick mode.
func (c *initiator) quick() []byte {
	q := &initQuick{mid: c.rand.Uint32() | 1, ni: c.random(16), spi: c.rand.Uint32() | 0x1000, sa: bytes.Clone(c.quickSA)}
	offer, err := isakmp.ParseSA(q.sa)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range offer.Proposals {
		offer.Proposals[i].SPI = be32(q.spi)
	}
	q.sa = offer.Append(nil)
	list := []isakmp.Payload{{Type: isakmp.PayloadSA, Body: q.sa}, {Type: isakmp.PayloadNonce, Body: q.ni}}
	if c.pfs != 0 {
		q.private, q.ke = c.keyPair(c.pfs)
		list = append(list, isakmp.Payload{Type: isakmp.PayloadKE, Body: q.ke})
	}
	q.ids = c.ids
	if q.ids == nil && !c.noIDs {
		q.ids = [][]byte{isakmp.IDFromAddr(c.private, 17, 1701).Append(nil), isakmp.IDFromAddr(c.server, 17, 1701).Append(nil)}
	}
	for _, id := range q.ids {
		list = append(list, isakmp.Payload{Type: isakmp.PayloadID, Body: id})
	}
	if c.sendOA && c.natt != nil {
		list = append(list, isakmp.Payload{Type: c.natt.OA, Body: isakmp.AppendNATOA(nil, c.private)})
		if c.natt.OA == isakmp.PayloadNATOA {
			list = append(list, isakmp.Payload{Type: c.natt.OA, Body: isakmp.AppendNATOA(nil, c.server)})
		}
	}
	c.quicks[q.mid] = q
	q.question, q.iv = c.hashed(isakmp.Quick, q.mid, c.midIV(q.mid), be32(q.mid), list...)
	c.lastQuick = q.question
	return q.question
}

// hashed composes HASH, payloads with HASH = prf(SKEYID_a, prefix | payloads).
func (c *initiator) hashed(x isakmp.Exchange, mid uint32, iv, prefix []byte, list ...isakmp.Payload) (msg, next []byte) {
	sum := c.prf(c.a, prefix, isakmp.AppendPayloads(nil, list))
	return c.message(x, mid, true, iv, append([]isakmp.Payload{{Type: isakmp.PayloadHash, Body: sum}}, list...)...)
}

func (c *initiator) keymat(spi uint32, secret, ni, nr []byte) (out []byte) {
	var k []byte
	for len(out) < 128 {
		k = c.prf(c.d, k, secret, []byte{3}, be32(spi), ni, nr)
		out = append(out, k...)
	}
	return out
}

func (c *initiator) quickSecond(h isakmp.Header, msg []byte) []byte {
	q := c.quicks[h.MessageID]
	if q == nil {
		return c.answerQuick(h, msg)
	}
	if q.done {
		return q.third
	}
	payloads, rest, next := c.open(msg, q.iv)
	if !bytes.Equal(payloads[0].Body, c.prf(c.a, be32(q.mid), q.ni, rest)) {
		c.t.Fatal("HASH(2) is wrong")
	}
	sa, _ := single(payloads, isakmp.PayloadSA)
	nr, _ := single(payloads, isakmp.PayloadNonce)
	ke, _ := single(payloads, isakmp.PayloadKE)
	p, tr := c.chosen(q.sa, sa)
	var ids [][]byte
	child := &initChild{in: ipsec.SPI(q.spi), out: ipsec.SPI(binary.BigEndian.Uint32(p.SPI)), transform: tr, proposal: p.Number}
	for _, x := range payloads {
		if x.Type == isakmp.PayloadID {
			ids = append(ids, x.Body)
		}
		if c.natt != nil && x.Type == c.natt.OA {
			a, err := isakmp.ParseNATOA(x.Body)
			if err != nil {
				c.t.Fatal(err)
			}
			child.oa = append(child.oa, a)
		}
	}
	if !slices.EqualFunc(ids, q.ids, bytes.Equal) {
		c.t.Fatalf("server changed the identities: %x, sent %x", ids, q.ids)
	}
	var secret []byte
	if q.ke != nil {
		if ke == nil {
			c.t.Fatal("no KE in the server's answer")
		}
		secret = c.agree(c.pfs, q.private, ke)
	}
	child.keyIn = c.keymat(q.spi, secret, q.ni, nr)
	child.keyOut = c.keymat(uint32(child.out), secret, q.ni, nr)
	c.children = append(c.children, child)
	third := c.prf(c.a, []byte{0}, be32(q.mid), q.ni, nr)
	q.third, q.iv = c.message(isakmp.Quick, q.mid, true, next, isakmp.Payload{Type: isakmp.PayloadHash, Body: third})
	q.done = true
	c.lastQuick = nil
	return q.third
}

// answerQuick is the responder's part, for when the server rekeys: it accepts whatever comes.
func (c *initiator) answerQuick(h isakmp.Header, msg []byte) []byte {
	if want, ok := c.answered[h.MessageID]; ok { // its message 3, or our message 2 was lost
		if payloads, _, _ := c.open(msg, want.iv); bytes.Equal(payloads[0].Body, want.third) {
			c.confirmed++
		} else {
			c.t.Error("HASH(3) of the server is wrong")
		}
		return nil
	}
	payloads, rest, next := c.open(msg, c.midIV(h.MessageID))
	if !bytes.Equal(payloads[0].Body, c.prf(c.a, be32(h.MessageID), rest)) {
		return nil
	}
	sa, _ := single(payloads, isakmp.PayloadSA)
	ni, _ := single(payloads, isakmp.PayloadNonce)
	ke, withKE := single(payloads, isakmp.PayloadKE)
	offer, err := isakmp.ParseSA(sa)
	if err != nil || len(offer.Proposals) != 1 {
		c.t.Fatalf("server offers %x: %v", sa, err)
	}
	spi, nr := c.rand.Uint32()|0x1000, c.random(16)
	out := binary.BigEndian.Uint32(offer.Proposals[0].SPI)
	offer.Proposals[0].SPI = be32(spi)
	list := []isakmp.Payload{{Type: isakmp.PayloadSA, Body: offer.Append(nil)}, {Type: isakmp.PayloadNonce, Body: nr}}
	var secret []byte
	if withKE {
		private, public := c.keyPair(c.pfs)
		secret = c.agree(c.pfs, private, ke)
		list = append(list, isakmp.Payload{Type: isakmp.PayloadKE, Body: public})
	}
	for _, p := range payloads {
		if p.Type == isakmp.PayloadID {
			list = append(list, p)
		}
	}
	c.children = append(c.children, &initChild{in: ipsec.SPI(spi), out: ipsec.SPI(out), keyIn: c.keymat(spi, secret, ni, nr), keyOut: c.keymat(out, secret, ni, nr)})
	answer, next := c.hashed(isakmp.Quick, h.MessageID, next, append(be32(h.MessageID), ni...), list...)
	if c.answered == nil {
		c.answered = make(map[uint32]*initQuick)
	}
	c.answered[h.MessageID] = &initQuick{iv: next, third: c.prf(c.a, []byte{0}, be32(h.MessageID), ni, nr)}
	return answer
}

func (c *initiator) inform(list ...isakmp.Payload) []byte {
	mid := c.rand.Uint32() | 1
	msg, _ := c.hashed(isakmp.Informational, mid, c.midIV(mid), be32(mid), list...)
	return msg
}

func (c *initiator) notify(n isakmp.Notification) []byte {
	return c.inform(isakmp.Payload{Type: isakmp.PayloadNotify, Body: n.Append(nil)})
}

func (c *initiator) deleteChild(spi ipsec.SPI) []byte {
	d := isakmp.Delete{DOI: 1, Protocol: isakmp.ProtoESP, SPIs: [][]byte{be32(uint32(spi))}}
	return c.inform(isakmp.Payload{Type: isakmp.PayloadDelete, Body: d.Append(nil)})
}

func (c *initiator) deletePhase1() []byte {
	d := isakmp.Delete{DOI: 1, Protocol: isakmp.ProtoISAKMP, SPIs: [][]byte{append(c.ci[:], c.cr[:]...)}}
	return c.inform(isakmp.Payload{Type: isakmp.PayloadDelete, Body: d.Append(nil)})
}

func (c *initiator) informed(h isakmp.Header, msg []byte, payloads []isakmp.Payload) []byte {
	if h.Flags&isakmp.Encrypted != 0 {
		if !c.up {
			return nil
		}
		var rest []byte
		payloads, rest, _ = c.open(msg, c.midIV(h.MessageID))
		if !bytes.Equal(payloads[0].Body, c.prf(c.a, be32(h.MessageID), rest)) {
			c.t.Fatal("HASH(1) of the server's informational message is wrong")
		}
	}
	for _, p := range payloads {
		switch p.Type {
		case isakmp.PayloadNotify:
			n, err := isakmp.ParseNotification(p.Body)
			if err != nil {
				c.t.Fatal(err)
			}
			seq, _ := n.DPDSequence()
			switch n.Type {
			case isakmp.NotifyRUThere:
				c.probes = append(c.probes, seq)
				if !c.ignoreDPD {
					return c.notify(isakmp.NewDPD(isakmp.NotifyRUThereAck, c.ci, c.cr, seq))
				}
			case isakmp.NotifyRUThereAck:
				c.acks = append(c.acks, seq)
			default:
				c.errors = append(c.errors, n.Type)
			}
		case isakmp.PayloadDelete:
			d, err := isakmp.ParseDelete(p.Body)
			if err != nil {
				c.t.Fatal(err)
			}
			for _, spi := range d.SPIs {
				if d.Protocol == isakmp.ProtoESP {
					c.deleted = append(c.deleted, ipsec.SPI(binary.BigEndian.Uint32(spi)))
				} else {
					c.gone = true
				}
			}
		}
	}
	return nil
}

// from is the path of what the client sends now, as the server sees it.
func (c *initiator) from() ipsec.Path {
	if c.floated {
		return ipsec.Path{Local: netip.AddrPortFrom(listenAddr(c), 4500), Remote: c.float}
	}
	return ipsec.Path{Local: netip.AddrPortFrom(listenAddr(c), 500), Remote: c.remote}
}

// listenAddr is the server's own address, which differs from the dialled one where the server is behind a NAT.
func listenAddr(c *initiator) netip.Addr {
	if c.server != serverAddr {
		return serverAddr
	}
	return c.server
}

var serverAddr = netip.MustParseAddr("198.51.100.1")

// world is an engine with its clients, in virtual time.
type world struct {
	t       *testing.T
	now     time.Time
	e       *Engine
	data    *ipsectest.Fake
	sent    []sent
	clients []*initiator
	ups     []ClientInfo
	downs   []string
	downM   []ipsec.Mark
	keep    int
	log     *strings.Builder
}

type sent struct {
	path ipsec.Path
	msg  []byte
}

type seeded struct{ r *rand.Rand }

func (s seeded) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.r.Uint32())
	}
	return len(b), nil
}

var _ io.Reader = seeded{}

func testConfig() Config {
	suites := []ipsec.Suite{
		{Cipher: ipsec.AESGCM, KeyBits: 256, ICVBits: 128}, {Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128},
	}
	for _, bits := range []int{256, 192, 128} {
		suites = append(suites,
			ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: bits, Integrity: ipsec.HMACSHA256, ICVBits: 128},
			ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: bits, Integrity: ipsec.HMACSHA1, ICVBits: 96})
	}
	suites = append(suites, ipsec.Suite{Cipher: ipsec.TripleDES, KeyBits: 192, Integrity: ipsec.HMACSHA1, ICVBits: 96},
		ipsec.Suite{Cipher: ipsec.TripleDES, KeyBits: 192, Integrity: ipsec.HMACMD5, ICVBits: 96})
	return Config{Peers: []Peer{{
		Name: "l2tp-in", Remote: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		Secret: ipsec.Secret("mySecret"), Exchange: MainL2TP,
		Profile: Profile{
			Ciphers: []Cipher{AES256, AES192, AES128, TripleDES}, Hashes: []Hash{SHA512, SHA384, SHA256, SHA1, MD5},
			Groups:   []Group{X25519, ECP521, ECP384, ECP256, MODP4096, MODP3072, MODP2048, MODP1536, MODP1024},
			Lifetime: 24 * time.Hour, NATTraversal: true, DPDInterval: 2 * time.Minute, DPDMaxFailures: 5,
		},
		Proposal: Proposal{Suites: suites, Lifetime: 30 * time.Minute},
	}}}
}

func newWorld(t *testing.T, change func(*Config)) *world {
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), data: ipsectest.NewFake(), log: &strings.Builder{}}
	cfg := testConfig()
	if change != nil {
		change(&cfg)
	}
	w.e = New(cfg, Env{
		Backend: w.data, Rand: seeded{rand.New(rand.NewPCG(1, 2))},
		Send:      func(p ipsec.Path, msg []byte) { w.sent = append(w.sent, sent{p, bytes.Clone(msg)}) },
		Keepalive: func(ipsec.Path) { w.keep++ },
		Log:       slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
		PeerUp:    func(i ClientInfo) { w.ups = append(w.ups, i) },
		PeerDown:  func(m ipsec.Mark, why string) { w.downs = append(w.downs, why); w.downM = append(w.downM, m) },
	})
	return w
}

// give hands the engine a message and takes its answers.
func (w *world) give(p ipsec.Path, msg []byte) []sent {
	w.sent = nil
	b := bytes.Clone(msg)
	w.e.Receive(w.now, p, b)
	for i := range b { // nothing of it may be kept
		b[i] = 0xee
	}
	out := w.sent
	w.sent = nil
	return out
}

// run lets the client and the engine talk until neither has anything to say.
func (w *world) run(c *initiator, msg []byte) {
	queue := [][]byte{msg}
	for n := 0; len(queue) > 0; n++ {
		if n > 50 {
			w.t.Fatal("they never stop talking")
		}
		m := queue[0]
		queue = queue[1:]
		for _, s := range w.give(c.from(), m) {
			w.checkPath(c, s.path)
			if !bytes.Equal(s.msg[:8], c.ci[:]) { // for an ISAKMP SA that the client has forgotten
				continue
			}
			if answer := c.receive(s.msg); answer != nil {
				queue = append(queue, answer)
			}
		}
	}
}

func (w *world) checkPath(c *initiator, p ipsec.Path) {
	if want := c.from(); p != want {
		w.t.Fatalf("server answers on %v, client is on %v", p, want)
	}
}

// connect does main mode and one quick mode.
func (w *world) connect(c *initiator) {
	w.t.Helper()
	w.run(c, c.first())
	if !c.up {
		w.t.Fatalf("phase 1 is not up; drops %v, log:\n%s", w.e.Snapshot(w.now).Drops, w.log)
	}
	n := len(c.children)
	w.run(c, c.quick())
	if len(c.children) != n+1 {
		w.t.Fatalf("phase 2 is not up; errors %v, drops %v, log:\n%s", c.errors, w.e.Snapshot(w.now).Drops, w.log)
	}
}

// advance lets time pass; what the server sends meanwhile reaches its client.
func (w *world) advance(d time.Duration) {
	end := w.now.Add(d)
	for n := 0; ; n++ {
		if n > 100000 {
			w.t.Fatal("the engine's deadline does not move")
		}
		at := w.e.Deadline()
		if at.IsZero() || at.After(end) {
			break
		}
		if at.After(w.now) {
			w.now = at
		}
		w.sent = nil
		w.e.Tick(w.now)
		out := w.sent
		w.sent = nil
		for _, s := range out {
			w.deliver(s)
		}
	}
	w.now = end
}

func (w *world) deliver(s sent) {
	h, err := isakmp.ParseHeader(s.msg)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range w.clients {
		if c.ci == h.Initiator && (s.path.Remote == c.float || s.path.Remote == c.remote) {
			if answer := c.receive(s.msg); answer != nil {
				w.run(c, answer)
			}
		}
	}
}

// only returns the only ups' mark.
func (w *world) mark() ipsec.Mark {
	w.t.Helper()
	if len(w.ups) == 0 {
		w.t.Fatalf("no client came up; log:\n%s", w.log)
	}
	return w.ups[len(w.ups)-1].Mark
}

// pair checks that the Backend holds a working pair for a child of the client, and returns both directions.
func (w *world) pair(c *initiator, ch *initChild) (in, out ipsec.SA) {
	w.t.Helper()
	for _, sa := range w.data.SAs() {
		if sa.Dir == ipsec.In && sa.SPI == ch.out {
			in = sa
		}
		if sa.Dir == ipsec.Out && sa.SPI == ch.in {
			out = sa
		}
	}
	if in.SPI == 0 || out.SPI == 0 {
		w.t.Fatalf("no pair for client's SPIs in %v out %v: %v", ch.in, ch.out, ids(w.data.SAs()))
	}
	for _, x := range []struct {
		sa  ipsec.SA
		key []byte
	}{{in, ch.keyOut}, {out, ch.keyIn}} {
		if got := append(bytes.Clone(x.sa.Keys.Enc), x.sa.Keys.Auth...); !bytes.Equal(got, x.key[:len(got)]) || len(got) == 0 {
			w.t.Fatalf("%v: keys differ", x.sa.ID())
		}
		if len(x.sa.Keys.Enc) != x.sa.Suite.EncLen() || len(x.sa.Keys.Auth) != x.sa.Suite.AuthLen() {
			w.t.Fatalf("%v: key lengths %d and %d for %v", x.sa.ID(), len(x.sa.Keys.Enc), len(x.sa.Keys.Auth), x.sa.Suite)
		}
	}
	if in.Mark != out.Mark {
		w.t.Fatal("two marks in one pair")
	}
	return in, out
}

func ids(sas []ipsec.SA) (out []string) {
	for _, sa := range sas {
		out = append(out, fmt.Sprint(sa.ID()))
	}
	return out
}

func oneProposal(t isakmp.Transform) []byte {
	return isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoESP, SPI: be32(0x1000), Transforms: []isakmp.Transform{t}}).Append(nil)
}
