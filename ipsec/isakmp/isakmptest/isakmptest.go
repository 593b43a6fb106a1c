// Package isakmptest holds what known clients send first in IKEv1: the first message of main mode and the SA payload of
// quick mode. Tests of the wire format and of the key exchange share it.
//
// StrongSwanMain1 was captured from strongSwan 5.9.8 with the proposal of NetworkManager-l2tp. The others are put
// together from what these clients are known to offer, in their order and their form of attributes; cookies and SPIs
// are arbitrary. The length of WindowsMain1 is the 408 octets of a Windows 10 client's datagram. WindowsQuickSA spreads
// its transforms over proposals, the others keep to one proposal, so that both shapes are there.
package isakmptest

import (
	"encoding/hex"
	"strings"
)

// Client is one client's messages. Every call of a method returns a fresh copy.
type Client struct {
	Name           string
	main1, quickSA string
	// What its proposals are, for tests to compare with: transforms in main mode and, over all proposals, in quick mode.
	Transforms, QuickTransforms int
	Vendors                     int    // vendor id payloads in main mode
	QuickGroup                  uint16 // group of PFS that quick mode asks for, 0 for none
}

// The clients.
var (
	Windows    = Client{"Windows 10", windowsMain1, windowsQuickSA, 5, 5, 8, 0}
	Apple      = Client{"Apple", appleMain1, appleQuickSA, 14, 9, 11, 0}
	Android    = Client{"Android 7", androidMain1, androidQuickSA, 13, 12, 6, 0}
	StrongSwan = Client{"NetworkManager-l2tp", strongSwanMain1, strongSwanQuickSA, 11, 3, 5, 0}
	RouterOS   = Client{"RouterOS", routerOSMain1, routerOSQuickSA, 4, 3, 11, 2}
	LegacyCPE  = Client{"3DES-only router", legacyCPEMain1, legacyCPEQuickSA, 2, 2, 2, 0}
)

// Clients returns all of them.
func Clients() []Client {
	return []Client{Windows, Apple, Android, StrongSwan, RouterOS, LegacyCPE}
}

// Main1 returns the client's first datagram, without a non-ESP marker.
func (c Client) Main1() []byte { return octets(c.main1) }

// QuickSA returns the body of the SA payload in the client's first quick mode message, in the given encapsulation mode
// (RFC 3947 section 5.1: 2 without NAT, 4 behind one; 61444 for the drafts). There is one SPI in all its proposals.
func (c Client) QuickSA(encap uint16) []byte {
	b := octets(c.quickSA)
	transport := []byte{0x80, 4, 0, 2}
	for i := 0; i+4 <= len(b); i += 4 { // attributes, transforms and proposals are all multiples of four octets
		if string(b[i:i+4]) == string(transport) {
			b[i+2], b[i+3] = byte(encap>>8), byte(encap)
		}
	}
	return b
}

// First messages of main mode.
func WindowsMain1() []byte    { return Windows.Main1() }
func AppleMain1() []byte      { return Apple.Main1() }
func AndroidMain1() []byte    { return Android.Main1() }
func StrongSwanMain1() []byte { return StrongSwan.Main1() }
func RouterOSMain1() []byte   { return RouterOS.Main1() }
func LegacyCPEMain1() []byte  { return LegacyCPE.Main1() }

// Bodies of SA payloads in quick mode, transport mode without NAT.
func WindowsQuickSA() []byte    { return Windows.QuickSA(2) }
func AppleQuickSA() []byte      { return Apple.QuickSA(2) }
func AndroidQuickSA() []byte    { return Android.QuickSA(2) }
func StrongSwanQuickSA() []byte { return StrongSwan.QuickSA(2) }
func RouterOSQuickSA() []byte   { return RouterOS.QuickSA(2) }
func LegacyCPEQuickSA() []byte  { return LegacyCPE.QuickSA(2) }

// octets reads hexadecimal with white space in it.
func octets(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic("isakmptest: " + err.Error())
	}
	return b
}
