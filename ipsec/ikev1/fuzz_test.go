package ikev1

import (
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// FuzzFifth makes up the inside of message 5, which whoever has done the Diffie-Hellman can encrypt. With proof it comes
// behind an identity and the hash that prove the secret, the identity being the first octets, after their number; without,
// nobody gets in. Either the peer has one secret, or its users have keys of their own.
func FuzzFifth(f *testing.F) {
	f.Add(uint8(0), true, false, append([]byte{8}, isakmp.IDFromAddr(serverAddr, 17, 500).Append(nil)...))
	f.Fuzz(func(t *testing.T, first uint8, proof, keys bool, inner []byte) {
		w := newWorld(t, func(cfg *Config) {
			cfg.Peers[0].Profile.Groups = []Group{ECP256}
			if keys {
				withKeys(3, "mySecret")(cfg)
			}
		})
		c := ecpClient(t, 1)
		fifth := c.receive(w.give(c.from(), c.receive(w.give(c.from(), c.first())[0].msg))[0].msg)
		iv, plain := c.iv, append([]byte(nil), inner...)
		if proof {
			n := 0
			if len(inner) > 0 {
				n = min(int(inner[0]), len(inner)-1)
				inner = inner[1:]
			}
			id := inner[:n]
			hash := c.prf(c.skeyid, c.gi, c.gr, c.ci[:], c.cr[:], c.saBody, id)
			plain = append([]byte{byte(isakmp.PayloadHash), 0, 0, byte(4 + n)}, id...)
			plain = append(append(append(plain, first, 0, 0, byte(4+len(hash))), hash...), inner[n:]...)
			first = uint8(isakmp.PayloadID)
		}
		for range 2 { // the second time as a repetition
			w.give(c.from(), c.encrypt(isakmp.Main, 0, iv, isakmp.PayloadType(first), append([]byte(nil), plain...)))
		}
		s := w.e.Snapshot(w.now)
		if s.Clients+s.HalfOpen != 1 || !proof && s.Clients != 0 {
			t.Fatalf("let in without proof, or forgotten: %+v", s)
		}
		// What was not right does not keep the right message out.
		if w.give(c.from(), fifth); s.Clients == 0 && w.e.Snapshot(w.now).Clients != 1 {
			t.Fatalf("the right message is refused: %v", w.e.Snapshot(w.now).Drops)
		}
		w.advance(10 * time.Minute)
		if s := w.e.Snapshot(w.now); s.HalfOpen != 0 || len(w.data.SAs()) != 0 || len(s.Peers) != 0 {
			t.Fatalf("something is left: %+v", s)
		}
	})
}

// FuzzDialSixth makes up the inside of message 6: a server that has done the Diffie-Hellman, and has the secret if it
// proves it, as in FuzzFifth.
func FuzzDialSixth(f *testing.F) {
	f.Add(uint8(0), true, append([]byte{8}, isakmp.IDFromAddr(serverAddr, 17, 500).Append(nil)...))
	f.Fuzz(func(t *testing.T, first uint8, proof bool, inner []byte) {
		c := newCable(t, 1, false, nil)
		made := 0
		c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
			h := exchangeOf(msg)
			sa := c.a.e.sas[cookies{h.Initiator, h.Responder}]
			if h.Exchange != isakmp.Main || h.Flags&isakmp.Encrypted == 0 || sa == nil || sa.state != stateAuth {
				return p, msg
			}
			next, plain := isakmp.PayloadType(first), inner
			if proof {
				id := inner[:0]
				if len(inner) > 0 {
					id = inner[1 : 1+min(int(inner[0]), len(inner)-1)]
				}
				hash := sa.keys.authHash(sa.gr, sa.gi, sa.id.responder, sa.id.initiator, sa.saBody, id)
				plain = append([]byte{byte(isakmp.PayloadHash), 0, 0, byte(4 + len(id))}, id...)
				plain = append(append(plain, first, 0, 0, byte(4+len(hash))), hash...)
				plain = append(plain, inner[min(len(inner), 1+len(id)):]...)
				next = isakmp.PayloadID
			}
			if len(plain) == 0 {
				return p, nil
			}
			made++
			body, _ := sa.crypt.seal(sa.iv, append([]byte(nil), plain...))
			out := append(sa.header(isakmp.Main, 0, isakmp.Encrypted, next), body...)
			isakmp.SetLength(out)
			return p, out
		}
		m := c.dial(c.caller())
		c.run(90 * time.Second)
		if made > 0 && !proof && len(c.a.ups)+len(c.a.data.SAs()) > 0 {
			t.Fatal("a server without proof is believed")
		}
		c.a.e.ClosePeer(c.now, m, "enough")
		c.run(time.Second)
		c.empty(c.a)
	})
}
