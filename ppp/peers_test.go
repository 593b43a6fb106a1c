package ppp

import (
	"fmt"
	"testing"
	"time"

	"culvert/ppp/aaa"
)

const (
	// What our side says first with the counting random source, and its challenge.
	ourConfReq   = "c021 01 01 0013 0104 0578 0305 c22381 0506 01020304"
	ourConfAck   = "c021 02 01 0013 0104 0578 0305 c22381 0506 01020304"
	ourChallenge = "c223 01 01 001c 10 05060708090a0b0c0d0e0f1011121314 63756c76657274"
)

// respond answers the challenge of ourChallenge by MS-CHAPv2.
func respond(t *testing.T, id uint8, user, password string) string {
	t.Helper()
	challenge := unhex(t, "05060708090a0b0c0d0e0f1011121314")
	peer := unhex(t, "21402324255e262a28295f2b3a337c7e")
	v, err := aaa.MSCHAP2Response(challenge, peer, user, password)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("c223 02 %02x %04x 31 %x %x", id, 4+1+49+len(user), v, user)
}

func success(t *testing.T, s *station, id uint8, user string) string {
	t.Helper()
	r := s.users.last
	proof, err := aaa.MSCHAP2AuthenticatorResponse(r.Challenge, r.Response, user, "secret")
	if err != nil {
		t.Fatal(err)
	}
	text := proof + " M=Welcome"
	return fmt.Sprintf("c223 03 %02x %04x %x", id, 4+len(text), text)
}

func TestWindowsClient(t *testing.T) {
	s := newStation(t, "server", serverConfig(), nil)
	s.link.Start(s.now)
	s.expect(ourConfReq)
	s.recv("ff03 c021 01 00 0015 01040578 05064f5c2a3b 0702 0802 0d0306") // the callback goes
	s.expect("c021 04 00 0007 0d0306")
	s.recv(ourConfAck)
	s.expect()
	s.recv("ff03 c021 01 01 0012 01040578 05064f5c2a3b 0702 0802")
	s.expect("c021 02 01 0012 01040578 05064f5c2a3b 0702 0802", ourChallenge)
	s.recv("c021 0c 02 0012 4f5c2a3b 4d535241535635 2e3230")            // MSRASV5.20
	s.recv("c021 0c 03 0016 4f5c2a3b 4d535241532d302d 4445534b544f")    // MSRAS-0-DESKTO
	s.recv("c021 0c 04 0018 4f5c2a3b 000102030405060708090a0b0c0d0e0f") // its identity
	s.expect()                                                          // never a Code-Reject
	s.recv(respond(t, 1, `DESKTOP\user1`, "secret"))
	s.expect(success(t, s, 1, "user1"), "8021 01 01 000a 0306 c0a86301")
	if s.users.last.User != `DESKTOP\user1` {
		t.Errorf("user %q", s.users.last.User)
	}
	s.recv("8057 01 05 000e 010a 0123456789abcdef")
	s.expect("c021 08 02 0014 8057 01 05 000e 010a 0123456789abcdef")
	s.recv("80fd 01 06 000a 1206 01000041")
	s.expect("c021 08 03 0010 80fd 01 06 000a 1206 01000041")
	s.recv("8021 01 07 0022 0306 00000000 8106 00000000 8206 00000000 8306 00000000 8406 00000000")
	s.expect("8021 04 07 0010 8206 00000000 8406 00000000")
	s.recv("8021 02 01 000a 0306 c0a86301")
	s.recv("8021 01 08 0016 0306 00000000 8106 00000000 8306 00000000")
	s.expect("8021 03 08 0016 0306 c0a8630a 8106 08080808 8306 01010101")
	s.recv("8021 01 09 0016 0306 c0a8630a 8106 08080808 8306 01010101")
	s.expect("8021 02 09 0016 0306 c0a8630a 8106 08080808 8306 01010101")
	s.had("open", "ipup", "up")
	if s.network.MTU != 1400 || s.network.MRU != 1400 {
		t.Errorf("%+v", s.network)
	}
	// Goodbye, twice: its magic number and a code, no text.
	for range 2 {
		s.recv("c021 05 0a 0010 4f5c2a3b 003ccd74 000002e6")
		s.expect("c021 06 0a 0004")
	}
	s.run(5 * time.Second)
	s.ended(CausePeerTerminated)
	if s.cause.Text != "" {
		t.Errorf("text %q", s.cause.Text)
	}
	s.had("open", "ipup", "up", "ipdown", "down")
}

func TestAppleClient(t *testing.T) {
	s := newStation(t, "server", serverConfig(), nil)
	s.link.Start(s.now)
	s.expect(ourConfReq)
	// No MRU, thus 1500; ACCM 0, magic, both compressions. From here on it compresses, as it may not.
	s.recv("ff03 c021 01 01 0014 0206 00000000 0506 1dd5c2a7 0702 0802")
	s.expect("c021 02 01 0014 0206 00000000 0506 1dd5c2a7 0702 0802")
	s.recv(ourConfAck)
	s.expect(ourChallenge)
	s.recv(respond(t, 1, "user1", "secret"))
	s.expect(success(t, s, 1, "user1"), "8021 01 01 000a 0306 c0a86301")
	s.recv("8021 01 01 0016 0306 00000000 8106 00000000 8306 00000000")
	s.expect("8021 03 01 0016 0306 c0a8630a 8106 08080808 8306 01010101")
	s.recv("8057 01 01 000e 010a aede48fffe001122")
	s.expect("c021 08 02 0014 8057 01 01 000e 010a aede48fffe001122")
	s.recv("8235 01 01 0010 0102030405060708090a0b0c") // ACSP
	s.expect("c021 08 03 0016 8235 01 01 0010 0102030405060708090a0b0c")
	s.recv("8021 02 01 000a 0306 c0a86301")
	s.recv("8021 01 02 0016 0306 c0a8630a 8106 08080808 8306 01010101")
	s.expect("8021 02 02 0016 0306 c0a8630a 8106 08080808 8306 01010101")
	s.had("open", "ipup", "up")
	if s.network.MTU != 1450 {
		t.Errorf("mtu %d", s.network.MTU)
	}
	s.recv("c021 09 00 0008 1dd5c2a7")
	s.expect("c021 0a 00 0008 01020304")
	s.recv("21 45000014") // compressed IP that strayed here: no answer
	s.expect()
}

func TestAndroidClient(t *testing.T) {
	s := newStation(t, "server", serverConfig(), nil)
	s.users.grant.DNS = s.users.grant.DNS[:1]
	s.link.Start(s.now)
	s.expect(ourConfReq)
	s.recv("c021 01 01 0018 01040578 0206 00000000 0506 88776655 0702 0802")
	s.expect("c021 02 01 0018 01040578 0206 00000000 0506 88776655 0702 0802")
	// pppd naks nothing here, but may have been told to use MD5 only: it is not allowed, MS-CHAPv2 is all we have.
	s.recv(ourConfAck)
	s.expect(ourChallenge)
	s.recv(respond(t, 1, "user1", "secret"))
	s.expect(success(t, s, 1, "user1"), "8021 01 01 000a 0306 c0a86301")
	s.recv("8021 01 01 001c 0206 002d0f01 0306 00000000 8106 00000000 8306 00000000")
	s.expect("8021 04 01 0010 0206 002d0f01 8306 00000000") // no VJ, and one name server only
	s.recv("8021 02 01 000a 0306 c0a86301")
	s.recv("8021 01 02 0010 0306 00000000 8106 00000000")
	s.expect("8021 03 02 0010 0306 c0a8630a 8106 08080808")
	s.recv("8021 01 03 0010 0306 c0a8630a 8106 08080808")
	s.expect("8021 02 03 0010 0306 c0a8630a 8106 08080808")
	s.had("open", "ipup", "up")
}

// pppd as a client asks for a fixed address, offers deflate and BSD, and names an endpoint.
func TestPppdClient(t *testing.T) {
	c := serverConfig()
	c.Auth = []aaa.Method{aaa.MSCHAP2, aaa.CHAP, aaa.PAP}
	s := newStation(t, "server", c, nil)
	s.link.Start(s.now)
	s.expect(ourConfReq)
	s.recv("c021 01 01 001d 0206 00000000 0506 88776655 0702 0802 1309 03 aabbccddeeff")
	s.expect("c021 04 01 000d 1309 03 aabbccddeeff")
	s.recv("c021 03 01 0009 0305 c22305") // MD5 rather
	s.expect("c021 01 02 0013 0104 0578 0305 c22305 0506 01020304")
	s.recv("c021 02 02 0013 0104 0578 0305 c22305 0506 01020304")
	s.recv("c021 01 02 0014 0206 00000000 0506 88776655 0702 0802")
	s.expect("c021 02 02 0014 0206 00000000 0506 88776655 0702 0802", ourChallenge)
	v := aaa.CHAPResponse(1, "secret", unhex(t, "05060708090a0b0c0d0e0f1011121314"))
	s.recv(fmt.Sprintf("c223 02 01 001a 10 %x 7573657231", v))
	s.expect("c223 03 01 000b 57656c636f6d65", "8021 01 01 000a 0306 c0a86301")
	s.recv("80fd 01 01 000f 1a047800 1804 7800 1503 2f")
	s.expect("c021 08 03 0015 80fd 01 01 000f 1a047800 1804 7800 1503 2f")
	s.recv("8021 01 01 0010 0206 002d0f01 0306 0a000005")
	s.expect("8021 04 01 000a 0206 002d0f01")
	s.recv("8021 01 02 000a 0306 0a000005")
	s.expect("8021 03 02 000a 0306 c0a8630a")
	s.recv("8021 02 01 000a 0306 c0a86301")
	s.recv("8021 01 03 000a 0306 c0a8630a")
	s.expect("8021 02 03 000a 0306 c0a8630a")
	s.had("open", "ipup", "up")
	s.recv("c021 05 03 0010 55736572207265717565 7374")
	s.expect("c021 06 03 0004")
	s.run(4 * time.Second)
	s.ended(CausePeerTerminated)
	if s.cause.Text != "User request" {
		t.Errorf("text %q", s.cause.Text)
	}
}

func TestRouterOSClient(t *testing.T) {
	s := newStation(t, "server", serverConfig(), nil)
	s.link.Start(s.now)
	s.expect(ourConfReq)
	s.recv("c021 01 01 0012 010405aa 0506 11335577 1104 0640") // MRRU 1600
	s.expect("c021 04 01 0008 1104 0640")
	s.recv("c021 03 01 0008 01040400") // it would rather send 1024
	s.expect("c021 01 02 0013 0104 0400 0305 c22381 0506 01020304")
	s.recv("c021 02 02 0013 0104 0400 0305 c22381 0506 01020304")
	s.recv("c021 01 02 000e 010405aa 0506 11335577")
	s.expect("c021 02 02 000e 010405aa 0506 11335577", ourChallenge)
	s.recv(respond(t, 1, "user1", "secret"))
	s.expect(success(t, s, 1, "user1"), "8021 01 01 000a 0306 c0a86301")
	s.recv("80fd 01 01 000a 1206 01000040")
	s.expect("c021 08 03 0010 80fd 01 01 000a 1206 01000040")
	s.recv("8281 01 01 0004") // MPLSCP
	s.expect("c021 08 04 000a 8281 01 01 0004")
	s.recv("8031 01 01 0004") // BCP
	s.expect("c021 08 05 000a 8031 01 01 0004")
	s.recv("8021 02 01 000a 0306 c0a86301")
	s.recv("8021 01 01 000a 0306 00000000")
	s.expect("8021 03 01 000a 0306 c0a8630a")
	s.recv("8021 01 02 000a 0306 c0a8630a")
	s.expect("8021 02 02 000a 0306 c0a8630a")
	s.had("open", "ipup", "up")
	if s.network.MTU != 1450 || s.network.MRU != 1024 {
		t.Errorf("%+v", s.network)
	}
}

// As a client towards a server like RouterOS or Windows RRAS.
func TestServerPeer(t *testing.T) {
	c := clientConfig()
	s := newStation(t, "client", c, nil)
	s.link.Start(s.now)
	s.expect("c021 01 01 000e 010405aa 0506 01020304")
	s.recv("c021 01 00 0014 01040578 0304 c227 0506 0a0b0c0d 0702") // EAP: we would rather not
	s.expect("c021 03 00 0009 0305 c22381")
	s.recv("c021 02 01 000e 010405aa 0506 01020304")
	s.recv("c021 01 01 0015 01040578 0305 c22381 0506 0a0b0c0d 0702")
	s.expect("c021 02 01 0015 01040578 0305 c22381 0506 0a0b0c0d 0702")
	challenge := "5b5d7c7d7b3f2f3e3c2c602132262628"
	s.recv("c223 01 00 001b 10" + challenge + "526f75746572")
	own := unhex(t, "05060708090a0b0c0d0e0f1011121314")
	v, err := aaa.MSCHAP2Response(unhex(t, challenge), own, "user1", "secret")
	if err != nil {
		t.Fatal(err)
	}
	response := fmt.Sprintf("c223 02 00 003b 31 %x 7573657231", v)
	s.expect(response)
	s.recv("c223 01 00 001b 10" + challenge + "526f75746572") // again: the same answer
	s.expect(response)
	proof, _ := aaa.MSCHAP2AuthenticatorResponse(unhex(t, challenge), v, "user1", "secret")
	s.recv("c223 03 01 0004") // for another response: proves nothing
	s.expect()
	text := proof + " M=hello"
	s.recv(fmt.Sprintf("c223 03 00 %04x %x", 4+len(text), text))
	s.expect("8021 01 01 0016 0306 00000000 8106 00000000 8306 00000000")
	s.recv("8021 01 01 000a 0306 c0a86301")
	s.expect("8021 02 01 000a 0306 c0a86301")
	s.recv("8021 04 01 000a 8306 00000000")
	s.expect("8021 01 02 0010 0306 00000000 8106 00000000")
	s.recv("8021 03 02 0010 0306 c0a8630b 8106 09090909")
	s.expect("8021 01 03 0010 0306 c0a8630b 8106 09090909")
	s.recv("8021 02 03 0010 0306 c0a8630b 8106 09090909")
	s.had("open", "ipup", "up")
	if got := fmt.Sprint(s.network); got != "{192.168.99.11 192.168.99.1 1400 1450 [9.9.9.9]}" {
		t.Errorf("network %v", got)
	}
}
