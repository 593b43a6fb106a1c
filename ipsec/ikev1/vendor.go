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

var windowsNames = map[uint32]string{
	isakmp.MSWindows2000: "Windows 2000", isakmp.MSWindowsXP: "Windows XP", isakmp.MSWindows2003: "Windows Server 2003",
	isakmp.MSVista: "Windows Vista", isakmp.MSWindows2008: "Windows Server 2008", isakmp.MSWindows7: "Windows 7",
	isakmp.MSWindows2008R2: "Windows Server 2008 R2", isakmp.MSWindows8: "Windows 8/10/11",
}

// software guesses what the client is; empty where nothing tells.
func (v *vendors) software() string {
	switch {
	case v.culvert:
		return "Culvert"
	case v.microsoft:
		if name, ok := windowsNames[v.windows]; ok {
			return name
		}
		return "Windows"
	case v.apple:
		return "macOS/iOS"
	case v.strongSwan:
		return "strongSwan"
	case v.libreswan:
		return "libreswan"
	case v.android():
		return "Android"
	case v.racoon:
		return "racoon"
	case v.natts >= 9 && v.dpd && !v.fragmentation:
		return "RouterOS" // every dialect there was
	case v.xauth && v.dpd && v.fragmentation:
		return "strongSwan" // charon's own set, unless told to send its name
	case v.cisco:
		return "Cisco"
	}
	return ""
}

// android recognises its racoon: fragmentation with a capability word, old drafts, and none of the marks of others.
func (v *vendors) android() bool {
	return v.draft00 && v.fragWord && !v.racoon && !v.xauth
}

// shortSHA256 says that the peer may cut HMAC-SHA-256 in ESP to 96 bits, as Android's kernels did up to version 7.
func (v *vendors) shortSHA256() bool { return v.android() }
