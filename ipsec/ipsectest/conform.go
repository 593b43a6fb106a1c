package ipsectest

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"culvert/ipsec"
)

// Marks that Conform uses; they lie inside the mask 0x7fff0000.
const (
	MarkA ipsec.Mark = 0x00110000
	MarkB ipsec.Mark = 0x00220000
)

// AESSHA1 is the suite of Pair: what every client and every kernel can do.
var AESSHA1 = ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA1, ICVBits: 96}

// Pair returns both directions of an encapsulated child SA of one mark, with made-up keys.
func Pair(m ipsec.Mark, local netip.Addr, remote netip.AddrPort, spiIn, spiOut ipsec.SPI) (in, out ipsec.SA) {
	in = ipsec.SA{
		Dir: ipsec.In, SPI: spiIn, Mark: m, Local: local, Remote: remote.Addr(),
		Encap: ipsec.Encap{Local: 4500, Remote: remote.Port()}, Mode: ipsec.Transport,
		Suite: AESSHA1, Keys: Keys(AESSHA1, byte(spiIn)),
		Selector: ipsec.Selector{
			Local:  netip.PrefixFrom(local, local.BitLen()),
			Remote: netip.PrefixFrom(remote.Addr(), remote.Addr().BitLen()),
			Proto:  17, LocalPort: 1701,
		},
		Soft: ipsec.Lifetime{Time: 50 * time.Minute}, Hard: ipsec.Lifetime{Time: time.Hour},
	}
	out = in
	out.Dir, out.SPI, out.Keys = ipsec.Out, spiOut, Keys(AESSHA1, byte(spiOut))
	return in, out
}

// Keys makes up distinct keys of the suite's lengths.
func Keys(s ipsec.Suite, seed byte) ipsec.Keys {
	// 3DES needs three different keys: a kernel in FIPS mode refuses others.
	k := ipsec.Keys{Enc: make(ipsec.Secret, s.EncLen()), Auth: make(ipsec.Secret, s.AuthLen())}
	for i := range k.Enc {
		k.Enc[i] = seed + byte(i)*7
	}
	for i := range k.Auth {
		k.Auth[i] = seed ^ byte(i)*11
	}
	return k
}

// Conform checks that a Backend does what the interface promises. newBackend returns an empty one for each subtest and
// cleans up through t.Cleanup.
func Conform(t *testing.T, newBackend func(t *testing.T) ipsec.Backend) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	peer4, peer6 := netip.MustParseAddrPort("198.51.100.7:40001"), netip.MustParseAddrPort("[2001:db8:7::7]:40001")

	both := func(t *testing.T, b ipsec.Backend, m ipsec.Mark, remote netip.AddrPort, spiIn, spiOut ipsec.SPI) (in, out ipsec.SA) {
		t.Helper()
		local := v4
		if remote.Addr().Is6() {
			local = v6
		}
		in, out = Pair(m, local, remote, spiIn, spiOut)
		if err := b.Install(in); err != nil {
			t.Fatalf("install %s: %v", in.ID(), err)
		}
		if err := b.Install(out); err != nil {
			t.Fatalf("install %s: %v", out.ID(), err)
		}
		return in, out
	}
	present := func(t *testing.T, b ipsec.Backend, want bool, ids ...ipsec.SAID) {
		t.Helper()
		for _, id := range ids {
			u, err := b.Usage(id)
			switch {
			case want && err != nil:
				t.Errorf("usage of %s: %v", id, err)
			case want && (u.Bytes != 0 || u.Packets != 0):
				t.Errorf("usage of %s, never used: %+v", id, u)
			case !want && !errors.Is(err, ipsec.ErrNoSA):
				t.Errorf("usage of %s, not installed: error %v, want ErrNoSA", id, err)
			}
		}
	}

	t.Run("install, use, remove", func(t *testing.T) {
		for name, remote := range map[string]netip.AddrPort{"ipv4": peer4, "ipv6": peer6} {
			t.Run(name, func(t *testing.T) {
				b := newBackend(t)
				in, out := both(t, b, MarkA, remote, 0x1001, 0x2001)
				present(t, b, true, in.ID(), out.ID())
				for range 2 { // the second time they are unknown, which is no error
					for _, id := range []ipsec.SAID{in.ID(), out.ID()} {
						if err := b.Remove(id); err != nil {
							t.Fatalf("remove %s: %v", id, err)
						}
					}
					present(t, b, false, in.ID(), out.ID())
				}
				both(t, b, MarkA, remote, 0x1001, 0x2001) // nothing was left behind
			})
		}
	})

	t.Run("plain ESP and high SPIs", func(t *testing.T) {
		b := newBackend(t)
		in, out := Pair(MarkA, v4, peer4, 0xfffffff1, 0x80000000)
		in.Encap, out.Encap = ipsec.Encap{}, ipsec.Encap{}
		in.Selector, out.Selector = ipsec.Selector{}, ipsec.Selector{}
		for _, sa := range []ipsec.SA{in, out} {
			if err := b.Install(sa); err != nil {
				t.Fatalf("install %s: %v", sa.ID(), err)
			}
		}
		present(t, b, true, in.ID(), out.ID())
	})

	t.Run("replay windows", func(t *testing.T) {
		b := newBackend(t)
		for i, w := range []int{0, 32, 64, 1000, ipsec.MaxReplay} {
			in, out := Pair(MarkA, v4, peer4, ipsec.SPI(0x1000+i), ipsec.SPI(0x2000+i))
			in.Replay, out.Replay = w, w
			for _, sa := range []ipsec.SA{in, out} {
				if err := b.Install(sa); err != nil {
					t.Errorf("window %d, %s: %v", w, sa.Dir, err)
				}
			}
		}
	})

	t.Run("same SPI twice", func(t *testing.T) {
		b := newBackend(t)
		in, out := both(t, b, MarkA, peer4, 0x1001, 0x2001)
		for _, sa := range []ipsec.SA{in, out} {
			if err := b.Install(sa); !errors.Is(err, ipsec.ErrSAExists) {
				t.Errorf("install %s again: error %v, want ErrSAExists", sa.ID(), err)
			}
		}
		other, _ := Pair(MarkB, v4, peer4, 0x1001, 0)
		if err := b.Install(other); !errors.Is(err, ipsec.ErrSAExists) {
			t.Errorf("another mark's inbound SPI: error %v, want ErrSAExists", err)
		}
		present(t, b, true, in.ID(), out.ID())
		present(t, b, false, other.ID())
	})

	t.Run("two clients behind one NAT with one SPI", func(t *testing.T) {
		b := newBackend(t)
		_, outA := both(t, b, MarkA, peer4, 0x1001, 0x2001)
		inB, outB := both(t, b, MarkB, netip.AddrPortFrom(peer4.Addr(), 40002), 0x1002, 0x2001)
		if err := b.Remove(outA.ID()); err != nil {
			t.Fatal(err)
		}
		present(t, b, false, outA.ID())
		present(t, b, true, inB.ID(), outB.ID())
	})

	t.Run("rekey", func(t *testing.T) {
		b := newBackend(t)
		in1, out1 := both(t, b, MarkA, peer4, 0x1001, 0x2001)
		in2, out2 := both(t, b, MarkA, peer4, 0x1002, 0x2002)
		for _, id := range []ipsec.SAID{in1.ID(), out1.ID()} {
			if err := b.Remove(id); err != nil {
				t.Fatal(err)
			}
		}
		present(t, b, false, in1.ID(), out1.ID())
		present(t, b, true, in2.ID(), out2.ID())
	})

	t.Run("move", func(t *testing.T) {
		for name, to := range map[string]string{"port": "198.51.100.7:50005", "address": "203.0.113.9:50005", "nowhere": "198.51.100.7:40001"} {
			t.Run(name, func(t *testing.T) {
				b := newBackend(t)
				in1, out1 := both(t, b, MarkA, peer4, 0x1001, 0x2001)
				in2, out2 := both(t, b, MarkA, peer4, 0x1002, 0x2002)
				inB, outB := both(t, b, MarkB, peer4, 0x1003, 0x2001)
				remote := netip.MustParseAddrPort(to)
				for range 2 {
					if err := b.Move(MarkA, remote); err != nil {
						t.Fatalf("move to %s: %v", remote, err)
					}
					present(t, b, true, in1.ID(), out1.ID(), in2.ID(), out2.ID(), inB.ID(), outB.ID())
				}
				for _, id := range []ipsec.SAID{in1.ID(), out1.ID(), in2.ID(), out2.ID()} {
					if err := b.Remove(id); err != nil {
						t.Fatalf("remove %s: %v", id, err)
					}
					present(t, b, false, id)
				}
				present(t, b, true, inB.ID(), outB.ID())
				both(t, b, MarkA, peer4, 0x1001, 0x2001) // neither the old nor the new place is taken
			})
		}
		b := newBackend(t)
		if err := b.Move(MarkA, peer4); !errors.Is(err, ipsec.ErrNoSA) {
			t.Errorf("move of a mark without SAs: error %v, want ErrNoSA", err)
		}
		in, out := both(t, b, MarkA, peer4, 0x1001, 0x2001)
		var bad *ipsec.SAError
		if err := b.Move(MarkA, peer6); !errors.As(err, &bad) {
			t.Errorf("move to another family: error %v, want *SAError", err)
		}
		present(t, b, true, in.ID(), out.ID())
	})

	t.Run("refused and unchanged", func(t *testing.T) {
		good, goodOut := Pair(MarkA, v4, peer4, 0x1001, 0x2001)
		for name, spoil := range map[string]func(*ipsec.SA){
			"no direction":       func(sa *ipsec.SA) { sa.Dir = 0 },
			"reserved SPI":       func(sa *ipsec.SA) { sa.SPI = 255 },
			"no mark":            func(sa *ipsec.SA) { sa.Mark = 0 },
			"no address":         func(sa *ipsec.SA) { sa.Remote = netip.Addr{} },
			"two families":       func(sa *ipsec.SA) { sa.Remote = peer6.Addr() },
			"mapped address":     func(sa *ipsec.SA) { sa.Remote = netip.MustParseAddr("::ffff:192.0.2.9") },
			"multicast":          func(sa *ipsec.SA) { sa.Remote = netip.MustParseAddr("224.0.0.1") },
			"half an encap":      func(sa *ipsec.SA) { sa.Encap.Remote = 0 },
			"tunnel mode":        func(sa *ipsec.SA) { sa.Mode = ipsec.Tunnel },
			"window":             func(sa *ipsec.SA) { sa.Replay = ipsec.MaxReplay + 1 },
			"selector family":    func(sa *ipsec.SA) { sa.Selector.Remote = netip.MustParsePrefix("2001:db8::/64") },
			"port, no protocol":  func(sa *ipsec.SA) { sa.Selector.Proto = 0 },
			"unknown cipher":     func(sa *ipsec.SA) { sa.Suite.Cipher = 99 },
			"key bits":           func(sa *ipsec.SA) { sa.Suite.KeyBits = 40 },
			"no integrity":       func(sa *ipsec.SA) { sa.Suite.Integrity, sa.Keys.Auth = ipsec.IntegrityNone, nil },
			"ICV":                func(sa *ipsec.SA) { sa.Suite.ICVBits = 32 },
			"AEAD and integrity": func(sa *ipsec.SA) { sa.Suite.Cipher = ipsec.AESGCM },
			"short key":          func(sa *ipsec.SA) { sa.Keys.Enc = sa.Keys.Enc[1:] },
			"long key":           func(sa *ipsec.SA) { sa.Keys.Auth = append(bytes.Clone(sa.Keys.Auth), 0) },
		} {
			t.Run(name, func(t *testing.T) {
				b := newBackend(t)
				sa := good
				spoil(&sa)
				var bad *ipsec.SAError
				if err := b.Install(sa); !errors.As(err, &bad) {
					t.Errorf("error %v, want *SAError", err)
				}
				present(t, b, false, sa.ID(), good.ID())
				for _, sa := range []ipsec.SA{good, goodOut} {
					if err := b.Install(sa); err != nil {
						t.Errorf("a good one after it: %v", err)
					}
				}
			})
		}
	})
}
