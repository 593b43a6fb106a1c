package isakmp

import (
	"encoding/hex"
)

// VendorID names a vendor id payload that is known (RFC 2408 section 3.16). The values are this program's own.
type VendorID uint8

const (
	VendorUnknown VendorID = iota
	VendorRFC3947
	VendorNATTDraft00
	VendorNATTDraft01
	VendorNATTDraft02
	VendorNATTDraft02N // hash of the draft's name with a newline: the form everybody sends
	VendorNATTDraft03
	VendorNATTDraft04
	VendorNATTDraft05
	VendorNATTDraft06
	VendorNATTDraft07
	VendorNATTDraft08
	VendorAppleNATT // never echo: it makes Apple reverse the NAT-D order
	VendorStenberg01
	VendorStenberg02
	VendorDPD            // RFC 3706 section 5.1
	VendorXAUTH          // draft-ietf-ipsec-isakmp-xauth-06
	VendorUnity          // Cisco
	VendorFragmentation  // suffix: optional capability word, FragMain and its like
	VendorMSNT5          // suffix: version word, MSWindows7 and its like
	VendorInitialContact // Microsoft's form of the INITIAL-CONTACT notification, not authenticated
	VendorMSNegotiation  // MS-Negotiation Discovery Capable
	VendorMSIKECGA       // IKE CGA version 1
	VendorMSAuthIP
	VendorMSGSSAPI
	VendorMSKeyModIKE
	VendorMSKeyModAuthIP
	VendorMSKeyModIKEv2
	VendorMSNLB
	VendorRacoon // KAME racoon, ipsec-tools
	VendorStrongSwan
	VendorCiscoVPN // VPN concentrator
	VendorCulvert  // this program
)

// Version words of VendorMSNT5.
const (
	MSWindows2000   = 2
	MSWindowsXP     = 3
	MSWindows2003   = 4
	MSVista         = 5
	MSWindows2008   = 6
	MSWindows7      = 7
	MSWindows2008R2 = 8
	MSWindows8      = 9 // and everything after it
)

// Capability bits of VendorFragmentation.
const (
	FragMain uint32 = 0x80000000 // main and aggressive mode
	FragBase uint32 = 0x40000000
)

// vendor is one row of the table. A payload matches when it begins with prefix and has at least min and, where max is
// not zero, at most max octets. In hexadecimal the table is data of the program, which nothing has to build.
type vendor struct {
	id       VendorID
	name     string
	prefix   string // hexadecimal
	tail     string // a version or capabilities: what goes out behind the prefix when we send it
	min, max int
}

// longestVendor is the most octets that a prefix has.
const longestVendor = 20

// fromHex is for the literals of this file, which a test proves sound.
func fromHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// vendors is in the order of VendorID.
var vendors = []vendor{
	{VendorRFC3947, "RFC 3947", "4a131c81070358455c5728f20e95452f", "", 16, 16},
	{VendorNATTDraft00, "nat-t-ike-00", "4485152d18b6bbcd0be8a8469579ddcc", "", 16, 16},
	{VendorNATTDraft01, "nat-t-ike-01", "16f6ca16e4a4066d83821a0f0aeaa862", "", 16, 16},
	{VendorNATTDraft02, "nat-t-ike-02", "cd60464335df21f87cfdb2fc68b6a448", "", 16, 16},
	{VendorNATTDraft02N, "nat-t-ike-02n", "90cb80913ebb696e086381b5ec427b1f", "", 16, 16},
	{VendorNATTDraft03, "nat-t-ike-03", "7d9419a65310ca6f2c179d9215529d56", "", 16, 16},
	{VendorNATTDraft04, "nat-t-ike-04", "9909b64eed937c6573de52ace952fa6b", "", 16, 16},
	{VendorNATTDraft05, "nat-t-ike-05", "80d0bb3def54565ee84645d4c85ce3ee", "", 16, 16},
	{VendorNATTDraft06, "nat-t-ike-06", "4d1e0e136deafa34c4f3ea9f02ec7285", "", 16, 16},
	{VendorNATTDraft07, "nat-t-ike-07", "439b59f8ba676c4c7737ae22eab8f582", "", 16, 16},
	{VendorNATTDraft08, "nat-t-ike-08", "8f8d83826d246b6fc7a8a6a428c11de8", "", 16, 16},
	{VendorAppleNATT, "Apple nat-t-ike", "4df37928e9fc4fd1b3262170d515c662", "", 16, 16},
	{VendorStenberg01, "stenberg-ipsec-nat-traversal-01", "27bab5dc01ea0760ea4e3190ac27c0d0", "", 16, 16},
	{VendorStenberg02, "stenberg-ipsec-nat-traversal-02", "6105c422e76847e43f9684801292aecd", "", 16, 16},
	{VendorDPD, "DPD", "afcad71368a1f1c96b8696fc7757", "0100", 16, 16},
	{VendorXAUTH, "XAUTH", "09002689dfd6b712", "", 8, 8},
	{VendorUnity, "Cisco Unity", "12f5f28c457168a9702d9fe274cc", "0100", 16, 16},
	{VendorFragmentation, "FRAGMENTATION", "4048b7d56ebce88525e7de7f00d6c2d3", "80000000", 16, 20},
	{VendorMSNT5, "MS NT5 ISAKMPOAKLEY", "1e2b516905991c7d7c96fcbfb587e461", "00000009", 16, 20},
	{VendorInitialContact, "Vid-Initial-Contact", "26244d38eddb61b3172a36e3d0cfb819", "", 16, 16},
	{VendorMSNegotiation, "MS-Negotiation Discovery Capable", "fb1de3cdf341b7ea16b7e5be0855f120", "", 16, 16},
	{VendorMSIKECGA, "IKE CGA version 1", "e3a5966a76379fe707228231e5ce8652", "", 16, 16},
	{VendorMSAuthIP, "MS AuthIP", "214ca4faffa7f32d6748e5303395ae83", "", 16, 16},
	{VendorMSGSSAPI, "GSSAPI", "621b04bb09882ac1e15935fefa24aeee", "", 16, 16},
	{VendorMSKeyModIKE, "MS key module IKE", "01528bbbc00696121849ab9a1c5b2a5100000000", "", 20, 20},
	{VendorMSKeyModAuthIP, "MS key module AuthIP", "01528bbbc00696121849ab9a1c5b2a5100000001", "", 20, 20},
	{VendorMSKeyModIKEv2, "MS key module IKEv2", "01528bbbc00696121849ab9a1c5b2a5100000002", "", 20, 20},
	{VendorMSNLB, "MS NLB", "72872b95fcda2eb708efe322119b4971", "", 16, 16},
	{VendorRacoon, "racoon", "7003cbc1097dbe9c2600ba6983bc8b35", "", 16, 16},
	{VendorStrongSwan, "strongSwan", "882fe56d6fd20dbc2251613b2ebe5beb", "", 16, 16},
	{VendorCiscoVPN, "Cisco VPN concentrator", "1f07f70eaa6514d3b0fa96542a50", "", 14, 0},
	{VendorCulvert, "Culvert", "dee337817ba44ea469e9a2c62cd7aee2", "", 16, 16}, // MD5("Culvert")
}

// Vendor is a vendor id payload that was recognised.
type Vendor struct {
	ID     VendorID
	Name   string
	Suffix []byte // what follows the fixed part: a version or capabilities; aliases the input
}

// IdentifyVendor looks the body of a vendor id payload up; false if it is not in the table.
func IdentifyVendor(body []byte) (Vendor, bool) {
	var buf [2 * longestVendor]byte
	begin := buf[:hex.Encode(buf[:], body[:min(len(body), longestVendor)])]
	for i := range vendors {
		v := &vendors[i]
		if len(body) >= v.min && (v.max == 0 || len(body) <= v.max) && string(begin[:len(v.prefix)]) == v.prefix {
			return Vendor{ID: v.id, Name: v.name, Suffix: body[len(v.prefix)/2:]}, true
		}
	}
	return Vendor{}, false
}

// Word returns a four-octet suffix as a number: the version of VendorMSNT5, the capabilities of VendorFragmentation.
func (v Vendor) Word() (uint32, bool) {
	if len(v.Suffix) != 4 {
		return 0, false
	}
	return uint32(v.Suffix[0])<<24 | uint32(v.Suffix[1])<<16 | uint32(v.Suffix[2])<<8 | uint32(v.Suffix[3]), true
}

func (id VendorID) row() *vendor {
	if id == VendorUnknown || int(id) > len(vendors) {
		return nil
	}
	return &vendors[id-1]
}

func (id VendorID) String() string {
	if v := id.row(); v != nil {
		return v.name
	}
	return "unknown vendor id"
}

// Payload makes the payload that announces a vendor id.
func (id VendorID) Payload() Payload {
	p := Payload{Type: PayloadVendor}
	if v := id.row(); v != nil {
		p.Body = fromHex(v.prefix + v.tail)
	}
	return p
}

// NATT returns the dialect of NAT traversal that a vendor id stands for; false if it stands for none we can speak.
func (id VendorID) NATT() (NATT, bool) {
	switch {
	case id == VendorRFC3947:
		return NATTRFC3947, true
	case id >= VendorNATTDraft00 && id <= VendorNATTDraft03:
		return NATTDraft03, true
	case id >= VendorNATTDraft04 && id <= VendorNATTDraft08:
		return NATTDraft08, true
	}
	return NATT{}, false
}
