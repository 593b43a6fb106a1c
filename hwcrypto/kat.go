package hwcrypto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
)

// combinedAnswer is a packet of a combined cipher as somebody else made it.
type combinedAnswer struct {
	suite   Suite
	key     string // with the salt
	esn     bool
	high    uint32
	header  string
	iv      string
	text    string
	sealed  string // text and ICV
	fromDoc string
}

// Packets of draft-mcgrew-gcm-test-01 section 4 and of RFC 7634 appendix A.
var combinedAnswers = []combinedAnswer{
	{
		suite: Suite{Cipher: AESGCM, KeyBits: 128, ICV: 16}, fromDoc: "gcm-test-01",
		key: "4c80cdefbb5d10da906ac73c3613a634" + "2e443b68", esn: true, high: 0x87654321, header: "0000432100000000", iv: "4956ed7e3b244cfe",
		text: "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f756470037369700963796265726369747902646b000021000101020201",
		sealed: "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732" +
			"459018148f6cbe722fd04796562dfdb4",
	},
	{
		suite: Suite{Cipher: AESGCM, KeyBits: 128, ICV: 16}, fromDoc: "gcm-test-01",
		key: "feffe9928665731c6d6a8f9467308308" + "cafebabe", header: "0000a5f80000000a", iv: "facedbaddecaf888",
		text: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d001000001000000000000037369700963796265726369747902646b00000100010001",
		sealed: "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1" +
			"83b70d3aa8bc6ee4c309e9d85a41ad4a",
	},
	{
		suite: Suite{Cipher: AESGCM, KeyBits: 192, ICV: 16}, fromDoc: "gcm-test-01",
		key: "feffe9928665731c6d6a8f9467308308feffe9928665731c" + "cafebabe", header: "0000a5f80000000a", iv: "facedbaddecaf888",
		text:   "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001",
		sealed: "a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b27452144cc77" + "95457b9652037f5318027b5b4cd7a636",
	},
	{
		suite: Suite{Cipher: AESGCM, KeyBits: 256, ICV: 16}, fromDoc: "gcm-test-01",
		key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab" + "11223344", header: "4a2cbfe300000002", iv: "0102030405060708",
		text:   "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
		sealed: "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e" + "b335f4eecfdbf831824b4c4915956c96",
	},
	{
		suite: Suite{Cipher: ChaCha20Poly1305, KeyBits: 256, ICV: 16}, fromDoc: "RFC 7634 appendix A",
		key:    "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f" + "a0a1a2a3",
		header: "0102030400000005", iv: "1011121314151617",
		text: "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204",
		sealed: "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0" +
			"76aaa8266b7fb0f7b11b369907e1ad43",
	},
}

// cbcAnswer is a text encrypted in CBC mode, and the HMACs over header, IV and result.
type cbcAnswer struct {
	cipher  Cipher
	keyBits int
	sealed  string
	macs    map[Hash]string
}

// Computed with OpenSSL, over the header, the IV, the text and the keys of answerPacket.
var cbcAnswers = []cbcAnswer{
	{TripleDES, 192, "ae36118984a135923731ae2082a1828d9268706df4a2f8267d34cdc1dc7c2b44ba6ef0f3d94a0c9a965931a3817fd50a8c0e6c905fdc8d4e2a7c9da9ceb17c7ffe2fb56b600ada3dac3727c029d261c1", map[Hash]string{
		MD5:    "f21ed6c43c5fe9ec8193f0b99fb67f59",
		SHA1:   "dd27e88b708be730779256982fe555200d9074f1",
		SHA256: "e7b46bdd2dad8983138fd1290e686052c24ad2420659fa5605fa4bb9c5cdefe2",
		SHA384: "6adc04156c3768b8ebec5d264298391610ad19754ec4c16ec4c0930b10a318f4b872f4b82860b914f74678cb91c81b60",
		SHA512: "ad798432568f264bdde4636e398b8142693f33632fa4d122ffcd658d7130401212cb5e072e0d69df800920175bdf23c1bc4072c7850ef1b19675e3541981bd4f",
	}},
	{AESCBC, 128, "02915d62f6b9d375c012a8c7149934105e26dad1d9f934baa968b16dbf23fafff7245d6ab85ad68cbdda8d4f10304a64dbebeb569f30572686c03f8dbc08378e9d90a78ad8db303ba8b6fe2e9f254f26", map[Hash]string{
		MD5:    "2660fd0c5802af0f462f2d101aa1ff0e",
		SHA1:   "7c86a76f372b09e2b5bc8088a0c2cc661d6cb2ec",
		SHA256: "276659ce15453f29fbb26091f59ff11e4e7d229a1f1c96ebb79ce7a7e6074878",
		SHA384: "53e98134c8c2eb54a08aa6c03565263692a0b661d17a5d4b6f7ec87997890ff718d4eeaaf4e60a1819e8489f3a13432b",
		SHA512: "2f4d8ad9a5f7c1c46ad41df1b27d293e2b560435eb4c4794aeede075b3fae1f241d05f635d2cf3f93313cc41b14b1f222c07e957df17f2dd8a000340dcc57fed",
	}},
	{AESCBC, 192, "32719020ea8015be87677c4cfc7b014d87a452d39d4bab43dec3775fef23272019aab5d0ba725533a9fb4b981c4c3da8c0787fcb99e2134df8f3263b07e7262418fb9362eff6fe423ae7906967fb8b60", map[Hash]string{
		MD5:    "080f768e3e945a74a08a27f443969a74",
		SHA1:   "556193ab4bf693037c5fddc73d5132be10eefa21",
		SHA256: "ea60ec566af28e195534a6813c72725906de2c62b86767b15331de88deffd9be",
		SHA384: "07ab4e98e1743356b608e535e207c1f546a0d56cbc243b257297c9fd0e5213fd73dbf63ec15a0114ef0d7d9807a3d784",
		SHA512: "79e3fc6feba4b63b02d5d3ee10c37b48d5052211a8167257b7be08cd8845dc4f92fa1e47e3d153f1a517df6efe856eb1a6cab8f61c671a050874cd45bf1b2c63",
	}},
	{AESCBC, 256, "d33a86fa7f0766f2da73e1ff0afe77d6d9d2589e49ec48f123f10111d7ac57e1b16f72d6c8ec54df575a32eefe518803abdee95001b3aa77ac81f7e8c62e3619d8a7e284406cf416e2cdffd6e0b4a2ea", map[Hash]string{
		MD5:    "3d6c282034c86e43146f6510d57dc116",
		SHA1:   "3030b0eb6be2aef1fd9f7d48b1669390e9b85e04",
		SHA256: "d93353d3a8326ab663b5ebd3b9fdfb386167db410f4c0288ef8c42d38e6f8629",
		SHA384: "e5fac126170711f9d96957200a057cd24b09aa36ce604877f2623c2f71217fa8579d94bd5888b2b3768fc5212c49aa4e",
		SHA512: "e73a91abd8867f9046ce25db170e698b844613a197cb65f498da73e7624dfc000cd2a8f0d56bc3ff809ed57cbac77db841f463e7405197f5eda35e34dba73372",
	}},
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err) // a constant of this file
	}
	return b
}

// ramp is n octets that rise from start.
func ramp(n int, start, step byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = start + byte(i)*step
	}
	return b
}

// testKeys are the keys of cbcAnswers, and made up ones for the rest.
func testKeys(s Suite) Keys {
	return Keys{Enc: ramp(s.EncLen(), 0x10, 7), Auth: ramp(s.AuthLen(), 0x80, 11)}
}

// answer is a packet before and after sealing.
type answer struct {
	cfg          Config
	high         uint32
	text, packet []byte
}

// answers are the known ones of a suite.
func answers(s Suite) (out []answer) {
	for _, a := range combinedAnswers {
		if a.suite == s {
			out = append(out, answer{
				cfg:  Config{Suite: s, Keys: Keys{Enc: unhex(a.key)}, ESN: a.esn},
				high: a.high, text: unhex(a.text), packet: unhex(a.header + a.iv + a.sealed),
			})
		}
	}
	for _, a := range cbcAnswers {
		mac := a.macs[s.Hash]
		if a.cipher != s.Cipher || a.keyBits != s.KeyBits || mac == "" {
			continue
		}
		p := unhex("0000100100000007")
		p = append(p, ramp(s.IVLen(), 0xf0, 1)...)
		p = append(p, unhex(a.sealed)...)
		p = append(p, unhex(mac)[:s.ICV]...)
		out = append(out, answer{cfg: Config{Suite: s, Keys: testKeys(s)}, text: ramp(80, 1, 1), packet: p})
	}
	return out
}

// SelfTest has a provider give the known answers of a suite, agree with software on packets of many lengths, and reject
// packets that were changed. ErrUnsupported is in the error's tree if it does not do the suite at all.
func SelfTest(q Provider, s Suite) error {
	tested := 0
	for i, a := range answers(s) {
		t, err := q.New(a.cfg)
		if a.cfg.ESN && errors.Is(err, ErrUnsupported) {
			continue
		}
		if err != nil {
			return err
		}
		err = known(t, a)
		t.Close()
		if err != nil {
			return fmt.Errorf("hwcrypto: %s, %s, known answer %d: %w", q.Name(), s, i, err)
		}
		tested++
	}
	if tested == 0 {
		return fmt.Errorf("%w: no known answer for %s", ErrUnsupported, s)
	}
	if err := agree(q, s); err != nil {
		return fmt.Errorf("hwcrypto: %s, %s: %w", q.Name(), s, err)
	}
	return nil
}

func known(t Transform, a answer) error {
	s := a.cfg.Suite
	at := headerLen + s.IVLen()
	p := make([]byte, len(a.packet))
	copy(p, a.packet[:at])
	copy(p[at:], a.text)
	if err := t.Seal(p, a.high); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if !bytes.Equal(p, a.packet) {
		return fmt.Errorf("sealed %x, want %x", p, a.packet)
	}
	if err := t.Open(p, a.high); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if !bytes.Equal(p[at:at+len(a.text)], a.text) || !bytes.Equal(p[:at], a.packet[:at]) {
		return fmt.Errorf("opened %x, want %x", p[at:at+len(a.text)], a.text)
	}
	// Header, IV, text and ICV are all under the ICV.
	for _, i := range []int{0, 7, at - 1, at, len(p) - s.ICV - 1, len(p) - s.ICV, len(p) - 1} {
		copy(p, a.packet)
		p[i] ^= 0x40
		if err := t.Open(p, a.high); !errors.Is(err, ErrAuth) {
			return fmt.Errorf("octet %d of %d changed: error %v, want %w", i, len(p), err, ErrAuth)
		}
	}
	// And it goes on afterwards.
	copy(p, a.packet)
	return t.Open(p, a.high)
}

// agree seals here and opens there, over the lengths at which engines have been seen to go wrong: around blocks, pages of
// descriptors and packets of an MTU.
func agree(q Provider, s Suite) error {
	cfg := Config{Suite: s, Keys: testKeys(s)}
	a, err := q.New(cfg)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := Software{}.New(cfg)
	if err != nil {
		return err
	}
	defer b.Close()
	at := headerLen + s.IVLen()
	for i, n := range []int{1, 16, 17, 48, 64, 100, 128, 240, 256, 512, 513, 1024, 1400, 1488, 1500, 2048, 4096} {
		n = textLen(s, n)
		// Not every packet begins on a nice address.
		p := make([]byte, i%4+s.Overhead()+n)[i%4:]
		copy(p, ramp(at+n, byte(i), 3))
		want := bytes.Clone(p)
		if err := b.Seal(want, 0); err != nil {
			return err
		}
		if err := a.Seal(p, 0); err != nil {
			return fmt.Errorf("seal %d octets: %w", n, err)
		}
		if !bytes.Equal(p, want) {
			return fmt.Errorf("%d octets: sealed otherwise than by software", n)
		}
		if err := a.Open(p, 0); err != nil {
			return fmt.Errorf("open %d octets: %w", n, err)
		}
		if !bytes.Equal(p[:at+n], ramp(at+n, byte(i), 3)) {
			return fmt.Errorf("%d octets: opened otherwise than they were sealed", n)
		}
	}
	return nil
}
