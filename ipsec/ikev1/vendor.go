package ikev1

import (
	"bytes"

	"culvert/ipsec/isakmp"
)

// vendors is what the peer's vendor ids say about it (RFC 2408 section 3.16).
type vendors struct {
	natt           isakmp.VendorID // the best dialect of NAT traversal it speaks, 0 for none
	dpd            bool
	initialContact bool // Microsoft's form of INITIAL-CONTACT
	strongSwan     bool
	libreswan      bool
	apple          bool
	microsoft      bool
	windows        uint32 // version word of Microsoft's, 0 if it came without
	racoon         bool
	culvert        bool
	cisco          bool
	fragmentation  bool
	fragWord       bool // the fragmentation id has a capability word
	xauth          bool
	natts          int // how many dialects of NAT traversal
	draft00        bool
}

// nattRank orders the dialects that we choose from. Drafts 04 to 08 came and went between the others: whoever knows them
// speaks RFC 3947 too.
var nattRank = map[isakmp.VendorID]int{
	isakmp.VendorNATTDraft02: 1, isakmp.VendorNATTDraft02N: 2, isakmp.VendorNATTDraft03: 3, isakmp.VendorRFC3947: 4,
}

// read adds the vendor ids of one message. It keeps nothing of the payloads.
func (v *vendors) read(payloads []isakmp.Payload) {
	for _, p := range payloads {
		if p.Type != isakmp.PayloadVendor {
			continue
		}
		known, ok := isakmp.IdentifyVendor(p.Body)
		if !ok {
			// libreswan writes "OE" and a printable hash of its version.
			v.libreswan = v.libreswan || len(p.Body) == 12 && bytes.HasPrefix(p.Body, []byte("OE"))
			continue
		}
		if nattRank[known.ID] > nattRank[v.natt] {
			v.natt = known.ID
		}
		if _, ok := known.ID.NATT(); ok {
			v.natts++
		}
		switch known.ID {
		case isakmp.VendorDPD:
			v.dpd = true
		case isakmp.VendorInitialContact:
			v.initialContact = true
		case isakmp.VendorStrongSwan:
			v.strongSwan = true
		case isakmp.VendorAppleNATT:
			v.apple = true
		case isakmp.VendorMSNT5:
			v.microsoft = true
			v.windows, _ = known.Word()
		case isakmp.VendorCulvert:
			v.culvert = true
		case isakmp.VendorRacoon:
			v.racoon = true
		case isakmp.VendorUnity, isakmp.VendorCiscoVPN:
			v.cisco = true
		case isakmp.VendorFragmentation:
			v.fragmentation = true
			_, v.fragWord = known.Word()
		case isakmp.VendorXAUTH:
			v.xauth = true
		case isakmp.VendorNATTDraft00:
			v.draft00 = true
		}
	}
}

// dialect is the NAT traversal to speak with the peer, nil for none.
func (v *vendors) dialect() *isakmp.NATT {
	if d, ok := v.natt.NATT(); ok {
		return &d
	}
	return nil
}

// A fingerprint is one kind of client, told by its vendor ids, and how it differs from what the RFCs have it do. What all of
// them must be allowed is not here but the rule for everybody: they rekey, and we only at limits that they do not see
// (rekey.go), a HELLO may stay unanswered for a minute, identities in quick mode may have any port.
type fingerprint struct {
	name string
	is   func(v *vendors) bool
	// shortSHA256 says that it may cut HMAC-SHA-256 in ESP to 96 bits, as Linux did before it followed RFC 4868: another
	// suite is taken where it offers one.
	shortSHA256 bool
}

// fingerprints are looked through in order.
var fingerprints = []fingerprint{
	{name: "Culvert", is: func(v *vendors) bool { return v.culvert }},
	windows(isakmp.MSWindows2000, "Windows 2000"),
	windows(isakmp.MSWindowsXP, "Windows XP"),
	windows(isakmp.MSWindows2003, "Windows Server 2003"),
	windows(isakmp.MSVista, "Windows Vista"),
	windows(isakmp.MSWindows2008, "Windows Server 2008"),
	windows(isakmp.MSWindows7, "Windows 7"),
	windows(isakmp.MSWindows2008R2, "Windows Server 2008 R2"),
	windows(isakmp.MSWindows8, "Windows 8/10/11"),
	{name: "Windows", is: func(v *vendors) bool { return v.microsoft }},
	{name: "macOS/iOS", is: func(v *vendors) bool { return v.apple }},
	{name: "strongSwan", is: func(v *vendors) bool { return v.strongSwan }},
	{name: "libreswan", is: func(v *vendors) bool { return v.libreswan }},
	// Its racoon does not say so, but announces fragmentation with a capability word and old drafts. Its kernels cut SHA-256
	// up to version 7.
	{name: "Android", is: func(v *vendors) bool { return v.draft00 && v.fragWord && !v.racoon && !v.xauth }, shortSHA256: true},
	{name: "racoon", is: func(v *vendors) bool { return v.racoon }},
	{name: "RouterOS", is: func(v *vendors) bool { return v.natts >= 9 && v.dpd && !v.fragmentation }}, // every dialect there was
	{name: "strongSwan", is: func(v *vendors) bool { return v.xauth && v.dpd && v.fragmentation }},     // unless told to send its name
	{name: "Cisco", is: func(v *vendors) bool { return v.cisco }},
}

func windows(version uint32, name string) fingerprint {
	return fingerprint{name: name, is: func(v *vendors) bool { return v.microsoft && v.windows == version }}
}

// fingerprint is the first that fits, or one without a name.
func (v *vendors) fingerprint() fingerprint {
	for _, f := range fingerprints {
		if f.is(v) {
			return f
		}
	}
	return fingerprint{}
}

// software guesses what the client is; empty where nothing tells.
func (v *vendors) software() string { return v.fingerprint().name }
