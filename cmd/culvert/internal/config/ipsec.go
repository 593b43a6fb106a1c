package config

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/ipsec/pki"
	"culvert/l2tp"
)

// DynamicPeer is the peer that use-ipsec makes.
const DynamicPeer = "l2tp-in"

var (
	cipherNames = []string{"aes-256", "aes-192", "aes-128", "3des"}
	hashNames   = []string{"sha512", "sha384", "sha256", "sha1", "md5"}
	groupNames  = []string{"modp1024", "modp1536", "modp2048", "modp3072", "modp4096", "ecp256", "ecp384", "ecp521", "x25519"}
)

// DefaultProfile is phase 1 as an unwritten profile has it. It connects Windows 7 and later without any change to their
// settings (they offer SHA1 with AES-256 and ECP384, AES-128 and ECP256, AES-256 and MODP2048: the second is taken, the
// cheapest for a small board), Apple (AES-256, SHA256, MODP2048) and strongSwan (AES-128, SHA256, ECP256 or MODP2048).
func DefaultProfile() ikev1.Profile {
	return ikev1.Profile{
		Ciphers:        []ikev1.Cipher{ikev1.AES256, ikev1.AES128},
		Hashes:         []ikev1.Hash{ikev1.SHA256, ikev1.SHA1},
		Groups:         []ikev1.Group{ikev1.MODP2048, ikev1.ECP256},
		Lifetime:       24 * time.Hour,
		NATTraversal:   true,
		DPDInterval:    2 * time.Minute,
		DPDMaxFailures: 5,
	}
}

// DefaultProposal is phase 2. Windows and Apple take AES-256-CBC, with SHA1 and SHA256; strongSwan AES-128 in GCM or CBC.
func DefaultProposal() ikev1.Proposal {
	return ikev1.Proposal{
		Suites: suites(
			[]ipsec.Suite{{Cipher: ipsec.AESGCM, KeyBits: 256}, {Cipher: ipsec.AESGCM, KeyBits: 128}, {Cipher: ipsec.AESCBC, KeyBits: 256}, {Cipher: ipsec.AESCBC, KeyBits: 128}},
			[]ipsec.Integrity{ipsec.HMACSHA256, ipsec.HMACSHA1}),
		Lifetime: 30 * time.Minute,
	}
}

// phase2Ciphers and phase2Hashes are the names of phase 2, strongest first.
var (
	phase2CipherNames = []string{"aes-256-gcm", "aes-192-gcm", "aes-128-gcm", "aes-256-cbc", "aes-192-cbc", "aes-128-cbc", "3des", "chacha20-poly1305"}
	phase2Ciphers     = []ipsec.Suite{
		{Cipher: ipsec.AESGCM, KeyBits: 256}, {Cipher: ipsec.AESGCM, KeyBits: 192}, {Cipher: ipsec.AESGCM, KeyBits: 128},
		{Cipher: ipsec.AESCBC, KeyBits: 256}, {Cipher: ipsec.AESCBC, KeyBits: 192}, {Cipher: ipsec.AESCBC, KeyBits: 128},
		{Cipher: ipsec.TripleDES, KeyBits: 192}, {Cipher: ipsec.ChaCha20Poly1305, KeyBits: 256},
	}
	phase2HashNames = []string{"sha512", "sha384", "sha256", "sha1", "md5"}
	phase2Hashes    = []ipsec.Integrity{ipsec.HMACSHA512, ipsec.HMACSHA384, ipsec.HMACSHA256, ipsec.HMACSHA1, ipsec.HMACMD5}
)

func byName[T any](names []string, values []T) func(string) (T, bool) {
	return func(s string) (v T, ok bool) {
		if i := slices.Index(names, s); i >= 0 {
			return values[i], true
		}
		return v, false
	}
}

// suites combines what is not AEAD with each hash, in order, and fills in the lengths of the check values (RFC 2403,
// 2404, 4868 section 2.6, 4106 section 6).
func suites(ciphers []ipsec.Suite, hashes []ipsec.Integrity) []ipsec.Suite {
	var out []ipsec.Suite
	for _, c := range ciphers {
		if c.AEAD() {
			c.ICVBits = 128
			out = append(out, c)
			continue
		}
		for _, h := range hashes {
			s := c
			s.Integrity = h
			switch h {
			case ipsec.HMACSHA512:
				s.ICVBits = 256
			case ipsec.HMACSHA384:
				s.ICVBits = 192
			case ipsec.HMACSHA256:
				s.ICVBits = 128
			default:
				s.ICVBits = 96
			}
			out = append(out, s)
		}
	}
	return out
}

// userKey is `[ppp.secret.NAME] ipsec-secret`.
type userKey struct {
	user, key string
	disabled  bool
	table     *table
}

// userKey notes a user's own pre-shared key. Two users with one key could not be told apart by it.
func (r *reader) userKey(user, key string, disabled bool, t *table) {
	switch i := slices.IndexFunc(r.userKeys, func(k userKey) bool { return k.key == key }); {
	case key == "":
		t.fail("ipsec-secret", "is empty: write a key, or leave it out")
		return
	case i >= 0:
		t.fail("ipsec-secret", "user %s has the same: a key of one's own tells who it is", quoteKey(r.userKeys[i].user))
	case len(r.userKeys) == ikev1.MaxUserKeys:
		t.fail("ipsec-secret", "more than %d users have a key of their own", ikev1.MaxUserKeys)
	case len(key) < 8:
		t.warn("ipsec-secret", "%d octets are soon guessed", len(key))
	}
	r.userKeys = append(r.userKeys, userKey{user, key, disabled, t})
}

// enrolled are the users' keys that count, in the order of their names.
func (r *reader) enrolled(shared string, dynamic bool) (keys []ikev1.UserKey) {
	sort.Slice(r.userKeys, func(i, j int) bool {
		a, b := r.userKeys[i], r.userKeys[j]
		return a.user < b.user
	})
	for _, k := range r.userKeys {
		switch {
		case k.key == shared:
			k.table.fail("ipsec-secret", "is the server's ipsec-secret, which everybody has")
		case !dynamic:
			k.table.warn("ipsec-secret", "not used: l2tp.server.use-ipsec is off")
		case !k.disabled:
			keys = append(keys, ikev1.UserKey{User: k.user, Secret: ipsec.Secret(k.key)})
		}
	}
	return keys
}

// ipsec reads `[ipsec]` and the server's ipsec-secret, and resolves the peers.
func (r *reader) ipsec(root *table, c *Config) {
	t := root.sub("ipsec")
	c.IPsec = ikev1.Config{HalfOpen: ikev1.DefaultHalfOpen, MarkMask: ikev1.DefaultMarkMask, Fragment: ikev1.DefaultFragment}
	t.integer("half-open", 1, 100000, &c.IPsec.HalfOpen)
	t.integer("fragment-size", 576, 65535, &c.IPsec.Fragment)
	t.declare(Key{Name: "mark-mask", Kind: Text}, fmt.Sprintf("0x%08x", c.IPsec.MarkMask))
	if v, ok := t.get("mark-mask"); ok {
		if m, err := parseMask(v); err != nil {
			t.fail("mark-mask", "%s", err)
		} else {
			c.IPsec.MarkMask = m
		}
	}
	profiles := map[string]ikev1.Profile{"default": DefaultProfile()}
	proposals := map[string]ikev1.Proposal{"default": DefaultProposal()}
	calls := newCalls()
	phase1, phase2 := t.sub("profile"), t.sub("proposal")
	phase1.each("profile", func(name string, t *table) {
		profiles[name] = r.phase1(t)
		calls.profiles[name] = callProfile(t, profiles[name])
	})
	phase2.each("proposal", func(name string, t *table) {
		proposals[name] = r.phase2(t)
		calls.proposals[name] = callProposal(t, proposals[name])
	})
	phase1.builtin("default")
	phase2.builtin("default")

	server := &table{r: r, path: []string{"l2tp", "server"}, m: root.sub("l2tp").sub("server").m}
	var secret string
	wellFormed := server.secret("ipsec-secret", &secret) || !server.has("ipsec-secret")
	wellFormed = wellFormed && !r.badUseIPsec
	dynamic := c.Server.Enabled && c.Server.UseIPsec != l2tp.ProtectionNone

	identities := t.sub("identity")
	known := map[string]identity{}
	identities.each("identity", func(name string, t *table) { known[name] = r.identity(t) })
	if own := known[DynamicPeer].secret; own != "" {
		if secret != "" && secret != own {
			identities.sub(DynamicPeer).fail("secret", "l2tp.server.ipsec-secret says another: write it once")
		}
		secret = own
	}
	keys := r.enrolled(secret, dynamic)
	switch {
	case dynamic && wellFormed && secret == "" && (len(keys) > 0 || known[DynamicPeer].signature): // a key of one's own, or a certificate
	case dynamic && wellFormed && secret == "":
		server.fail("ipsec-secret", `is missing: write the pre-shared key that clients have, or use-ipsec = "no"`)
	case dynamic && wellFormed && len(secret) < 8:
		server.warn("ipsec-secret", "%d octets are soon guessed: clients that know it can pose as this server", len(secret))
	}

	peers := t.sub("peer")
	var list []ikev1.Peer
	peers.each("peer", func(name string, t *table) {
		p, given := r.peer(name, t, profiles, proposals)
		id, hasIdentity := known[name]
		p.ID, p.RemoteID = id.mine, id.theirs
		if p.Exchange == ikev1.Aggressive && id.signature {
			t.fail("exchange-mode", "aggressive has pre-shared keys only: certificates need main or main-l2tp")
		}
		if c.client(name) != nil {
			calls.peers[name] = p
			if given {
				t.warn("address", "not used: connect-to in [l2tp.client.%s] says where the server is", quoteKey(name))
			}
			return
		}
		if p.Exchange != ikev1.Aggressive && (name != DynamicPeer || dynamic) {
			p.Credentials = r.credentials(c, id, pki.Terms{Name: id.name()})
		}
		switch {
		case name == DynamicPeer:
			p.Secret, p.Keys = ipsec.Secret(secret), keys
			if !dynamic {
				t.warn("", "not used: l2tp.server.use-ipsec makes this peer, and it is off")
				return
			}
			if !given {
				p.Remote = knockers(c)
			}
		case !given:
			t.fail("address", `is missing: write the networks of the peer, such as ["198.51.100.7"]`)
		case !hasIdentity:
			t.warn("", "not used: it has no identity: write [ipsec.identity.%s] with a secret", quoteKey(name))
			return
		case id.secret == "" && !id.signature:
			identities.sub(name).fail("secret", "is missing: the pre-shared key of this peer")
		default:
			p.Secret = ipsec.Secret(id.secret)
		}
		list = append(list, p)
	})
	if dynamic && !slices.ContainsFunc(list, func(p ikev1.Peer) bool { return p.Name == DynamicPeer }) {
		list = append(list, ikev1.Peer{Name: DynamicPeer, Remote: knockers(c), Secret: ipsec.Secret(secret), Keys: keys, Exchange: ikev1.MainL2TP,
			Profile: profiles["default"], Proposal: proposals["default"], SendInitialContact: true,
			ID: known[DynamicPeer].mine, RemoteID: known[DynamicPeer].theirs,
			Credentials: r.credentials(c, known[DynamicPeer], pki.Terms{Name: known[DynamicPeer].name()})})
	}
	r.calls(c, t, calls, known)
	for name := range known {
		if name != DynamicPeer && !peers.has(name) && c.client(name) == nil {
			identities.sub(name).fail("", "belongs to no peer%s", didYouMeanOr(name, append(keysOf(peers.m), DynamicPeer), ": write [ipsec.peer."+quoteKey(name)+"]"))
		}
	}
	c.IPsec.Peers = list
	if c.Server.Enabled {
		for _, a := range c.Server.Listen {
			if !slices.Contains(c.IPsec.Ports, a.Port()) {
				c.IPsec.Ports = append(c.IPsec.Ports, a.Port())
			}
		}
	}
	t.done()
}

// knockers are those of allowed-address: who may not knock gets no answer from IKE either.
func knockers(c *Config) []netip.Prefix {
	if allowed := c.Server.L2TP.Allowed; len(allowed) > 0 {
		return allowed
	}
	return everywhere()
}

func everywhere() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

func (r *reader) phase1(t *table) ikev1.Profile {
	p := DefaultProfile()
	algorithms(t, "enc-algorithm", &p.Ciphers, ikev1.ParseCipher, cipherNames)
	algorithms(t, "hash-algorithm", &p.Hashes, ikev1.ParseHash, hashNames)
	algorithms(t, "dh-group", &p.Groups, ikev1.ParseGroup, groupNames)
	t.str("comment", new(string))
	t.duration("lifetime", 10*time.Second, forever, &p.Lifetime)
	t.boolean("nat-traversal", &p.NATTraversal)
	t.duration("dpd-interval", 0, 24*time.Hour, &p.DPDInterval)
	t.integer("dpd-maximum-failures", 1, 100, &p.DPDMaxFailures)
	return p
}

func (r *reader) phase2(t *table) ikev1.Proposal {
	p := DefaultProposal()
	enc := []ipsec.Suite{phase2Ciphers[0], phase2Ciphers[2], phase2Ciphers[3], phase2Ciphers[5]}
	auth := []ipsec.Integrity{ipsec.HMACSHA256, ipsec.HMACSHA1}
	algorithms(t, "enc-algorithms", &enc, byName(phase2CipherNames, phase2Ciphers), phase2CipherNames)
	// An empty list is right where every cipher brings its own integrity.
	if v, ok := t.m["auth-algorithms"].([]any); ok && len(v) == 0 && !slices.ContainsFunc(enc, func(s ipsec.Suite) bool { return !s.AEAD() }) {
		t.get("auth-algorithms")
		auth = nil
	} else {
		algorithms(t, "auth-algorithms", &auth, byName(phase2HashNames, phase2Hashes), phase2HashNames)
	}
	t.declare(Key{Name: "auth-algorithms", Kind: List, Words: phase2HashNames}, namesOf(auth, byName(phase2HashNames, phase2Hashes), phase2HashNames))
	p.Suites = suites(enc, auth)
	t.str("comment", new(string))
	t.duration("lifetime", 10*time.Second, forever, &p.Lifetime)
	var volume string
	if t.str("lifebytes", &volume) && volume != "" {
		v, err := parseVolume(volume)
		if err != nil {
			t.fail("lifebytes", "%s", err)
		}
		p.Bytes = v
	}
	if len(p.Suites) == 1 && p.Suites[0].Cipher == ipsec.ChaCha20Poly1305 {
		t.warn("enc-algorithms", "chacha20-poly1305 alone: only other culverts have it in IKEv1")
	}
	pfs := "none"
	if t.str("pfs-group", &pfs) && pfs != "none" {
		g, ok := ikev1.ParseGroup(pfs)
		if !ok {
			t.fail("pfs-group", "%q is not one of none, %s", pfs, strings.Join(groupNames, ", "))
		}
		p.PFS = g
		t.weak("pfs-group", pfs)
	}
	return p
}

// parseVolume reads octets with k, M, G or T behind them, in powers of 1024: "500M".
func parseVolume(s string) (uint64, error) {
	shift := 0
	digits := s
	if i := strings.IndexByte("kMGT", s[len(s)-1]); i >= 0 {
		shift, digits = 10*(i+1), s[:len(s)-1]
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if v := n << shift; err == nil && v>>shift == n && v >= 1<<20 {
		return v, nil
	}
	return 0, fmt.Errorf(`%q is not a volume of at least 1M, such as "500M" or "4G"`, s)
}

// peer reads `[ipsec.peer.NAME]`; given tells whether it says where the peer is.
func (r *reader) peer(name string, t *table, profiles map[string]ikev1.Profile, proposals map[string]ikev1.Proposal) (p ikev1.Peer, given bool) {
	p = ikev1.Peer{Name: name, Exchange: ikev1.MainL2TP, SendInitialContact: true}
	profile, proposal := "default", "default"
	t.str("profile", &profile)
	t.str("proposal", &proposal)
	var ok bool
	if p.Profile, ok = profiles[profile]; !ok {
		t.fail("profile", "there is no profile %q%s", profile, didYouMeanOr(profile, keysOf(profiles), ": write [ipsec.profile."+quoteKey(profile)+"]"))
	}
	if p.Proposal, ok = proposals[proposal]; !ok {
		t.fail("proposal", "there is no proposal %q%s", proposal, didYouMeanOr(proposal, keysOf(proposals), ": write [ipsec.proposal."+quoteKey(proposal)+"]"))
	}
	choice(t, "exchange-mode", &p.Exchange, []string{"main", "aggressive", "main-l2tp"}, ikev1.Main, ikev1.Aggressive, ikev1.MainL2TP)
	if p.Exchange == ikev1.Aggressive {
		t.warn("exchange-mode", "aggressive is weak: it shows anyone who asks a hash of the pre-shared key to guess by")
	}
	t.boolean("send-initial-contact", &p.SendInitialContact)
	t.prefixes("address", &p.Remote)
	t.str("comment", new(string))
	return p, t.has("address")
}

// identity is `[ipsec.identity.NAME]`: the pre-shared key, and how both sides show themselves.
type identity struct {
	secret, mine, theirs string
	signature            bool // auth-method is digital-signature
	certificate, key     string
	ca, crl              []string
	minRSA               int
	broken               bool // something about these has been reported
	table                *table
}

func (r *reader) identity(t *table) (id identity) {
	id.table = t
	choice(t, "auth-method", &id.signature, []string{"pre-shared-key", "digital-signature"}, false, true)
	t.secret("secret", &id.secret)
	t.peerID("my-id", &id.mine)
	t.peerID("remote-id", &id.theirs)
	r.certificates(t, &id)
	t.str("comment", new(string))
	return id
}

// peerID reads an identity in RouterOS's notation: auto, or address:, fqdn:, user-fqdn: or key-id: and its value. What
// follows the first two and the third tells its kind by itself.
func (t *table) peerID(key string, dst *string) {
	var s string
	if !t.str(key, &s) || s == "" || s == "auto" {
		return
	}
	kind, value, ok := strings.Cut(s, ":")
	_, err := parseAddr(value)
	switch {
	case !ok || !slices.Contains([]string{"address", "fqdn", "user-fqdn", "key-id"}, kind):
		t.fail(key, `%q is not auto, or address:, fqdn:, user-fqdn: or key-id: and a value, such as "fqdn:office.example.com"`, s)
	case kind == "address" && err != nil:
		t.fail(key, "%q is not an address", value)
	case kind == "fqdn" && (err == nil || strings.Contains(value, "@")) || kind == "user-fqdn" && !strings.Contains(value, "@"):
		t.fail(key, "%q is no %s", value, kind)
	default:
		if kind == "key-id" {
			value = "keyid:" + value
		}
		if err := ikev1.ValidIdentity(value); err != nil {
			t.fail(key, "%s", err)
			return
		}
		*dst = value
	}
}
