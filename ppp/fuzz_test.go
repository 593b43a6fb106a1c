package ppp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"culvert/ppp/aaa"
)

// conversation is what a client says, as recorded from our own.
func conversation(t testing.TB, m aaa.Method) (toServer, toClient [][]byte) {
	sc, cc := serverConfig(), clientConfig()
	sc.Auth = []aaa.Method{m}
	sc.IPv6, cc.IPv6 = true, true
	s, c, w := newPair(t, sc, cc)
	w.tap = func(from *station, f []byte) {
		if from == s {
			toClient = append(toClient, bytes.Clone(f))
		} else {
			toServer = append(toServer, bytes.Clone(f))
		}
	}
	s.link.Start(epoch)
	c.link.Start(epoch)
	w.run(70*time.Second, nil) // with an echo
	c.link.Close(w.now, Cause{Code: CauseAdmin})
	w.run(10*time.Second, nil)
	return toServer, toClient
}

// TestTruncations puts every prefix of every frame of a conversation in front of it: none is answered, none changes
// anything, and the conversation goes its way.
func TestTruncations(t *testing.T) {
	for _, m := range []aaa.Method{aaa.PAP, aaa.CHAP, aaa.MSCHAP1, aaa.MSCHAP2} {
		sc, cc := serverConfig(), clientConfig()
		sc.Auth = []aaa.Method{m}
		sc.IPv6, cc.IPv6 = true, true
		s, c, w := newPair(t, sc, cc)
		checked := 0
		w.fate = func(f []byte) []time.Duration {
			for _, to := range []*station{s, c} {
				carry := to.carry
				to.carry = func(g []byte) { t.Errorf("%s answered a prefix of %x with %x", to.name, f, g) }
				for i := range f {
					before := fmt.Sprintf("%+v %v", to.link.Snapshot(w.now), to.events)
					drops := to.link.drops
					if to.link.depth == 0 {
						to.link.Receive(w.now, f[:i])
						checked++
					}
					to.link.drops = drops
					if after := fmt.Sprintf("%+v %v", to.link.Snapshot(w.now), to.events); after != before {
						t.Fatalf("%d octets of %x changed %s:\n%s\n%s", i, f, to.name, before, after)
					}
				}
				to.carry = carry
			}
			return []time.Duration{time.Millisecond}
		}
		s.link.Start(epoch)
		c.link.Start(epoch)
		w.run(time.Minute, w.bothUp)
		if !w.bothUp() || checked < 250 {
			t.Errorf("%v: %v %v, %d prefixes", m, s.cause, c.cause, checked)
		}
	}
}

// FuzzReceive feeds frames, two octets of length before each, to a server and a client in whatever phase they get to.
func FuzzReceive(f *testing.F) {
	pack := func(phase byte, frames ...[]byte) []byte {
		b := []byte{phase}
		for _, fr := range frames {
			b = append(b, byte(len(fr)>>8), byte(len(fr)))
			b = append(b, fr...)
		}
		return b
	}
	for i, m := range []aaa.Method{aaa.PAP, aaa.CHAP, aaa.MSCHAP1, aaa.MSCHAP2} {
		server, client := conversation(f, m)
		f.Add(pack(byte(i)<<1, server...))
		f.Add(pack(byte(i)<<1|1, client...))
		for phase := range byte(4) {
			for _, fr := range server {
				f.Add(pack(phase<<3|byte(i)<<1, fr))
			}
		}
	}
	f.Add(pack(0x1c, unhex(f, "c223 02 01 0104 ff"+strings.Repeat("00", 255)))) // a length that fills its octet
	f.Add(pack(0x18, unhex(f, "c023 01 01 0205 ff"+strings.Repeat("61", 255)+"ff"+strings.Repeat("62", 255))))
	f.Add(pack(0x18, unhex(f, "c021 0101 0004"), unhex(f, "80fd 0101 0004"), unhex(f, "c021 09 01 0008 00000000")))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 1 {
			return
		}
		sc, cc := serverConfig(), clientConfig()
		sc.Auth = []aaa.Method{aaa.Method(in[0]>>1&3) + 1}
		sc.IPv6, cc.IPv6 = true, true
		s, c, w := newPair(t, sc, cc)
		s.link.Start(epoch)
		switch in[0] >> 3 & 3 {
		case 1: // somewhere in the middle of the handshake
			c.link.Start(epoch)
			w.run(15*time.Millisecond, nil)
		case 2:
			c.link.Start(epoch)
			w.run(35*time.Millisecond, nil)
		case 3:
			c.link.Start(epoch)
			w.run(time.Second, nil)
		default:
			c.link.Start(epoch)
		}
		victim := s
		if in[0]&1 == 1 {
			victim = c
		}
		sent := 0
		victim.carry = func([]byte) { sent++ }
		for b, n := in[1:], 0; len(b) >= 2 && n < 64; n++ {
			size := int(b[0])<<8 | int(b[1])
			size = min(size, len(b)-2)
			victim.link.Receive(victim.now, b[2:2+size])
			b = b[2+size:]
			if sent > 8 {
				t.Fatalf("%d frames in answer to one", sent)
			}
			sent = 0
			if n%4 == 3 {
				victim.run(time.Second)
				sent = 0
			}
		}
		victim.run(20 * time.Minute)
		victim.link.Lost(victim.now, Cause{Code: CauseNoCarrier})
		if victim.cause == nil || !victim.link.Deadline().IsZero() {
			t.Error("it does not end")
		}
		if victim == s && s.users.released > s.users.asked {
			t.Error("a grant was released twice")
		}
	})
}

func FuzzOptions(f *testing.F) {
	f.Add(unhex(f, "010405780305c22381050601020304"), unhex(f, "0305c22305"))
	f.Add(unhex(f, "0306000000008106000000008206000000008306000000008406 00000000"), unhex(f, "8206 00000000"))
	f.Fuzz(func(t *testing.T, request, answer []byte) {
		if !wellFormed(request) {
			return
		}
		l := New(serverConfig(), Caller{}, Env{Send: func([]byte) {}, Rand: &counting{}})
		for _, set := range []optionSet{l.lcpOpts.set(), l.ipcpOpts.set()} {
			for _, final := range []bool{false, true} {
				v, reply := set.consider(request, final, true, nil)
				if !wellFormed(reply) || len(reply) > len(request)+64 {
					t.Fatalf("%x answered by %x", request, reply)
				}
				if final && v == nak {
					t.Fatal("a counterproposal after the last")
				}
			}
			if wellFormed(answer) {
				sent := set.appendRequest(nil)
				set.naked(sent, answer)
				set.rejected(sent, answer)
				if sent = set.appendRequest(nil); !wellFormed(sent) {
					t.Fatalf("request %x", sent)
				}
			}
		}
	})
}
