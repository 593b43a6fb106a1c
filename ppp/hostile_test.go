package ppp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"culvert/ppp/aaa"
)

// What has brought down or opened other PPP daemons, tried on this one. Elsewhere: messages out of their phase, a second
// login, a success to nothing (link_test.go); a server that does not prove itself (pair_test.go); lengths of MS-CHAP's
// values (aaa/mschap_test.go).

// TestHostileNames (CVE-2020-8597): names as long as a frame, in every message that carries one. Nobody is asked for a user
// whose name no answer could hold, and nothing breaks.
func TestHostileNames(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 1000, 1300} {
		name := strings.Repeat("n", n)
		s := opened(t, serverConfig(), nil)
		s.sent = nil
		s.recv(fmt.Sprintf("c223 02 01 %04x 31 %s %x", 4+1+49+n, strings.Repeat("00", 49), name))
		for _, size := range []int{0, 1, 48, 50, 254, 255} { // values of every length, before and behind their end
			s.recv(fmt.Sprintf("c223 02 01 %04x %02x %s", 4+1+size+n, size, strings.Repeat("00", size+n)))
			s.recv(fmt.Sprintf("c223 01 01 %04x %02x %s", 4+1+size+n, size, strings.Repeat("00", size+n)))
			s.recv(fmt.Sprintf("c223 02 01 %04x %02x %s", 4+1+n, size, strings.Repeat("00", n)))
		}
		if len(s.users.last.User) > n {
			t.Errorf("asked for %d octets", len(s.users.last.User))
		}
		if s.info != nil {
			t.Error("let in")
		}
		c := serverConfig()
		c.Auth = []aaa.Method{aaa.PAP}
		s = newStation(t, "server", c, nil)
		s.link.Start(s.now)
		request := bytes.Clone(s.sent[0])
		s.recv("c021 01 01 000e 01040578 0506 a1a2a3a4")
		request[2] = codeConfAck
		s.link.Receive(s.now, request)
		s.sent = nil
		s.recv(fmt.Sprintf("c023 01 01 %04x %02x %x %02x %x", 4+1+min(n, 255)+1+min(n, 255), min(n, 255), name[:min(n, 255)], min(n, 255), name[:min(n, 255)]))
		s.recv(fmt.Sprintf("c023 01 02 %04x ff %x", 5+n, name)) // a length that leads out of the message
		if s.info != nil {
			t.Error("let in by PAP")
		}
	}
}

// TestHostileSizes: requests that are longer than our MRU, echoes, and lists of options whose refusal would be longer than
// any frame: what we send always fits (the harness looks at every frame).
func TestHostileSizes(t *testing.T) {
	for _, n := range []int{1390, 1396, 1400, 1496, 1500, 3000, 65000} {
		s := up(t, serverConfig(), nil)
		s.recv(fmt.Sprintf("c021 09 07 %04x 00000000 %s", min(8+n, 65535), strings.Repeat("ab", n)))
		s.recv(fmt.Sprintf("c021 55 08 %04x %s", min(4+n, 65535), strings.Repeat("cd", n))) // a code that is not known
		s.recv(fmt.Sprintf("8021 55 09 %04x %s", min(4+n, 65535), strings.Repeat("cd", n)))
		s.recv(fmt.Sprintf("1234 %s", strings.Repeat("ef", n))) // a protocol that is not known
		s.recv(fmt.Sprintf("80fd 01 01 %04x %s", min(4+n, 65535), strings.Repeat("12", n)))
		options := strings.Repeat("c702", n/2) // as many options as there is room for, all refused
		s.recv(fmt.Sprintf("8021 01 0a %04x %s", 4+len(options)/2, options))
		naks := strings.Repeat("8106 00000000 8306 00000000 8206 00000000 8406 00000000 0306 00000000 ", n/30)
		s.recv(fmt.Sprintf("8021 01 0b %04x %s", 4+n/30*30, naks))
		for _, short := range []string{"0302", "8102", "8302", "0202"} { // refused by values that are longer
			list := strings.Repeat(short, min(n, 1490)/2)
			s.recv(fmt.Sprintf("8021 01 0c %04x %s", 4+len(list)/2, list))
		}
		s = newStation(t, "server", serverConfig(), nil)
		s.link.Start(s.now)
		for _, short := range []string{"0102", "0302", "0502", "0203"} {
			list := strings.Repeat(short, min(n, 1490)/2)
			s.recv(fmt.Sprintf("c021 01 0c %04x %s", 4+len(list)/2, list))
		}
		s.recv(fmt.Sprintf("c021 01 01 %04x %s", 4+len(options)/2, options))
		s.recv(fmt.Sprintf("c021 03 01 %04x %s", 4+len(options)/2, options))
		s.recv(fmt.Sprintf("c021 04 01 %04x %s", 4+len(options)/2, options))
	}
}

// TestHostileServer (CVE-2015-8023, CVE-2021-45079, CVE-2025-62291): a server that says success before it was asked, without
// proof, with half of one, or failure in messages too short for what they should hold, does not get a client that believes it.
func TestHostileServer(t *testing.T) {
	for _, verdict := range []string{
		"c223 03 %02x 0004", "c223 03 %02x 0006 533d", "c223 03 %02x 002e 533d" + strings.Repeat("30", 40), "c223 03 %02x 000a 4d3d57656c63", "c223 04 %02x 0004", "c223 04 %02x 0005 45",
		"c223 04 %02x 0006 453d", "c223 04 %02x 000b 453d363931 2043", "c223 04 %02x 0010 453d363931 20523d31 20433d", "c223 04 %02x 0200 " + strings.Repeat("20", 508),
		"c223 03 %02x 0003", "c223 04 %02x 0000", "c223 03 %02x ffff 533d",
	} {
		for _, early := range []bool{true, false} {
			c := newStation(t, "client", clientConfig(), nil)
			c.link.Start(c.now)
			request := bytes.Clone(c.sent[0])
			c.recv("c021 01 01 0013 01040578 0305c22381 0506 a1a2a3a4")
			request[2] = codeConfAck
			c.link.Receive(c.now, request)
			if c.link.lcp.state != Opened {
				t.Fatalf("lcp %v", c.link.lcp.state)
			}
			if !early {
				c.recv("c223 01 05 0019 10 000102030405060708090a0b0c0d0e0f 73727672")
			}
			c.sent = nil
			c.recv(fmt.Sprintf(verdict, 5))
			c.recv("8021 01 01 000a 0306 c0a86301")
			c.recv("8021 02 01 000a 0306 c0a8630a")
			for _, f := range c.sent {
				if f[0] == 0x80 && f[1] == 0x21 {
					t.Errorf("%s, early %v: the client negotiates IP with a server that has proved nothing", verdict, early)
				}
			}
			c.run(3 * time.Minute)
			if c.info != nil || c.cause == nil {
				t.Errorf("%s, early %v: %v", verdict, early, c.events)
			}
		}
	}
}

// TestHostileMethods: authentication by protocols that are not done here, asked for and used.
func TestHostileMethods(t *testing.T) {
	for _, method := range []string{"c227", "c225", "c223 06", "c223 00", "c223", "c02b", "0000", "ffff 81"} {
		c := newStation(t, "client", clientConfig(), nil)
		c.link.Start(c.now)
		c.sent = nil
		n := len(strings.ReplaceAll(method, " ", "")) / 2
		c.recv(fmt.Sprintf("c021 01 01 %04x 01040578 03%02x%s 0506 a1a2a3a4", 4+4+2+n+6, 2+n, method))
		for _, f := range c.sent {
			if f[0] == 0xc0 && f[1] == 0x21 && f[2] == codeConfAck {
				t.Errorf("%s: agreed to", method)
			}
		}
		s := opened(t, serverConfig(), nil)
		s.sent = nil
		for _, frame := range []string{"c227 02 01 0009 01 75736572", "c227 03 01 0004", "c227 01 01 0004", "c227 02 01 ffff 0d", "c225 02 01 0004"} {
			s.recv(frame)
		}
		if s.users.asked != 0 || s.info != nil {
			t.Errorf("%s: EAP got somewhere", method)
		}
	}
}
