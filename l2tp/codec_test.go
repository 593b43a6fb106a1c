package l2tp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestGoldens(t *testing.T) {
	want := map[string]string{
		"Windows 10 SCCRQ":                    "SCCRQ DESKTOP-ABCDEFG/Microsoft tid 1 rws 8",
		"Apple SCCRQ":                         "SCCRQ iphone/ tid 20 rws 4",
		"Android SCCRQ":                       "SCCRQ anonymous/ tid 23130 rws 1",
		"Android SCCRQ with challenge":        "SCCRQ anonymous/ tid 23131 rws 1 challenge 32",
		"xl2tpd SCCRQ":                        "SCCRQ lac/xelerance.com tid 24664 rws 4",
		"RouterOS SCCRQ":                      "SCCRQ MikroTik/MikroTik tid 7 rws 4",
		"accel-ppp SCCRQ":                     "SCCRQ accel-ppp/accel-ppp tid 4660 rws 16 challenge 16",
		"SoftEther SCCRP":                     "SCCRP vpn/L2TP tid 9 rws 16",
		"Windows ICRQ":                        "ICRQ sid 1",
		"Windows ICCN":                        "ICCN speed 1000000000",
		"Apple ICCN":                          "ICCN speed 1000000",
		"BRAS ICRQ with vendor AVPs":          "ICRQ sid 77 calling 0301234 called 110",
		"Cisco ICCN without speeds":           "ICCN proxy user@isp 010405d4050601020304",
		"Apple StopCCN, little-endian result": "StopCCN tid 20 result 1 0 ",
		"RouterOS CDN, result without error":  "CDN sid 77 result 3 0 ",
		"xl2tpd StopCCN":                      "StopCCN tid 24664 result 1 0 Goodbye!",
		"HELLO":                               "HELLO",
		"ZLB":                                 "ZLB",
	}
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			b := unhex(g.hex)
			var m Message
			if err := m.Parse(b, ""); err != nil {
				t.Fatal(err)
			}
			if m.Fault != nil {
				t.Fatalf("fault: %v", m.Fault)
			}
			got := m.Type.String()
			add := func(format string, args ...any) { got += " " + fmt.Sprintf(format, args...) }
			if m.Has(AVPHostName) {
				add("%s/%s", m.Text(AVPHostName), m.Text(AVPVendorName))
			}
			if m.Has(AVPAssignedTunnelID) {
				add("tid %d", m.Uint(AVPAssignedTunnelID))
			}
			if m.Has(AVPAssignedSessionID) {
				add("sid %d", m.Uint(AVPAssignedSessionID))
			}
			if m.Has(AVPReceiveWindow) {
				add("rws %d", m.Uint(AVPReceiveWindow))
			}
			if m.Has(AVPChallenge) {
				add("challenge %d", len(m.Bytes(AVPChallenge)))
			}
			if m.Has(AVPTxSpeed) {
				add("speed %d", m.Uint(AVPTxSpeed))
			}
			if m.Has(AVPCallingNumber) {
				add("calling %s called %s", m.Text(AVPCallingNumber), m.Text(AVPCalledNumber))
			}
			if m.Has(AVPProxyAuthName) {
				add("proxy %s %x", m.Text(AVPProxyAuthName), m.Bytes(AVPInitialReceivedLCP))
			}
			if m.Has(AVPResultCode) {
				r, c, text := parseResult(m.Bytes(AVPResultCode))
				add("result %d %d %s", r, c, text)
			}
			if got != want[g.name] {
				t.Errorf("\n got %q\nwant %q", got, want[g.name])
			}
			roundTrip(t, &m)
			if s := m.String(); !strings.HasPrefix(s, m.Type.String()) || strings.Contains(s, "7077") {
				t.Errorf("described as %s", s)
			}
			// Every truncation, as it stands and with the length field made to fit, is refused or at worst a shorter message.
			for n := range b {
				var cut Message
				if err := cut.Parse(b[:n], ""); err == nil {
					t.Errorf("%d of %d octets accepted", n, len(b))
				}
				if n >= controlHeaderLen {
					fit := bytes.Clone(b[:n])
					setLength(fit)
					_ = cut.Parse(fit, "")
				}
			}
			if err := m.Parse(append(bytes.Clone(b), 0, 0, 0), ""); err != nil {
				t.Errorf("padding behind the message: %v", err)
			}
		})
	}
}

// roundTrip checks that what was parsed survives writing and parsing.
func roundTrip(t testing.TB, m *Message) {
	t.Helper()
	for _, secret := range []Secret{"", "hush"} {
		b := m.Append(nil, secret, []byte("0123456789abcdef"))
		var again Message
		if err := again.Parse(b, secret); err != nil {
			t.Fatalf("own message %x: %v", b, err)
		}
		if again.Fault != nil {
			t.Fatalf("own message %x: %v", b, again.Fault)
		}
		if again.Type != m.Type || again.present != m.present || again.Tunnel != m.Tunnel || again.Session != m.Session ||
			again.Ns != m.Ns || again.Nr != m.Nr {
			t.Fatalf("%+v became %+v", m.Header, again.Header)
		}
		for a := AVPType(0); a < avpCount; a++ {
			if m.Has(a) && !bytes.Equal(m.values[a], again.values[a]) {
				t.Fatalf("%s: %x became %x", a, m.values[a], again.values[a])
			}
		}
	}
}

func TestHeader(t *testing.T) {
	for _, tt := range []struct {
		hex, rest string
		err       error
	}{
		{"c802 000c 0001 0002 0003 0004", "", nil},
		{"8802 0001 0002 0003 0004", "", nil},                   // ZLB without length
		{"8802 0001 0002 0003 0004 8008", "", ErrFlags},         // but nothing else without one
		{"c002 0008 0001 0002", "", ErrFlags},                   // control without sequence
		{"ca02 000e 0001 0002 0003 0004 0000", "", ErrFlags},    // control with offset
		{"c803 000c 0001 0002 0003 0004", "", ErrVersion},       // L2TPv3
		{"c801 000c 0001 0002 0003 0004", "", ErrVersion},       // L2F
		{"c802 000d 0001 0002 0003 0004", "", ErrLength},        // longer than the datagram
		{"c802 000b 0001 0002 0003 0004", "", ErrLength},        // shorter than the header
		{"0002 0001 0002 ff03 c021", "ff03c021", nil},           // data
		{"4002 000c 0001 0002 ff03 c021 0000", "ff03c021", nil}, // data with length, padded
		{"0802 0001 0002 0003 0004 ff03", "ff03", nil},          // data with sequence
		{"0202 0001 0002 0002 eeee ff03", "ff03", nil},          // data with offset
		{"4b02 0014 0001 0002 0003 0004 0002 eeee ff03", "", ErrLength},
		{"4b02 0012 0001 0002 0003 0004 0002 eeee ff03", "ff03", nil}, // everything, with priority
		{"0202 0001 0002 ffff eeee ff03", "", ErrLength},
		{"0002 0001 00", "", ErrShort},
		{"0202 0001 0002", "", ErrLength},
		{"0802 0001 0002 0003 00", "", ErrLength},
	} {
		b := unhex(tt.hex)
		_, rest, err := ParseHeader(b)
		if !errors.Is(err, tt.err) || err == nil && fmt.Sprintf("%x", rest) != tt.rest {
			t.Errorf("%s: %x %v", tt.hex, rest, err)
		}
	}
}

// build makes a control message of raw AVPs.
func build(avps ...[]byte) []byte {
	b := appendControl(nil, 0x1111, 0, 0, 0)
	for _, a := range avps {
		b = append(b, a...)
	}
	setLength(b)
	return b
}

func attr(flags uint16, vendor, kind uint16, value string) []byte {
	b := binary.BigEndian.AppendUint16(nil, flags|uint16(6+len(value)))
	b = binary.BigEndian.AppendUint16(b, vendor)
	b = binary.BigEndian.AppendUint16(b, kind)
	return append(b, value...)
}

func kind(t MessageType) []byte { return attr(avpMandatory, 0, 0, string([]byte{0, byte(t)})) }

func TestStructure(t *testing.T) {
	tid := attr(avpMandatory, 0, 9, "\x00\x07")
	version := attr(avpMandatory, 0, 2, "\x01\x00")
	short := attr(avpMandatory, 0, 9, "\x00\x07")
	short[1] = 5
	long := attr(avpMandatory, 0, 9, "\x00\x07")
	long[1] = 9
	many := [][]byte{kind(HELLO)}
	for range maxAVPs {
		many = append(many, attr(0, 0, 8, ""))
	}
	for _, tt := range []struct {
		name string
		msg  []byte
		err  error
	}{
		{"no type", build(tid, kind(SCCRQ)), ErrNoType},
		{"type of vendor 9", build(attr(avpMandatory, 9, 0, "\x00\x01")), ErrNoType},
		{"type of one octet", build(attr(avpMandatory, 0, 0, "\x01")), ErrNoType},
		{"hidden type", build(attr(avpMandatory|avpHidden, 0, 0, "\x00\x01")), ErrNoType},
		{"type zero", build(kind(0)), ErrNoType},
		{"length 5", build(kind(SCCRQ), version, short), ErrAVPLength},
		{"length beyond", build(kind(SCCRQ), version, long), ErrAVPLength},
		{"length zero", build(kind(SCCRQ), version, make([]byte, 6)), ErrAVPLength},
		{"header of 5 octets", build(kind(SCCRQ), version, make([]byte, 5)), ErrAVPLength},
		{"many", build(many...), ErrTooMany},
		{"fine", build(kind(SCCRQ), version, tid), nil},
	} {
		var m Message
		if err := m.Parse(tt.msg, ""); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestFaults(t *testing.T) {
	tid := attr(avpMandatory, 0, 9, "\x00\x07")
	version := attr(avpMandatory, 0, 2, "\x01\x00")
	for _, tt := range []struct {
		name  string
		extra []byte
		code  int // -1: none
	}{
		{"unknown optional", attr(0, 0, 99, "x"), -1},
		{"unknown mandatory", attr(avpMandatory, 0, 99, "x"), 8},
		{"L2TPv3's", attr(avpMandatory, 0, 61, "\x00\x00\x00\x01"), 8},
		{"named but not obeyed, optional", attr(0, 0, 47, "x"), -1},
		{"named but not obeyed, mandatory", attr(avpMandatory, 0, 47, "x"), 8},
		{"vendor optional with the number of Protocol Version", attr(0, 3561, 2, "port"), -1},
		{"vendor mandatory", attr(avpMandatory, 9, 2, "port"), 8},
		{"reserved bit, optional", attr(0x0400, 0, 8, "x"), -1},
		{"reserved bit, mandatory", attr(avpMandatory|0x2000, 0, 10, "\x00\x04"), 8},
		{"wrong length, mandatory", attr(avpMandatory, 0, 10, "\x04"), 2},
		{"wrong length, optional", attr(0, 0, 6, "\x04"), -1},
		{"empty host name", attr(avpMandatory, 0, 7, ""), 2},
		{"known elsewhere", attr(avpMandatory, 0, 24, "\x00\x00\x00\x01"), -1},
		{"hidden without a secret", attr(avpMandatory|avpHidden, 0, 10, "0123456789"), 3},
		{"second of a kind", attr(avpMandatory, 0, 9, "\x00\x08"), -1},
		{"second of wrong length", attr(avpMandatory, 0, 9, ""), -1},
		{"empty random vector", attr(avpMandatory, 0, 36, ""), -1},
	} {
		var m Message
		if err := m.Parse(build(kind(SCCRQ), version, tid, tt.extra), ""); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := faultCode(&m); got != tt.code {
			t.Errorf("%s: fault %d (%v), want %d", tt.name, got, m.Fault, tt.code)
		}
		if m.Uint(AVPAssignedTunnelID) != 7 {
			t.Errorf("%s: tunnel id %d", tt.name, m.Uint(AVPAssignedTunnelID))
		}
	}
	for name, msg := range map[string][]byte{
		"no tunnel id":            build(kind(SCCRQ), version),
		"tunnel id zero":          build(kind(SCCRQ), version, attr(avpMandatory, 0, 9, "\x00\x00")),
		"no version":              build(kind(SCCRQ), tid),
		"session id zero":         build(kind(ICRQ), attr(avpMandatory, 0, 14, "\x00\x00")),
		"unknown message":         build(attr(avpMandatory, 0, 0, "\x00\x63")),
		"explicit ack (RFC 3931)": build(attr(avpMandatory, 0, 0, "\x00\x14")),
	} {
		var m Message
		if err := m.Parse(msg, ""); err != nil || m.Fault == nil {
			t.Errorf("%s: %v, fault %v", name, err, m.Fault)
		}
	}
	var m Message
	if err := m.Parse(build(attr(0, 0, 0, "\x00\x63"), tid), ""); err != nil || m.Fault != nil {
		t.Errorf("unknown optional message: %v %v", err, m.Fault)
	}
}

func faultCode(m *Message) int {
	if m.Fault == nil {
		return -1
	}
	return int(m.Fault.Code)
}

// TestBits checks what accel-ppp checks: M and H bits of everything we can send, and RFC 2661 section 4.4's lengths.
func TestBits(t *testing.T) {
	optional := map[AVPType]bool{5: true, 6: true, 8: true, 25: true, 26: true, 27: true, 28: true, 29: true, 30: true,
		31: true, 32: true, 33: true, 37: true, 38: true, 46: true}
	visible := map[AVPType]bool{0: true, 1: true, 2: true, 5: true, 7: true, 10: true, 12: true, 36: true, 39: true}
	for a := range AVPType(avpCount) {
		if !avps[a].known {
			if avps[a].name == "" && a != 20 {
				t.Errorf("%d has no name", a)
			}
			continue
		}
		if avps[a].mandatory == optional[a] {
			t.Errorf("%s: mandatory %v", a, avps[a].mandatory)
		}
		if avps[a].hideable == visible[a] {
			t.Errorf("%s: hideable %v", a, avps[a].hideable)
		}
		if avps[a].kind == kindUint && avps[a].min != avps[a].max {
			t.Errorf("%s: a number of %d to %d octets", a, avps[a].min, avps[a].max)
		}
	}
	for mt, info := range messages {
		for i, f := range info.fields {
			if !avps[f.avp].known {
				t.Errorf("%s has %s, which nobody knows", MessageType(mt), f.avp)
			}
			for _, g := range info.fields[:i] {
				if f.avp == g.avp {
					t.Errorf("%s has %s twice", MessageType(mt), f.avp)
				}
			}
		}
	}
}

func TestHidden(t *testing.T) {
	vector := []byte("random vector!!!")
	// Computed with another program from RFC 2661 section 4.3.
	want := unhex("4e0812ab146f565e5ec1a1c9f896bdf317ecf6daa203905cc46617048d36c00c")
	if got := appendHidden(nil, AVPCallingNumber, "secret", vector, []byte("+49 30 1234567890 ext 42")); !bytes.Equal(got, want) {
		t.Errorf("hidden\n got %x\nwant %x", got, want)
	}
	for n := range maxHidden + 1 {
		if n > 70 && n < maxHidden-20 {
			continue
		}
		value := bytes.Repeat([]byte{0xa5}, n)
		hidden := appendHidden(nil, AVPCallingNumber, "secret", vector, value)
		if len(hidden) != hiddenLen(n) || len(hidden) < n+2 || len(hidden) > avpMaxValue {
			t.Fatalf("%d octets hide in %d", n, len(hidden))
		}
		before := bytes.Clone(hidden)
		got, _, ok := revealHidden(nil, AVPCallingNumber, "secret", vector, hidden)
		if !ok || !bytes.Equal(got, value) {
			t.Fatalf("%d octets: %v %x", n, ok, got)
		}
		if !bytes.Equal(before, hidden) {
			t.Fatal("the datagram was changed")
		}
	}
	for n := range 2 {
		if _, _, ok := revealHidden(nil, 22, "s", vector, make([]byte, n)); ok {
			t.Errorf("%d octets opened", n)
		}
	}
	// A deciphered length beyond the AVP is a mistake, not a read beyond it.
	hidden := appendHidden(nil, AVPCallingNumber, "secret", vector, []byte("12345678"))
	hidden[0] ^= 0xff
	if _, _, ok := revealHidden(nil, AVPCallingNumber, "secret", vector, hidden); ok {
		t.Error("a length of 65288 was believed")
	}
	// Two vectors: each counts for what follows it (RFC 2661 section 4.3).
	one, two := "first vector", "second vector"
	h1 := appendHidden(nil, AVPCallingNumber, "s", []byte(one), []byte("111"))
	h2 := appendHidden(nil, AVPCalledNumber, "s", []byte(two), []byte("222"))
	var m Message
	err := m.Parse(build(kind(ICRQ), attr(avpMandatory, 0, 14, "\x00\x01"),
		attr(avpMandatory, 0, 36, one), attr(avpMandatory|avpHidden, 0, 22, string(h1)),
		attr(avpMandatory, 0, 36, two), attr(avpMandatory|avpHidden, 0, 21, string(h2))), "s")
	if err != nil || m.Fault != nil || m.Text(AVPCallingNumber) != "111" || m.Text(AVPCalledNumber) != "222" {
		t.Errorf("%v %v %q %q", err, m.Fault, m.Text(AVPCallingNumber), m.Text(AVPCalledNumber))
	}
	if err := m.Parse(build(kind(ICRQ), attr(avpMandatory, 0, 14, "\x00\x01"),
		attr(avpMandatory|avpHidden, 0, 22, string(h1))), "s"); err != nil || m.Fault == nil {
		t.Error("hidden without a vector")
	}
	if err := m.Parse(build(kind(SCCRQ), attr(avpMandatory, 0, 36, one),
		attr(avpMandatory|avpHidden, 0, 7, string(h1))), "s"); err != nil || m.Fault == nil {
		t.Error("a host name cannot be hidden")
	}
}

// The answer of RFC 1994's own construction: MD5(02 "secret" 00..0f).
func TestChallenge(t *testing.T) {
	challenge := unhex("000102030405060708090a0b0c0d0e0f")
	r := challengeResponse(SCCRP, "secret", challenge)
	if got := fmt.Sprintf("%x", r); got != "dd4186e2196f00124a9d588f02701259" {
		t.Errorf("response %s", got)
	}
	if !responseValid(SCCRP, "secret", challenge, r[:]) || responseValid(SCCCN, "secret", challenge, r[:]) ||
		responseValid(SCCRP, "Secret", challenge, r[:]) || responseValid(SCCRP, "secret", challenge, nil) ||
		responseValid(SCCRP, "secret", challenge[1:], r[:]) {
		t.Error("comparison")
	}
}

func TestResult(t *testing.T) {
	for _, tt := range []struct {
		hex          string
		result, code uint16
		text         string
	}{
		{"", 0, 0, ""},
		{"01", 0, 0, ""},
		{"0003", 3, 0, ""},
		{"000300", 3, 0, ""},
		{"0100", 1, 0, ""},
		{"0100 0000", 1, 0, ""},
		{"0200 0600", 2, 6, ""},
		{"0002 0006 6869", 2, 6, "hi"},
		{"0002 0006 681b5b32", 2, 6, "h?[2"},
		{"0005 0100", 5, 0x100, ""},
		{"ff00 0000", 0xff00, 0, ""},
	} {
		r, c, text := parseResult(unhex(tt.hex))
		if r != tt.result || c != tt.code || text != tt.text {
			t.Errorf("%s: %d %d %q", tt.hex, r, c, text)
		}
	}
	for r := range reasons {
		for _, mt := range []MessageType{StopCCN, CDN} {
			if result, _ := (Cause{Reason: Reason(r)}).codes(mt); result == 0 {
				t.Errorf("%s has no result for %s", Reason(r), mt)
			}
		}
		if strings.Contains(Reason(r).String(), "reason") || Reason(r).String() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
	if StopName(6) != "requester is being shut down" || CDNName(2) != "general error" || ErrorName(8) != "unknown mandatory AVP" ||
		StopName(99) != "result 99" || CDNName(0) != "result 0" || ErrorName(77) != "error 77" {
		t.Error("names")
	}
}

func FuzzMessage(f *testing.F) {
	for _, g := range goldens {
		f.Add(unhex(g.hex))
	}
	f.Add(unhex("0202 0001 0002 ffff eeee ff03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		for _, secret := range []Secret{"", "hush"} {
			if m.Parse(b, secret) == nil && m.Fault == nil && m.Type.known() {
				roundTrip(t, &m)
			}
		}
	})
}

func FuzzHidden(f *testing.F) {
	f.Add(uint16(22), []byte("vector"), []byte("0123456789012345678901234567890123456789"))
	f.Fuzz(func(t *testing.T, kind uint16, vector, value []byte) {
		if clear, _, ok := revealHidden(nil, AVPType(kind), "s", vector, value); ok && len(clear) > len(value)-2 {
			t.Fatalf("%d octets out of %d", len(clear), len(value))
		}
		if len(value) > maxHidden {
			return
		}
		hidden := appendHidden([]byte("before"), AVPType(kind), "s", vector, value)
		got, _, ok := revealHidden([]byte("scratch"), AVPType(kind), "s", vector, hidden[6:])
		if !ok || !bytes.Equal(got, value) {
			t.Fatalf("%x became %x", value, got)
		}
	})
}
