package ikev1

import (
	"container/list"
	"crypto/hmac"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// A pre-shared key for each user. Main mode needs the key to read message 5, and only message 5 says who sends it
// (RFC 2409 section 5.4), so the responder holds that message and tries every key that is enrolled: SKEYID and its
// children, one block, and where that block looks like the beginning of an identity, the whole message and its hash.
// All keys are tried whichever it is, so that the time taken does not tell where in the list it stands.

// UserKey is a pre-shared key that belongs to one user: what comes through an SA made with it is that user's.
type UserKey struct {
	User   string
	Secret ipsec.Secret
}

const (
	// MaxUserKeys bounds what one message 5 may cost.
	MaxUserKeys = 4096
	// inlineKeys are tried at once: so few take less than a millisecond on a slow processor.
	inlineKeys = 8
	// A source gets this many passes over all keys, and then one a second: a whole office may come back at once.
	passBurst, passRate = 32, 1
	maxLately           = 8    // users remembered for one address, whose keys are tried before the others
	maxSources          = 1024 // addresses remembered
)

// ring says whether the key of an exchange is found by trying.
func (sa *phase1) ring() bool { return sa.dial == nil && len(sa.peer.Keys) > 0 }

// namedKey picks the key of aggressive mode, whose first message says who sends it: that of the user of this name, with
// or without a domain, else the peer's own. Where there is neither, a key that nobody has makes the answer to a stranger
// like any other.
func (sa *phase1) namedKey() (ipsec.Secret, string) {
	if !sa.ring() {
		return sa.peer.Secret, ""
	}
	if id, err := isakmp.ParseID(sa.idBody); err == nil {
		switch id.Type {
		case isakmp.IDFQDN, isakmp.IDUserFQDN, isakmp.IDKeyID:
			name := string(id.Data)
			local, _, _ := strings.Cut(name, "@")
			for _, want := range []string{name, local} {
				if i := slices.IndexFunc(sa.peer.Keys, func(k UserKey) bool { return k.User == want }); i >= 0 {
					return sa.peer.Keys[i].Secret, want
				}
			}
		}
	}
	if len(sa.peer.Secret) > 0 {
		return sa.peer.Secret, ""
	}
	return SHA256.prf(sa.e.decoy, sa.idBody), ""
}

// candidates are the keys to try: those that were right for this address lately, and the others.
func (sa *phase1) candidates() (lately, others []UserKey) {
	names := sa.e.lately.get(addressBlock(sa.path.Remote.Addr()))
	if len(sa.peer.Secret) > 0 {
		others = append(others, UserKey{Secret: sa.peer.Secret})
	}
	for _, k := range sa.peer.Keys {
		if slices.Contains(names, k.User) {
			lately = append(lately, k)
		} else {
			others = append(others, k)
		}
	}
	return lately, others
}

// tryKeys looks for the key that message 5 was made with, on a worker where there are many.
func (sa *phase1) tryKeys(now time.Time, m *message) {
	e := sa.e
	if sa.badAuth >= maxBadAuth || len(m.body()) == 0 || len(m.body())%sa.chosen.cipher.blockLen() != 0 {
		e.drop(DropDecrypt, m.path)
		return
	}
	lately, others := sa.candidates()
	t := sa.trial(m)
	if found := t.among(lately); found != nil {
		sa.unlock(now, m, found)
		return
	}
	if !e.passes.take(now, m.path.Remote.Addr()) {
		e.drop(DropLimit, m.path, "problem", "too many keys tried for this address")
		return
	}
	held := *m
	held.raw = append([]byte(nil), m.raw...)
	verdict := func(now time.Time, found *unlocked) {
		if sa.state != stateComputing {
			return
		}
		sa.state = stateKE
		if found == nil {
			e.drop(DropHash, held.path)
			sa.wrongKeys(now, &held, len(lately)+len(others))
			return
		}
		sa.unlock(now, &held, found)
	}
	sa.state = stateComputing
	if len(others) <= inlineKeys {
		verdict(now, t.among(others))
		return
	}
	t.body = held.body()
	if !e.offload(now, func() func(time.Time) {
		found := t.among(others)
		return func(now time.Time) { verdict(now, found) }
	}) {
		sa.state = stateKE
		e.drop(DropBusy, m.path)
	}
}

// wrongKeys says once per exchange that no key fits.
func (sa *phase1) wrongKeys(now time.Time, m *message, n int) {
	if sa.badAuth++; sa.badAuth > 1 {
		return
	}
	sa.e.failed(now, m.path.Remote.Addr())
	sa.e.warn(now, "pre-shared key differs: message 5 decrypts with none of the enrolled keys: set the ipsec-secret of the user's [ppp.secret], or the server's, on both sides",
		"remote", m.path.Remote, "peer", sa.peer.Name, "client", sa.vendors.software(), "keys", n)
	sa.e.refuseClear(now, m, isakmp.AuthenticationFailed)
}

// unlock goes on with the key that was found.
func (sa *phase1) unlock(now time.Time, m *message, found *unlocked) {
	sa.keys, sa.crypt, sa.user = found.keys, found.crypt, found.user
	clear(sa.secret)
	sa.secret = nil
	if sa.user != "" {
		sa.e.lately.add(addressBlock(m.path.Remote.Addr()), sa.user)
	}
	sa.mainFifth(now, m)
}

// trial is what the keys are tried on. It shares nothing with the engine that changes, so that a worker may do it.
type trial struct {
	cipher                 Cipher
	hash                   Hash
	id                     cookies
	ni, nr, gi, gr, secret []byte
	iv, saBody, body       []byte
	first                  isakmp.PayloadType
}

// unlocked is what a key has opened.
type unlocked struct {
	user  string
	keys  phase1Keys
	crypt *crypt
}

func (sa *phase1) trial(m *message) *trial {
	return &trial{
		cipher: sa.chosen.cipher, hash: sa.chosen.hash, id: sa.id, ni: sa.ni, nr: sa.nr, gi: sa.gi, gr: sa.gr,
		secret: append([]byte(nil), sa.secret...), iv: sa.iv, saBody: sa.saBody, body: m.body(), first: m.Next,
	}
}

// among tries every key.
func (t *trial) among(keys []UserKey) (found *unlocked) {
	for _, k := range keys {
		p := derivePhase1(t.cipher, t.hash, k.Secret, t.ni, t.nr, t.secret, t.id.initiator, t.id.responder)
		c, err := newCrypt(t.cipher, p.enc)
		if err != nil || !t.plausible(c) || !t.verify(c, &p) {
			continue
		}
		found = &unlocked{user: k.User, keys: p, crypt: c}
	}
	return found
}

// plausible says whether the first block can be the head of a payload, an identity as a rule. One wrong key in some ten
// million passes.
func (t *trial) plausible(c *crypt) bool {
	n := t.cipher.blockLen()
	head, _, err := c.open(t.iv, t.body[:n])
	if err != nil || head[1] != 0 {
		return false
	}
	length := int(binary.BigEndian.Uint16(head[2:]))
	return length >= 8 && length <= len(t.body) && (t.first != isakmp.PayloadID || head[4] >= 1 && head[4] <= 11)
}

// verify reads the whole message and holds its hash against the key.
func (t *trial) verify(c *crypt, k *phase1Keys) bool {
	plain, _, err := c.open(t.iv, t.body)
	if err != nil {
		return false
	}
	payloads, _, err := isakmp.ParsePayloads(t.first, plain, true)
	if err != nil {
		return false
	}
	id, ok1 := single(payloads, isakmp.PayloadID)
	hash, ok2 := single(payloads, isakmp.PayloadHash)
	return ok1 && ok2 && hmac.Equal(hash, k.authHash(t.gi, t.gr, t.id.initiator, t.id.responder, t.saBody, id))
}

// keyOfUser is the key that a peer has for a user; nil for none.
func (p *Peer) keyOfUser(user string) ipsec.Secret {
	if user == "" {
		return p.Secret
	}
	for _, k := range p.Keys {
		if k.User == user {
			return k.Secret
		}
	}
	return nil
}

// recent remembers which users came from an address, for so many addresses as it may; the one that was used longest ago
// gives way. Only who has authenticated gets in.
type recent struct {
	users map[netip.Prefix]*list.Element
	order list.List
}

type recentEntry struct {
	block netip.Prefix
	names []string // the latest last
}

func (r *recent) get(block netip.Prefix) []string {
	if el := r.users[block]; el != nil {
		return el.Value.(*recentEntry).names
	}
	return nil
}

func (r *recent) add(block netip.Prefix, user string) {
	el := r.users[block]
	if el == nil {
		if r.users == nil {
			r.users = make(map[netip.Prefix]*list.Element)
		}
		if r.order.Len() >= maxSources {
			oldest := r.order.Front()
			delete(r.users, oldest.Value.(*recentEntry).block)
			r.order.Remove(oldest)
		}
		el = r.order.PushBack(&recentEntry{block: block})
		r.users[block] = el
	}
	r.order.MoveToBack(el)
	entry := el.Value.(*recentEntry)
	entry.names = append(slices.DeleteFunc(entry.names, func(s string) bool { return s == user }), user)
	if len(entry.names) > maxLately {
		entry.names = slices.Delete(entry.names, 0, 1)
	}
}
