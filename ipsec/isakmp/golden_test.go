package isakmp_test

import (
	"bytes"
	"testing"

	"culvert/ipsec/isakmp"
	"culvert/ipsec/isakmp/isakmptest"
)

func TestMain1(t *testing.T) {
	for _, c := range isakmptest.Clients() {
		t.Run(c.Name, func(t *testing.T) {
			b := c.Main1()
			h, err := isakmp.ParseHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			if h.Exchange != isakmp.Main || h.Next != isakmp.PayloadSA || h.Flags != 0 || h.MessageID != 0 ||
				!h.Responder.IsZero() || h.Initiator.IsZero() || int(h.Length) != len(b) {
				t.Errorf("header %+v", h)
			}
			ps, used, err := isakmp.ParsePayloads(h.Next, b[isakmp.HeaderLen:], false)
			if err != nil || used != len(b)-isakmp.HeaderLen {
				t.Fatalf("used %d, %v", used, err)
			}
			sa, err := isakmp.ParseSA(ps[0].Body)
			if err != nil {
				t.Fatal(err)
			}
			if len(sa.Proposals) != 1 || sa.Proposals[0].Protocol != isakmp.ProtoISAKMP || len(sa.Proposals[0].Transforms) != c.Transforms {
				t.Errorf("proposals: %v", sa.Proposals)
			}
			for _, tr := range sa.Proposals[0].Transforms {
				complete(t, isakmp.Phase1, tr, isakmp.P1Encryption, isakmp.P1Hash, isakmp.P1AuthMethod, isakmp.P1Group, isakmp.P1LifeType, isakmp.P1LifeDuration)
			}
			for _, p := range ps[1:] {
				if v, ok := isakmp.IdentifyVendor(p.Body); p.Type != isakmp.PayloadVendor || !ok {
					t.Errorf("%s payload %x is unknown: %+v", p.Type, p.Body, v)
				}
			}
			if len(ps)-1 != c.Vendors {
				t.Errorf("%d vendor ids, want %d", len(ps)-1, c.Vendors)
			}

			again := h
			again.Length = 0
			ps[0].Body = sa.Append(nil)
			out := isakmp.AppendPayloads(again.Append(nil), ps)
			isakmp.SetLength(out)
			if !bytes.Equal(out, b) {
				t.Errorf("re-emitted\n%x\nwant\n%x", out, b)
			}
			for n := range b {
				if err := wholeMessage(b[:n]); err == nil {
					t.Errorf("cut to %d octets: no error", n)
				}
				// With a length field that agrees, the cut has to show inside.
				if n >= isakmp.HeaderLen {
					cut := bytes.Clone(b[:n])
					isakmp.SetLength(cut)
					if err := wholeMessage(cut); err == nil {
						t.Errorf("cut to %d octets with the length corrected: no error", n)
					}
				}
			}
		})
	}
}

// complete checks that a transform has each of the attributes, that all are known and that they name their values.
func complete(t *testing.T, space *isakmp.Space, tr isakmp.Transform, types ...uint16) {
	t.Helper()
	for _, typ := range types {
		if a, ok := isakmp.Find(tr.Attributes, typ); !ok {
			t.Errorf("transform %d has no %s", tr.Number, space.TypeName(typ))
		} else if _, ok := a.Uint(); !ok {
			t.Errorf("transform %d: %s is no number", tr.Number, space.TypeName(typ))
		}
	}
	for _, a := range tr.Attributes {
		if !space.Known(a.Type) || space.Kind(a.Type) == isakmp.KindBasic && !a.Basic {
			t.Errorf("transform %d: %s", tr.Number, space.Format(a))
		}
	}
}

// wholeMessage parses everything in a cleartext message.
func wholeMessage(b []byte) error {
	h, err := isakmp.ParseHeader(b)
	if err != nil {
		return err
	}
	ps, _, err := isakmp.ParsePayloads(h.Next, b[isakmp.HeaderLen:h.Length], false)
	if err != nil {
		return err
	}
	for _, p := range ps {
		if p.Type == isakmp.PayloadSA {
			if _, err := isakmp.ParseSA(p.Body); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestQuickSA(t *testing.T) {
	for _, c := range isakmptest.Clients() {
		for _, encap := range []uint16{isakmp.EncapTransport, isakmp.EncapUDPTransport, isakmp.EncapUDPTransportDraft} {
			t.Run(c.Name+" "+isakmp.Phase2.ValueName(isakmp.P2Encap, uint64(encap)), func(t *testing.T) {
				b := c.QuickSA(encap)
				sa, err := isakmp.ParseSA(b)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, p := range sa.Proposals {
					if p.Protocol != isakmp.ProtoESP || len(p.SPI) != 4 || !bytes.Equal(p.SPI, sa.Proposals[0].SPI) {
						t.Errorf("proposal %v", p)
					}
					for _, tr := range p.Transforms {
						n++
						complete(t, isakmp.Phase2, tr, isakmp.P2LifeType, isakmp.P2LifeDuration, isakmp.P2Encap, isakmp.P2Auth)
						if a, _ := isakmp.Find(tr.Attributes, isakmp.P2Encap); !bytes.Equal(a.Value, isakmp.Basic(0, encap).Value) {
							t.Errorf("encapsulation mode %x", a.Value)
						}
						group, _ := isakmp.Find(tr.Attributes, isakmp.P2Group)
						if v, _ := group.Uint(); v != uint64(c.QuickGroup) {
							t.Errorf("group %d", v)
						}
					}
				}
				if n != c.QuickTransforms {
					t.Errorf("%d transforms, want %d", n, c.QuickTransforms)
				}
				if got := sa.Append(nil); !bytes.Equal(got, b) {
					t.Errorf("re-emitted\n%x\nwant\n%x", got, b)
				}
				for n := range b {
					if _, err := isakmp.ParseSA(b[:n]); err == nil {
						t.Errorf("cut to %d octets: no error", n)
					}
				}
			})
		}
	}
}

func TestMain1Text(t *testing.T) {
	b := isakmptest.WindowsMain1()
	if len(b) != 408 {
		t.Errorf("Windows sends 408 octets, not %d", len(b))
	}
	ps, _, err := isakmp.ParsePayloads(isakmp.PayloadSA, b[isakmp.HeaderLen:], false)
	if err != nil {
		t.Fatal(err)
	}
	sa, err := isakmp.ParseSA(ps[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	const first = "encryption=aes-cbc key-length=256 hash=sha1 group=ecp384 auth=psk life-type=seconds life-duration=28800"
	if s := sa.Proposals[0].Transforms[0].Format(isakmp.ProtoISAKMP); s != first {
		t.Errorf("got %s", s)
	}
}

// Parsing a first message costs one slice of payloads and one each of proposals, transforms and attributes.
func TestParseAllocations(t *testing.T) {
	b := isakmptest.AppleMain1()
	ps, _, _ := isakmp.ParsePayloads(isakmp.PayloadSA, b[isakmp.HeaderLen:], false)
	for name, c := range map[string]struct {
		most float64
		f    func()
	}{
		"ParseHeader":    {0, func() { isakmp.ParseHeader(b) }},
		"ParsePayloads":  {1, func() { isakmp.ParsePayloads(isakmp.PayloadSA, b[isakmp.HeaderLen:], false) }},
		"ParseSA":        {3, func() { isakmp.ParseSA(ps[0].Body) }},
		"IdentifyVendor": {0, func() { isakmp.IdentifyVendor(ps[3].Body) }},
	} {
		if n := testing.AllocsPerRun(50, c.f); n > c.most {
			t.Errorf("%s allocates %v times, want %v", name, n, c.most)
		}
	}
}
