package hwcrypto

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"culvert/board/lab"
)

// parts makes the halves of composed transforms, for the vectors of RFCs that know no packets.
type parts struct {
	name string
	cbc  func(Suite, []byte) (blockMode, error)
	mac  func(Hash, []byte) (mac, error)
}

var softParts = parts{"software",
	func(s Suite, k []byte) (blockMode, error) { return newSoftCBC(s, k) },
	func(h Hash, k []byte) (mac, error) { return newSoftMAC(h, k), nil },
}

var algParts = parts{"af_alg",
	func(s Suite, k []byte) (blockMode, error) { return newAlgCBC(s, s.Cipher.kernelName(), k) },
	func(h Hash, k []byte) (mac, error) { return newAlgMAC(h, k) },
}

func x(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

func (p parts) test(t *testing.T) {
	for _, tc := range []struct {
		name                  string
		cipher                Cipher
		key, iv, text, sealed string
	}{
		{"RFC 3602 case 1", AESCBC, "06a9214036b8a15b512e03d534120006", "3dafba429d9eb430b422da802c9fac41", hex.EncodeToString([]byte("Single block msg")), "e353779c1079aeb82708942dbe77181a"},
		{"RFC 3602 case 2", AESCBC, "c286696d887c9aa0611bbb3e2025a45a", "562e17996d093d28ddb3ba695a2e6f58",
			"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1"},
		{"RFC 3602 case 5, an ESP packet", AESCBC, "90d382b410eeba7ad938c46cec1a82bf", "e96e8c08ab465763fd098d45dd3ff893",
			"08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233343536370102030405060708090a0b0c0d0e0e01",
			"f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6"},
		{"SP 800-38A F.2.3, AES-192", AESCBC, "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "000102030405060708090a0b0c0d0e0f",
			"6bc1bee22e409f96e93d7e117393172a", "4f021db243bc633d7178183a9fa071e8"},
		{"SP 800-38A F.2.5, AES-256", AESCBC, "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "000102030405060708090a0b0c0d0e0f",
			"6bc1bee22e409f96e93d7e117393172a", "f58c4c04d6e5f1ba779eabfb5f7bfbd6"},
	} {
		c, err := p.cbc(Suite{Cipher: tc.cipher, KeyBits: len(x(tc.key)) * 8}, x(tc.key))
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		b := x(tc.text)
		if err := c.crypt(false, x(tc.iv), b); err != nil || !bytes.Equal(b, x(tc.sealed)) {
			t.Errorf("%s, %s: %x, error %v", p.name, tc.name, b, err)
		}
		if err := c.crypt(true, x(tc.iv), b); err != nil || !bytes.Equal(b, x(tc.text)) {
			t.Errorf("%s, %s: back to %x, error %v", p.name, tc.name, b, err)
		}
		c.close()
	}
	hiThere := hex.EncodeToString([]byte("Hi There"))
	fifty := func(s string) string { return strings.Repeat(s, 50) }
	for _, tc := range []struct {
		name           string
		hash           Hash
		key, text, sum string
	}{
		{"RFC 2202 section 2 case 1", MD5, strings.Repeat("0b", 16), hiThere, "9294727a3638bb1c13f48ef8158bfc9d"},
		{"RFC 2202 section 2 case 3", MD5, strings.Repeat("aa", 16), fifty("dd"), "56be34521d144c88dbb8c733f0e8b3f6"},
		{"RFC 2202 section 3 case 1", SHA1, strings.Repeat("0b", 20), hiThere, "b617318655057264e28bc0b6fb378c8ef146be00"},
		{"RFC 2202 section 3 case 3", SHA1, strings.Repeat("aa", 20), fifty("dd"), "125d7342b9ac11cd91a39af48aa17b4f63f175d3"},
		{"RFC 4231 case 1", SHA256, strings.Repeat("0b", 20), hiThere, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"RFC 4231 case 1", SHA384, strings.Repeat("0b", 20), hiThere, "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"},
		{"RFC 4231 case 1", SHA512, strings.Repeat("0b", 20), hiThere, "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
		{"RFC 4231 case 3", SHA256, strings.Repeat("aa", 20), fifty("dd"), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
	} {
		m, err := p.mac(tc.hash, x(tc.key))
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		text := x(tc.text)
		for cut := range text { // in two pieces, as with ESN
			if got, err := m.sum(text[:len(text)-cut], text[len(text)-cut:]); err != nil || !bytes.Equal(got, x(tc.sum)) {
				t.Errorf("%s, %s, %s cut at %d: %x, error %v", p.name, tc.name, tc.hash, cut, got, err)
			}
		}
		m.close()
	}
}

func TestVectors(t *testing.T) { softParts.test(t) }

func TestLabVectorsAFALG(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) { algParts.test(t) })
}

// TestESNIsAuthenticated seals with one upper half and opens with another.
func TestESNIsAuthenticated(t *testing.T) {
	for _, s := range Suites() {
		tr, err := Software{}.New(Config{Suite: s, Keys: testKeys(s), ESN: true})
		if err != nil {
			t.Fatal(err)
		}
		plain, err := Software{}.New(Config{Suite: s, Keys: testKeys(s)})
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, s.Overhead()+64)
		if err := tr.Seal(p, 7); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []func([]byte) error{
			func(b []byte) error { return tr.Open(b, 8) }, func(b []byte) error { return plain.Open(b, 7) },
		} {
			if err := bad(bytes.Clone(p)); err != ErrAuth {
				t.Errorf("%s: error %v", s, err)
			}
		}
		if err := tr.Open(p, 7); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}
