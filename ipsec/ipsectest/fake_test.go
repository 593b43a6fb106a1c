package ipsectest

import (
	"errors"
	"net/netip"
	"testing"

	"culvert/ipsec"
)

func TestFakeConforms(t *testing.T) {
	Conform(t, func(*testing.T) ipsec.Backend { return NewFake() })
}

func TestFakeFailsAndReports(t *testing.T) {
	f := NewFake()
	in, out := Pair(MarkA, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("198.51.100.7:40001"), 0x1001, 0x2001)
	boom := errors.New("boom")
	f.FailNext(OpInstall, boom)
	if err := f.Install(in); err != boom {
		t.Fatalf("error %v, want boom", err)
	}
	for _, sa := range []ipsec.SA{in, out} {
		if err := f.Install(sa); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.Policies(); len(got) != 1 || got[0] != MarkA {
		t.Errorf("policies %v", got)
	}
	f.SetUsage(in.ID(), ipsec.Usage{Packets: 3})
	if u, _ := f.Usage(in.ID()); u.Packets != 3 {
		t.Errorf("usage %+v", u)
	}
	var seen []ipsec.Event
	f.OnEvent(func(e ipsec.Event) { seen = append(seen, e) })
	f.Emit(ipsec.Event{Kind: ipsec.EventHardExpire, ID: in.ID()})
	if len(seen) != 1 || len(f.SAs()) != 1 {
		t.Errorf("after a hard expiry: events %v, SAs %v", seen, f.SAs())
	}
	if calls := f.Calls(); len(calls) != 4 || calls[0].Err != boom || calls[1].SA.SPI != in.SPI {
		t.Errorf("calls %+v", calls)
	}
}
