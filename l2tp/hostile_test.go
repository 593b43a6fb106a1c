package l2tp

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// What has brought down or opened other L2TP daemons, tried on this one. Elsewhere: lengths of headers and AVPs, vendors'
// AVPs with the numbers of the IETF's, and hidden AVPs whose deciphered length lies (codec_test.go); floods and windows
// (limits_test.go); cleartext beside IPsec (engine_test.go).

// TestHostileText (CVE-2002-0873, and buffers of 254 octets for numbers of 1017): the longest texts that an AVP can carry,
// and octets that speak to terminals, wherever a text may stand. What is kept of them is bounded, the log shows none of
// the octets, and the call comes up or is refused in good form.
func TestHostileText(t *testing.T) {
	for _, text := range []string{strings.Repeat("9", 1017), strings.Repeat("\xff\x00", 508), "%n%n%s\x1b[2J", strings.Repeat("A", 255), strings.Repeat("A", 256)} {
		h := newManual(t, DefaultConfig())
		h.put(build(kind(SCCRQ), attr(avpMandatory, 0, 2, "\x01\x00"), attr(avpMandatory, 0, 3, "\x00\x00\x00\x03"),
			attr(avpMandatory, 0, 7, text), attr(0, 0, 8, text), attr(avpMandatory, 0, 9, "\x00\x07")))
		rp := h.expect("SCCRP")
		h.tid = TunnelID(rp.Uint(AVPAssignedTunnelID))
		h.put(build(kind(SCCCN)))
		icrq := [][]byte{kind(ICRQ), attr(avpMandatory, 0, 14, "\x00\x09"), attr(avpMandatory, 0, 15, "\x00\x00\x00\x01")}
		for _, number := range []uint16{21, 22, 23} { // called, calling, sub-address
			icrq = append(icrq, attr(avpMandatory, 0, number, text))
		}
		h.put(build(icrq...))
		id := h.expect("ICRP").Uint(AVPAssignedSessionID)
		h.put(h.toSession(build(kind(ICCN), attr(avpMandatory, 0, 24, "\x00\x00\x00\x01"), attr(avpMandatory, 0, 19, "\x00\x00\x00\x01"),
			attr(0, 0, 29, "\x00\x02"), attr(0, 0, 30, text), attr(0, 0, 31, text), attr(0, 0, 33, text), attr(0, 0, 26, text)), id))
		if len(h.n.up) != 1 {
			t.Errorf("%.10q: the call is not up", text)
		}
		for _, info := range h.n.up {
			if len(info.Calling) > 1017 || len(info.Called) > 1017 {
				t.Errorf("%.10q: %d, %d octets are kept", text, len(info.Calling), len(info.Called))
			}
		}
	}
}

// TestHostileLengths (CVE-2020-15173, CVE-2004-0649): every length of every AVP of every message of a call, made a lie.
// The call comes up all the same when its own messages follow.
func TestHostileLengths(t *testing.T) {
	for _, golden := range goldens {
		b := unhex(golden.hex)
		h := newManual(t, DefaultConfig())
		for at := controlHeaderLen; at+6 <= len(b); {
			n := int(binary.BigEndian.Uint16(b[at:]) & 0x3ff)
			for _, lie := range []int{0, 1, 5, 6, 7, n - 1, n + 1, 0x3ff, len(b) - at, len(b) - at + 1} {
				c := append([]byte(nil), b...)
				binary.BigEndian.PutUint16(c[at:], binary.BigEndian.Uint16(b[at:])&^0x3ff|uint16(lie)&0x3ff)
				h.raw(c)
				h.got = nil
			}
			if n < 6 {
				break
			}
			at += n
		}
		h.wait(5 * time.Minute) // tunnels that a lie has begun die by themselves
		if n := len(h.n.tunnels); n != 0 {
			t.Errorf("%s: %d tunnels are left", golden.name, n)
		}
	}
	h := newManual(t, DefaultConfig())
	for i := range 2000 { // a message of nothing but AVPs
		h.raw(build(kind(SCCRQ), []byte(strings.Repeat("\x00\x06\x00\x00\x00\x63", i%200))))
	}
	h.got = nil
	h.wait(5 * time.Minute)
	if n := len(h.n.tunnels); n != 0 {
		t.Errorf("%d tunnels are left", n)
	}
}

// TestHostileOrder: every message where it does not belong, to tunnels and sessions that exist and that do not, leaves the
// call that is up as it is, or ends it by the rules.
func TestHostileOrder(t *testing.T) {
	tid, sid := attr(avpMandatory, 0, 9, "\x00\x07"), attr(avpMandatory, 0, 14, "\x00\x09")
	for typ := range 32 {
		for _, session := range []uint32{0, 1, 0xffff} {
			h := newManual(t, DefaultConfig())
			h.open("xl2tpd SCCRQ")
			own := h.connect(9)
			if session == 1 {
				session = own
			}
			h.put(h.toSession(build(kind(MessageType(typ)), tid, sid, attr(avpMandatory, 0, 1, "\x00\x01\x00\x00")), session))
			h.put(build(kind(HELLO)))
			h.got = nil
			h.wait(10 * time.Minute)
			if n := len(h.n.tunnels); n != 0 { // the peer is silent: everything is given up in the end
				t.Errorf("message %d to session %d: %d tunnels are left", typ, session, n)
			}
			if len(h.n.plane.sessions)+len(h.n.plane.tunnels) != 0 {
				t.Errorf("message %d to session %d: the data path is left open", typ, session)
			}
		}
	}
}
