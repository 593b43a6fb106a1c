package hwcrypto

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

const procCrypto = `name         : authenc(hmac(md5),cbc(aes))
driver       : authenc(hmac(md5-eip93), cbc(aes-eip93))
module       : kernel
priority     : 1500
refcnt       : 1
selftest     : passed
internal     : no
type         : aead
async        : yes
blocksize    : 16

name         : cbc(aes)
driver       : cbc-aes-neonbs
module       : aes_arm_bs
priority     : 250
selftest     : unknown
internal     : no
type         : skcipher
async        : no

name         : cbc(aes)
driver       : cbc-aes-qce
priority     : 275
internal     : yes
type         : skcipher
async        : yes

name         : sha1
driver       : sha1-generic
module       : kernel
priority     : 100
type         : shash`

func TestProcCrypto(t *testing.T) {
	algs, err := ParseProcCrypto(strings.NewReader(procCrypto))
	want := []Algorithm{
		{Name: "authenc(hmac(md5),cbc(aes))", Driver: "authenc(hmac(md5-eip93), cbc(aes-eip93))", Module: "kernel", Type: "aead", Priority: 1500, Users: 1, Async: true, Engine: true, Tested: true},
		{Name: "cbc(aes)", Driver: "cbc-aes-neonbs", Module: "aes_arm_bs", Type: "skcipher", Priority: 250},
		{Name: "cbc(aes)", Driver: "cbc-aes-qce", Type: "skcipher", Priority: 275, Async: true, Internal: true, Engine: true},
		{Name: "sha1", Driver: "sha1-generic", Module: "kernel", Type: "shash", Priority: 100},
	}
	if err != nil || !reflect.DeepEqual(algs, want) {
		t.Errorf("error %v, got\n%+v", err, algs)
	}
	if b := Best(algs, "cbc(aes)"); b.Driver != "cbc-aes-neonbs" {
		t.Errorf("best %+v: an internal one is for nobody", b)
	}
	if b := Best(algs, "gcm(aes)"); b != (Algorithm{}) {
		t.Errorf("best %+v", b)
	}
}

// message builds the body of one CRYPTO_MSG_GETALG answer.
func message(name, driver string, flags uint32, priority uint32) []byte {
	body := make([]byte, cryptoAlgLen)
	copy(body, name)
	copy(body[64:], driver)
	copy(body[128:], "kernel")
	binary.NativeEndian.PutUint32(body[3*64+12:], flags)
	return netlink.AppendAttribute(binary.NativeEndian, body, cfgPriority, binary.NativeEndian.AppendUint32(nil, priority))
}

func TestParseAlgorithm(t *testing.T) {
	for _, test := range []struct {
		b    []byte
		want Algorithm
	}{
		{message("cbc(aes)", "cbc-aes-xyz", 5|flagAsync|flagTested|flagDriverOnly, 300),
			Algorithm{Name: "cbc(aes)", Driver: "cbc-aes-xyz", Module: "kernel", Type: "skcipher", Priority: 300, Async: true, Engine: true, Tested: true}},
		{message("sha1", "sha1-generic", 0xe|flagInternal, 100),
			Algorithm{Name: "sha1", Driver: "sha1-generic", Module: "kernel", Type: "shash", Priority: 100, Internal: true}},
	} {
		if a, err := parseAlgorithm(test.b); err != nil || !reflect.DeepEqual(a, test.want) {
			t.Errorf("error %v, got %+v", err, a)
		}
		for n := range test.b { // less than an attribute's header is padding
			if _, err := parseAlgorithm(test.b[:n]); (err == nil) != (n >= cryptoAlgLen && n < cryptoAlgLen+unix.SizeofNlAttr) {
				t.Errorf("%d of %d octets: error %v", n, len(test.b), err)
			}
		}
	}
}

func FuzzParseAlgorithm(f *testing.F) {
	f.Add(message("cbc(aes)", "cbc-aes-xyz", 5, 300))
	f.Fuzz(func(t *testing.T, b []byte) { parseAlgorithm(b) })
}

func FuzzProcCrypto(f *testing.F) {
	f.Add(procCrypto)
	f.Fuzz(func(t *testing.T, s string) { ParseProcCrypto(strings.NewReader(s)) })
}
