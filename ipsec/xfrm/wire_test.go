package xfrm

import (
	"bytes"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
)

//go:embed testdata
var testdata embed.FS // the test also runs where there is no source

var update = flag.Bool("update", false, "write the golden messages anew (then prove them in the guest)")

// machines are the kinds of layout that exist.
var machines = map[string]layout{
	"little": {binary.LittleEndian, 8},
	"big":    {binary.BigEndian, 8},
	"i386":   {binary.LittleEndian, 4},
}

func goldenMessages() map[string]func(layout, []byte) []byte {
	in, out := ipsectest.Pair(markA, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("198.51.100.7:40001"), 0x80001001, 0x2001)
	in.Soft.Bytes, in.Hard.Packets = 1<<33, 5
	in6, _ := ipsectest.Pair(markB, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddrPort("[2001:db8:7::7]:40001"), 0x1001, 0x2001)
	in6.Encap, in6.Replay = ipsec.Encap{}, 32
	in6.Suite = ipsec.Suite{Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128}
	in6.Keys = ipsectest.Keys(in6.Suite, 1)
	ask := func(sa ipsec.SA) *request {
		return &request{sa: sa, reqid: reqidOf(sa.Mark, DefaultMarkMask), mask: DefaultMarkMask, mtimer: true}
	}
	moved := ask(out)
	moved.replay, moved.current = make([]byte, lenReplay), make([]byte, lenLifeCur)
	strict := ask(in)
	strict.peerPort = true
	strict.sa.Selector.RemotePort = 1701
	long := ask(out)
	long.sa.ESN = true
	return map[string]func(layout, []byte) []byte{
		"sa-out-esn": long.append,
		"sa-in":      ask(in).append,
		"sa-in-port": strict.append,
		"sa-out":     moved.append,
		"sa-in6-gcm": ask(in6).append,
		"sa-id":      ask(out).key().append,
		"sa-id-in6":  ask(in6).key().append,
		"policy":     markPolicy(ask(out)).append,
		"policy-id":  markPolicy(ask(out)).appendID,
		"guard-in":   guardPolicies(false, 1701)[0].append,
		"guard-out6": guardPolicies(true, 1701)[1].append,
	}
}

func TestGoldenMessages(t *testing.T) {
	for machine, l := range machines {
		for name, write := range goldenMessages() {
			got := hex.Dump(write(l, nil))
			file := filepath.Join("testdata", machine+"-"+name+".hex")
			if *update {
				os.MkdirAll("testdata", 0o755)
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want, err := testdata.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s on %s:\n%swant\n%s", name, machine, got, want)
			}
		}
	}
}

// TestSizes has what the C compiler says (sizeof on x86-64, i386, MIPS o32).
func TestSizes(t *testing.T) {
	for machine, want := range map[string][3]int{"little": {224, 168, 232}, "big": {224, 168, 232}, "i386": {220, 164, 224}} {
		l := machines[machine]
		if got := [3]int{l.lenUserSA(), l.lenPolicy(), l.lenExpire()}; got != want {
			t.Errorf("%s: usersa_info, userpolicy_info, user_expire are %v octets, want %v", machine, got, want)
		}
	}
}

// TestReadBack reads what is written: the kernel reports in the same structures.
func TestReadBack(t *testing.T) {
	for machine, l := range machines {
		for name, write := range goldenMessages() {
			b := write(l, nil)
			switch {
			case strings.HasPrefix(name, "sa-") && !strings.HasPrefix(name, "sa-id"):
				s, err := parseState(l, b, l.lenUserSA())
				if err != nil {
					t.Fatalf("%s %s: %v", machine, name, err)
				}
				if !s.ours() {
					t.Errorf("%s %s: not recognized as ours: %+v", machine, name, s)
				}
				if s.reqid++; s.ours() {
					t.Errorf("%s %s: another request id is recognized as ours", machine, name)
				}
			case !strings.HasSuffix(name, "-id") && !strings.HasPrefix(name, "sa-"):
				p, err := parsePolicy(l, b)
				if err != nil || !p.ours() {
					t.Errorf("%s %s: %+v, error %v", machine, name, p, err)
				}
				p.priority++
				if p.ours() {
					t.Errorf("%s %s: another priority is recognized as ours", machine, name)
				}
			}
		}
	}
	l := machines["big"]
	s, err := parseState(l, goldenMessages()["sa-out"](l, nil), l.lenUserSA())
	if err != nil {
		t.Fatal(err)
	}
	want := saKey{netip.MustParseAddr("198.51.100.7"), 0x2001, mark{uint32(markA), DefaultMarkMask}}
	if s.key != want || s.src != netip.MustParseAddr("192.0.2.1") || s.limits[4] != 3000 || s.limits[5] != 3600 || s.limits[2] != softPackets {
		t.Errorf("read %+v", s)
	}
}

func TestTruncations(t *testing.T) {
	l := host
	all := goldenMessages()
	for i := range l.lenUserSA() {
		if _, err := parseState(l, all["sa-out"](l, nil)[:i], l.lenUserSA()); err == nil {
			t.Errorf("an SA of %d octets was read", i)
		}
	}
	for i := range l.lenPolicy() {
		if _, err := parsePolicy(l, all["policy"](l, nil)[:i]); err == nil {
			t.Errorf("a policy of %d octets was read", i)
		}
	}
	for i := range lenMapping {
		if _, _, _, err := parseMapping(l, mapping(l)[:i]); err == nil {
			t.Errorf("a mapping of %d octets was read", i)
		}
	}
	// Attributes cut short inside, and too short for what they are.
	for _, b := range [][]byte{
		l.attr(nil, attrMark, make([]byte, 7)), l.attr(nil, attrLastUsed, make([]byte, 4)), l.attr(nil, attrReplayESN, make([]byte, 20)),
		l.mark(nil, mark{1, 1})[:11], {1, 0, 0, 0}, {0, 0, 0, 0},
	} {
		sa := append(goldenMessages()["sa-out"](l, nil)[:l.lenUserSA()], b...)
		if _, err := parseState(l, sa, l.lenUserSA()); err == nil {
			t.Errorf("an SA with attribute %x was read", b)
		}
	}
}

func mapping(l layout) []byte {
	b := make([]byte, lenMapping)
	copy(b, []byte{192, 0, 2, 1})
	putSPI(b[16:], 0x80001001)
	l.PutUint16(b[20:], unix.AF_INET)
	b[22] = unix.IPPROTO_ESP
	l.PutUint32(b[24:], 0xc7000011)
	copy(b[28:], []byte{198, 51, 100, 7})
	copy(b[44:], []byte{203, 0, 113, 9})
	putBE16(b[60:], 40001)
	putBE16(b[62:], 50005)
	return b
}

func TestMapping(t *testing.T) {
	for machine, l := range machines {
		spi, reqid, remote, err := parseMapping(l, mapping(l))
		if err != nil || spi != 0x80001001 || reqid != 0xc7000011 || remote != netip.MustParseAddrPort("203.0.113.9:50005") {
			t.Errorf("%s: %s %#x %s, error %v", machine, spi, reqid, remote, err)
		}
	}
}

// TestEvents feeds reports to a Backend without a kernel.
func TestEvents(t *testing.T) {
	in, out := ipsectest.Pair(markA, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("198.51.100.7:40001"), 0x80001001, 0x2001)
	b := &Backend{o: Options{MarkMask: DefaultMarkMask}, clients: map[ipsec.Mark]*client{markA: {sas: []*entry{{sa: in}, {sa: out}}}}}
	m := mapping(host)
	host.PutUint32(m[24:], reqidOf(markA, DefaultMarkMask))
	now := time.Unix(1000, 0)
	expire := func(sa ipsec.SA, hard byte) []byte {
		r := b.request(sa)
		whole := r.append(host, nil)
		m := append(bytes.Clone(whole[:host.lenUserSA()]), make([]byte, host.lenExpire()-host.lenUserSA())...)
		m[host.offExpireHard()] = hard
		if sa.Dir == ipsec.Out {
			m = host.mark(m, mark{uint32(sa.Mark), DefaultMarkMask})
		}
		return m
	}
	foreign := bytes.Clone(m)
	host.PutUint32(foreign[24:], 17)
	unknown := bytes.Clone(m)
	putSPI(unknown[16:], 0x80001009)
	for i, step := range []struct {
		kind uint16
		m    []byte
		at   time.Duration
		want ipsec.EventKind
		id   ipsec.SAID
	}{
		{msgMapping, foreign, 0, 0, in.ID()},
		{msgMapping, unknown, 0, 0, in.ID()},
		{msgMapping, m, 0, ipsec.EventMapping, in.ID()},
		{msgMapping, m, sameMapping - 1, 0, in.ID()},
		{msgMapping, m, sameMapping, ipsec.EventMapping, in.ID()},
		{msgExpire, expire(out, 0), 0, ipsec.EventSoftExpire, out.ID()},
		{msgExpire, expire(out, 0), 0, 0, out.ID()},
		{msgExpire, expire(in, 0), 0, ipsec.EventSoftExpire, in.ID()},
		{msgExpire, expire(in, 1), 0, ipsec.EventHardExpire, in.ID()},
		{msgExpire, expire(in, 1), 0, 0, in.ID()},
		{msgMapping, m, time.Hour, 0, in.ID()},
		{msgExpire, expire(out, 1), 0, ipsec.EventHardExpire, out.ID()},
		{99, nil, 0, 0, in.ID()},
	} {
		e, ok, err := b.event(now.Add(step.at), step.kind, step.m)
		if err != nil || ok != (step.want != 0) || ok && (e.Kind != step.want || e.ID != step.id) {
			t.Errorf("step %d: event %+v, %t, error %v", i, e, ok, err)
		}
	}
	for _, kind := range []uint16{msgMapping, msgExpire} {
		if _, ok, err := b.event(now, kind, m[:10]); ok || err == nil {
			t.Errorf("a short report of kind %#x: %t, error %v", kind, ok, err)
		}
	}
}

func TestMarkIndex(t *testing.T) {
	for _, tc := range []struct{ mask, value, index uint32 }{
		{0x7fff0000, 0x00110000, 0x11}, {0x00ff00f0, 0x00120030, 0x123}, {0x80000001, 0x80000000, 2}, {0x00ffffff, 0x00abcdef, 0xabcdef},
	} {
		if got := markIndex(tc.value, tc.mask); got != tc.index {
			t.Errorf("index of %#x under %#x is %#x, want %#x", tc.value, tc.mask, got, tc.index)
		}
		if got := markAt(tc.index, tc.mask); got != tc.value {
			t.Errorf("mark %#x under %#x is %#x, want %#x", tc.index, tc.mask, got, tc.value)
		}
		if !ourReqid(reqidOf(ipsec.Mark(tc.value), tc.mask), mark{tc.value, tc.mask}) {
			t.Errorf("%#x under %#x is not ours", tc.value, tc.mask)
		}
	}
	for _, mask := range []uint32{0, 0xffffffff, 0x01ffffff} {
		if checkMask(mask) == nil {
			t.Errorf("mask %#x was accepted", mask)
		}
	}
	if _, err := New(Options{MarkMask: 0xffffffff}); err == nil {
		t.Error("New accepted a mask of 32 bits")
	}
	if _, err := New(Options{Ports: []uint16{0}}); err == nil {
		t.Error("New accepted port 0")
	}
}

func FuzzMessages(f *testing.F) {
	for _, write := range goldenMessages() {
		f.Add(netlink.Header{Kind: msgNewSA}.Append(nil, write(host, nil)))
		f.Add(netlink.Header{Kind: msgNewPolicy}.Append(nil, write(host, nil)))
	}
	f.Add(netlink.Header{Kind: msgMapping}.Append(nil, mapping(host)))
	f.Add(netlink.Header{Kind: unix.NLMSG_ERROR, Flags: unix.NLM_F_ACK_TLVS}.Append(nil, bytes.Repeat([]byte{0xff}, 60)))
	f.Fuzz(func(t *testing.T, b []byte) {
		backend := &Backend{o: Options{MarkMask: DefaultMarkMask}}
		netlink.Messages(b, func(h netlink.Header, m []byte) error {
			switch h.Kind {
			case msgNewSA:
				if s, err := parseState(host, m, host.lenUserSA()); err == nil {
					s.ours()
					s.usage()
				}
			case msgNewPolicy:
				if p, err := parsePolicy(host, m); err == nil {
					p.ours()
					_ = p.String()
				}
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				_ = netlink.Outcome(h, m)
			default:
				backend.event(time.Time{}, h.Kind, m)
			}
			return nil
		})
	})
}

// TestSkipAhead: an outbound SA that is made anew goes on behind what may have been sent, and with extended numbers
// beyond 2^32; otherwise it stops there.
func TestSkipAhead(t *testing.T) {
	for _, test := range []struct {
		esn                          bool
		low, high, wantLow, wantHigh uint32
	}{
		{true, 5, 0, 5 + oseqGap, 0}, {true, 0xffffff00, 0, oseqGap - 0x100, 1}, {true, 0, 7, oseqGap, 7}, {true, 0, 0, 0, 0},
		{false, 5, 0, 5 + oseqGap, 0}, {false, 0xffffff00, 0, 0xfffffffe, 0},
	} {
		r := &request{sa: ipsec.SA{ESN: test.esn}, replay: make([]byte, lenESN), replayESN: true}
		host.PutUint32(r.replay[4:], test.low)
		host.PutUint32(r.replay[12:], test.high)
		r.skipAhead()
		if low, high := host.Uint32(r.replay[4:]), host.Uint32(r.replay[12:]); low != test.wantLow || high != test.wantHigh {
			t.Errorf("%+v: %x %x", test, low, high)
		}
	}
}
