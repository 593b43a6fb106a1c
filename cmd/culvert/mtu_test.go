package main

import (
	"testing"

	"culvert/ipsec"
)

func TestInnerMTU(t *testing.T) {
	sha1 := ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA1, ICVBits: 96}
	sha256 := ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA256, ICVBits: 128}
	gcm := ipsec.Suite{Cipher: ipsec.AESGCM, KeyBits: 256, ICVBits: 128}
	for _, x := range []struct {
		name             string
		suite            *ipsec.Suite
		encap, ipv6, seq bool
		want             int
	}{
		{"plain L2TP", nil, false, false, false, 1462},
		{"plain L2TP over IPv6", nil, false, true, false, 1442},
		{"plain L2TP, numbered", nil, false, false, true, 1458},
		{"ESP in UDP, sha1", &sha1, true, false, false, 1404},
		{"ESP in UDP, sha256", &sha256, true, false, false, 1404},
		{"ESP in UDP, gcm", &gcm, true, false, false, 1420},
		{"ESP, sha1", &sha1, false, false, false, 1420},
		{"ESP over IPv6, sha256", &sha256, false, true, false, 1388},
	} {
		got := innerMTU(x.suite, x.encap, x.ipv6, x.seq)
		if got != x.want {
			t.Errorf("%s: %d, want %d", x.name, got, x.want)
		}
		if x.suite == nil {
			continue
		}
		outside := func(inner int) int {
			payload := inner + udpHeader + pppHeader + l2tpHeader
			if x.seq {
				payload += l2tpSequenced - l2tpHeader
			}
			n := payload + x.suite.Overhead(payload) + ipv4Header
			if x.ipv6 {
				n += ipv6Header - ipv4Header
			}
			if x.encap {
				n += udpHeader
			}
			return n
		}
		if outside(got) > outerMTU || outside(got+1) <= outerMTU {
			t.Errorf("%s: %d octets inside make %d outside, one more %d", x.name, got, outside(got), outside(got+1))
		}
	}
}
