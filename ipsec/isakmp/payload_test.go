package isakmp_test

import (
	"bytes"
	"testing"

	"culvert/ipsec/isakmp"
)

func TestPayloads(t *testing.T) {
	want := []isakmp.Payload{
		{Type: isakmp.PayloadHash, Body: []byte("0123456789abcdef")},
		{Type: isakmp.PayloadNonce, Body: []byte{}},
		{Type: 200, Body: []byte{1}}, // private: a receiver passes over it
		{Type: isakmp.PayloadNATOADraft, Body: []byte{2, 3}},
	}
	b := isakmp.AppendPayloads(nil, want)
	if hex := "0a000014" + "30313233343536373839616263646566" + "c8000004" + "83000005" + "01" + "00000006" + "0203"; !bytes.Equal(b, octets(t, hex)) {
		t.Fatalf("AppendPayloads: %x", b)
	}
	for _, pad := range []int{0, 1, 3, 4, 15, 300} {
		msg := append(bytes.Clone(b), make([]byte, pad)...)
		got, used, err := isakmp.ParsePayloads(isakmp.PayloadHash, msg, true)
		if err != nil || used != len(b) || len(got) != len(want) {
			t.Fatalf("pad %d: %d payloads, used %d, %v", pad, len(got), used, err)
		}
		for i, p := range got {
			if p.Type != want[i].Type || !bytes.Equal(p.Body, want[i].Body) {
				t.Errorf("payload %d: %v %x", i, p.Type, p.Body)
			}
			if cap(p.Body) != len(p.Body) {
				t.Errorf("payload %d: an append to its body would write into the next one", i)
			}
		}
		if _, _, err = isakmp.ParsePayloads(isakmp.PayloadHash, msg, false); pad > 0 {
			refused(t, err, isakmp.UnequalPayloadLengths)
		} else if err != nil {
			t.Error(err)
		}
	}
	for n := range b {
		for _, padded := range []bool{true, false} {
			if _, _, err := isakmp.ParsePayloads(isakmp.PayloadHash, b[:n], padded); err == nil {
				t.Errorf("cut to %d octets: no error", n)
			}
		}
	}
}

func TestPayloadsRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		first isakmp.PayloadType
		hex   string
		code  isakmp.NotifyType
	}{
		{"length 0", isakmp.PayloadNonce, "00000000", isakmp.PayloadMalformed},
		{"length 3", isakmp.PayloadNonce, "00000003", isakmp.PayloadMalformed},
		{"length beyond the message", isakmp.PayloadNonce, "00000005", isakmp.PayloadMalformed},
		{"length 65535", isakmp.PayloadNonce, "0000ffff00", isakmp.PayloadMalformed},
		{"reserved octet", isakmp.PayloadNonce, "00010004", isakmp.PayloadMalformed},
		{"chain goes on behind the end", isakmp.PayloadNonce, "0a000004", isakmp.PayloadMalformed},
		{"octets behind an empty chain", isakmp.PayloadNone, "00", isakmp.UnequalPayloadLengths},
		{"proposal in the chain", isakmp.PayloadProposal, "00000004", isakmp.InvalidPayloadType},
		{"transform in the chain", isakmp.PayloadNonce, "0300000400000004", isakmp.InvalidPayloadType},
		{"unassigned type", 22, "00000004", isakmp.InvalidPayloadType},
		{"IKEv2 SA", 33, "00000004", isakmp.InvalidPayloadType},
		{"IKEv2 encrypted fragment", isakmp.PayloadNonce, "3500000400000004", isakmp.InvalidPayloadType},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := isakmp.ParsePayloads(c.first, octets(t, c.hex), false)
			refused(t, err, c.code)
		})
	}
}

func TestPayloadsBounded(t *testing.T) {
	chain := func(n int) []byte {
		ps := make([]isakmp.Payload, n)
		for i := range ps {
			ps[i].Type = isakmp.PayloadVendor
		}
		return isakmp.AppendPayloads(nil, ps)
	}
	if _, _, err := isakmp.ParsePayloads(isakmp.PayloadVendor, chain(isakmp.MaxPayloads), false); err != nil {
		t.Error(err)
	}
	_, _, err := isakmp.ParsePayloads(isakmp.PayloadVendor, chain(isakmp.MaxPayloads+1), false)
	refused(t, err, isakmp.PayloadMalformed)
}

// A message decrypted with the wrong key must not pass for one that decrypted.
func TestPayloadsOfNoise(t *testing.T) {
	passed := 0
	x := uint64(1)
	for range 2000 {
		b := make([]byte, 64)
		for i := range b {
			x = x*6364136223846793005 + 1442695040888963407
			b[i] = byte(x >> 56)
		}
		if _, _, err := isakmp.ParsePayloads(isakmp.PayloadID, b, true); err == nil {
			passed++
		}
	}
	if passed > 2 {
		t.Errorf("%d of 2000 random messages are valid chains", passed)
	}
}
