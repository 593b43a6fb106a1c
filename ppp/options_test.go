package ppp

import (
	"bytes"
	"fmt"
	"testing"

	"culvert/ppp/aaa"
)

func testLink(cfg Config) *Link {
	return New(cfg, Caller{}, Env{Send: func([]byte) {}, Rand: &counting{}})
}

func TestSplitFrame(t *testing.T) {
	for in, want := range map[string]string{
		"c0210102":     "lcp 0102",
		"ff03c0210102": "lcp 0102",
		"2145":         "ip 45",
		"002145":       "ip 45",
		"ff032145":     "ip 45",
		"80fd":         "ccp ",
		"c0":           "",
		"ff03":         "",
		"":             "",
	} {
		p, rest, err := splitFrame(unhex(t, in))
		got := fmt.Sprintf("%v %x", p, rest)
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("%s: %q %v, want %q", in, got, err, want)
		}
	}
}

// TestLCPRequests: what a peer may ask of LCP and what it hears. A dot is an acknowledgement.
func TestLCPRequests(t *testing.T) {
	for _, tc := range []struct{ name, request, answer string }{
		{"nothing", "", "."},
		{"MRU", "01040578", "."},
		{"MRU 9000", "01042328", "."},
		{"MRU too small", "0104007f", "03 01040080"},
		{"MRU of three octets", "0105000578", "03 010405dc"},
		{"MRU twice", "0104057801040500", "04 01040500"},
		{"ACCM", "0206000a0000", "."},
		{"ACCM short", "0205000a00", "04 0205000a00"},
		{"authenticate yourself", "0305c22381", "04 0305c22381"},
		{"quality", "0408c02500000064", "04 0408c02500000064"},
		{"magic", "0506a1a2a3a4", "."},
		{"magic zero", "050600000000", "03 050601020304"},
		{"magic short", "0504a1a2", "03 050601020304"},
		{"PFC and ACFC", "07020802", "."},
		{"PFC with a value", "070300", "04 070300"},
		{"FCS alternatives", "090304", "04 090304"},
		{"self-describing pad", "0a0308", "04 0a0308"},
		{"callback", "0d0306", "04 0d0306"},
		{"MRRU", "110405dc", "04 110405dc"},
		{"short sequence numbers", "1202", "04 1202"},
		{"endpoint discriminator", "130703c0a80101", "04 130703c0a80101"},
		{"type 0", "0002", "04 0002"},
		{"rejects before naks", "050600000000110405dc", "04 110405dc"},
	} {
		l := testLink(serverConfig())
		v, reply := l.lcpOpts.set().consider(unhex(t, tc.request), false, true, nil)
		got := "."
		if v != ack {
			got = fmt.Sprintf("%02x %x", map[verdict]int{nak: codeConfNak, reject: codeConfRej}[v], reply)
		}
		if got != tc.answer {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.answer)
		}
	}
}

func TestIPCPRequests(t *testing.T) {
	u := newUsers()
	for _, tc := range []struct{ name, request, answer string }{
		{"no address", "", "03 0306c0a8630a"},
		{"address zero", "030600000000", "03 0306c0a8630a"},
		{"another address", "03060a000001", "03 0306c0a8630a"},
		{"the address", "0306c0a8630a", "."},
		{"an address of three octets", "0305c0a863", "03 0306c0a8630a"},
		{"IP-Addresses", "010a0000000000000000", "04 010a0000000000000000"},
		{"VJ", "0206002d0f01", "04 0206002d0f01"},
		{"mobile", "040600000000", "04 040600000000"},
		{"DNS", "0306c0a8630a810600000000", "03 810608080808"},
		{"DNS short", "0306c0a8630a8102", "03 810608080808"},
		{"DNS as given", "0306c0a8630a810608080808830601010101", "."},
		{"NBNS", "0306c0a8630a820600000000", "04 820600000000"},
	} {
		l := testLink(serverConfig())
		l.ipcpOpts.give(u.grant.Local, u.grant.Remote, u.grant.DNS, nil)
		v, reply := l.ipcpOpts.set().consider(unhex(t, tc.request), false, true, nil)
		got := "."
		if v != ack {
			got = fmt.Sprintf("%02x %x", map[verdict]int{nak: codeConfNak, reject: codeConfRej}[v], reply)
		}
		if got != tc.answer {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.answer)
		}
	}
	// A user does not choose its address, and we do not take a server's for our own.
	l := testLink(serverConfig())
	if v, _ := l.ipcpOpts.address.consider(unhex(t, "0a000001")); v != reject {
		t.Error("a server without an address to give took the peer's")
	}
	l = testLink(clientConfig())
	for in, want := range map[string]verdict{"0a000001": ack, "00000000": reject, "e0000001": reject, "7f000001": reject, "ffffffff": reject} {
		if v, _ := l.ipcpOpts.address.consider(unhex(t, in)); v != want {
			t.Errorf("client: %s: %v", in, v)
		}
	}
}

// TestMaxFailure: after five counterproposals the option is refused, and a peer that naks for ever is left.
func TestMaxFailure(t *testing.T) {
	s := newStation(t, "server", serverConfig(), nil)
	s.link.Start(s.now)
	s.sent = nil
	for i := range 5 {
		s.recv(fmt.Sprintf("c021 01 %02x 0008 0104 0001", i))
		s.expect(fmt.Sprintf("c021 03 %02x 0008 0104 0080", i))
	}
	s.recv("c021 01 04 0008 0104 0001")
	s.expect("c021 04 04 0008 0104 0001")

	s = loggedIn(t, serverConfig(), nil)
	for i := range 20 {
		s.recv(fmt.Sprintf("8021 03 %02x 000a 0306 0a000001", i+1))
	}
	s.run(10e9)
	s.ended(CauseNegotiation)
}

func TestAnswersThatAreNone(t *testing.T) {
	s := newStation(t, "server", serverConfig(), nil)
	s.link.Start(s.now)
	s.expect(ourConfReq)
	for _, f := range []string{
		"c021 02 02 0013 0104 0578 0305 c22381 0506 01020304", // identifier
		"c021 02 01 0013 0104 0579 0305 c22381 0506 01020304", // contents
		"c021 02 01 0004",
		"c021 04 01 0004",
		"c021 04 01 0008 0104 0579",
		"c021 04 01 0006 0702",
		"c021 04 01 0009 0104 0578 03",
		"c021 03 01 0007 0304 c2",
	} {
		s.recv(f)
		s.expect()
		if s.link.lcp.state != ReqSent {
			t.Fatalf("%s: %v", f, s.link.lcp.state)
		}
	}
	s.recv("c021 04 01 000e 0104 0578 0506 01020304")
	s.expect("c021 01 02 0009 0305 c22381")
	s.recv("c021 02 02 0009 0305 c22381")
	s.recv("c021 02 02 0009 0305 c22381") // again
	if s.link.lcp.state != AckRcvd || s.link.Snapshot(s.now).MRU != 1500 || s.link.Snapshot(s.now).Magic != 0 {
		t.Errorf("%+v", s.link.Snapshot(s.now))
	}
}

func TestAuthValues(t *testing.T) {
	for _, m := range []aaa.Method{aaa.PAP, aaa.CHAP, aaa.MSCHAP1, aaa.MSCHAP2} {
		v := authValue(m)
		if authMethod(v) != m {
			t.Errorf("%v", m)
		}
		for i := range v {
			if authMethod(v[:i]) != 0 && !(m != aaa.PAP && i == 2 && bytes.Equal(v[:2], authValue(aaa.PAP))) {
				t.Errorf("%x is %v", v[:i], authMethod(v[:i]))
			}
		}
		if authMethod(append(v, 0)) != 0 {
			t.Errorf("%x0 is taken", v)
		}
	}
}

func TestPAPParse(t *testing.T) {
	good := papRequest("user1", "secret")
	for i := range good {
		if _, _, err := parsePAP(good[:i]); err == nil {
			t.Errorf("%x parsed", good[:i])
		}
	}
	u, p, err := parsePAP(append(good, 1, 2)) // padding
	if err != nil || u != "user1" || string(p) != "secret" {
		t.Error(u, p, err)
	}
	long := papRequest(string(make([]byte, 300)), string(make([]byte, 300)))
	if len(long) != 512 {
		t.Error(len(long))
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"user1": "user1", `DOM\user`: `DOM\user`, "jürgen": "jürgen", "a\x00b": `a\x00b`, "\xff": `\xff`, "a\u202eb": `a\xe2\x80\xaeb`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
