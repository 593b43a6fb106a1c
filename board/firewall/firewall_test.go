package firewall

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
	"culvert/board/nft"
)

func ranges(s ...string) (out []Range) {
	for _, x := range s {
		first, last, _ := strings.Cut(x, "-")
		out = append(out, Range{netip.MustParseAddr(first), netip.MustParseAddr(last)})
	}
	return out
}

var everything = Rules{
	IPsec: true, L2TP: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:1701"), netip.MustParseAddrPort("[2001:db8::1]:1702")},
	Protected: true, KernelESP: true, Users: ranges("192.168.99.2-192.168.99.254"), Masquerade: []string{"eth0"},
}

// chains counts the rules of each chain.
func chains(r Rules) string {
	have := map[string]int{}
	for _, m := range r.messages() {
		if m.Kind == unix.NFT_MSG_NEWRULE || m.Kind == unix.NFT_MSG_NEWCHAIN {
			name := m.Body[nlaLen(m.Body):]
			if m.Kind == unix.NFT_MSG_NEWRULE {
				have[unix.ByteSliceToString(name[4:])]++
			} else {
				have[unix.ByteSliceToString(name[4:])] += 0
			}
		}
	}
	return strings.TrimPrefix(fmt.Sprint(have), "map")
}

// nlaLen is the length of the first attribute, padded.
func nlaLen(b []byte) int {
	n := int(b[0]) | int(b[1])
	return (n + 3) &^ 3
}

// What the rules say is read by nft in the lab; here is how many of them each wish makes.
func TestRules(t *testing.T) {
	plain, userspace, noIPsec, client := everything, everything, everything, Rules{IPsec: true}
	plain.Protected, plain.Masquerade = false, nil
	userspace.KernelESP = false
	noIPsec.IPsec, noIPsec.Protected, noIPsec.KernelESP = false, false, false
	for _, test := range []struct {
		name string
		r    Rules
		want string
	}{
		{"everything", everything, "[banned:2 forward:2 input:7 postrouting:1 prerouting:2]"},
		{"plain L2TP too", plain, "[banned:2 forward:2 input:5 prerouting:2]"},
		{"our own ESP", userspace, "[banned:2 forward:2 input:5 postrouting:1 prerouting:2]"},
		{"no IPsec", noIPsec, "[banned:2 forward:2 input:2 postrouting:1 prerouting:1]"},
		{"only a client", client, "[banned:2 input:3 prerouting:2]"},
	} {
		if got := chains(test.r); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func TestIntervals(t *testing.T) {
	for _, test := range []struct{ ranges, want string }{
		{"", ""},
		{"10.0.0.2-10.0.0.9", "0a000002 !0a00000a"},
		{"10.0.0.2-10.0.0.2 10.0.0.4-10.0.0.4", "0a000002 !0a000003 0a000004 !0a000005"},
		{"10.0.0.2-10.0.0.3 10.0.0.4-10.0.0.9 10.0.0.10-10.0.0.10", "0a000002 !0a00000b"},
		{"0.0.0.0-255.255.255.255", "00000000"},
		{"10.0.0.2-10.0.0.9 255.0.0.0-255.255.255.255", "0a000002 !0a00000a ff000000"},
	} {
		var got []string
		for _, e := range intervals(ranges(strings.Fields(test.ranges)...)) {
			s := hex.EncodeToString(e.Key)
			if e.End {
				s = "!" + s
			}
			got = append(got, s)
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s: %s, want %s", test.ranges, s, test.want)
		}
	}
	var many []Range
	for a := netip.MustParseAddr("10.0.0.0"); len(many) < 3000; a = a.Next().Next() {
		many = append(many, Range{a, a})
	}
	elements := 0
	for _, m := range (Rules{Users: many}).messages() {
		if len(m.Body) > 1<<16 {
			t.Errorf("a message of %d octets", len(m.Body))
		}
		if m.Kind == unix.NFT_MSG_NEWSETELEM {
			elements++
		}
	}
	if elements != 6 {
		t.Errorf("%d messages", elements)
	}
}

// fake is nf_tables, of a kernel that may lack something.
type fake struct {
	contents []nft.Message
	banned   map[string]bool
	noMasq   bool
	closed   bool
}

func (f *fake) Close() error { f.closed = true; return nil }

func (f *fake) Replace(_ nft.Table, contents ...nft.Message) error {
	for _, m := range contents {
		if f.noMasq && strings.Contains(string(m.Body), "masq\x00") {
			return fmt.Errorf("%w: %w", nft.ErrLacking, unix.ENOENT)
		}
	}
	f.contents, f.banned = contents, map[string]bool{}
	return nil
}

func (f *fake) Commit(_ string, msgs ...nft.Message) error {
	key := func(m nft.Message) string { // which a time-out may follow
		i := strings.LastIndex(string(m.Body), "\xc6\x33\x64")
		return string(m.Body[max(i, 0):][:4])
	}
	for _, m := range msgs {
		switch k := key(m); {
		case m.Kind == unix.NFT_MSG_NEWSETELEM && f.banned[k]:
			return &netlink.Error{Errno: unix.EEXIST}
		case m.Kind == unix.NFT_MSG_NEWSETELEM:
			f.banned[k] = true
		case m.Kind == unix.NFT_MSG_DELSETELEM && !strings.Contains(string(m.Body), "\xc6\x33\x64"):
			clear(f.banned)
		case m.Kind == unix.NFT_MSG_DELSETELEM && !f.banned[k]:
			return &netlink.Error{Errno: unix.ENOENT}
		case m.Kind == unix.NFT_MSG_DELSETELEM:
			delete(f.banned, k)
		}
	}
	return nil
}

func (f *fake) BaseChains() ([]nft.BaseChain, error) {
	return []nft.BaseChain{
		{Family: unix.NFPROTO_INET, Table: Name, Name: "input", Hook: unix.NF_INET_LOCAL_IN},
		{Family: unix.NFPROTO_INET, Table: "fw4", Name: "input", Hook: unix.NF_INET_LOCAL_IN, Drop: true},
		{Family: unix.NFPROTO_IPV4, Table: "filter", Name: "FORWARD", Hook: unix.NF_INET_FORWARD, Drop: true},
		{Family: unix.NFPROTO_IPV4, Table: "filter", Name: "OUTPUT", Hook: unix.NF_INET_LOCAL_OUT, Drop: true},
		{Family: unix.NFPROTO_BRIDGE, Table: "filter", Name: "INPUT", Hook: unix.NF_INET_LOCAL_IN, Drop: true},
	}, nil
}

func TestTable(t *testing.T) {
	var none Table
	if err := errors.Join(none.Ban(netip.MustParsePrefix("198.51.100.1/32"), time.Minute), none.Lift(), none.Pardon(netip.MustParsePrefix("198.51.100.1/32")), none.Close()); err != nil || none.Up() {
		t.Error(err)
	}
	f := &fake{banned: map[string]bool{}}
	table := Table{conn: f}
	if err := table.Apply(everything); err != nil {
		t.Fatal(err)
	}
	if strict, err := table.Strict(); err != nil || !reflect.DeepEqual(strict, []string{"inet fw4 input", "ip filter FORWARD"}) {
		t.Error(strict, err)
	}
	a, b := netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("198.51.100.2/32")
	for range 2 { // the second time for longer
		if err := table.Ban(a, time.Minute); err != nil || len(f.banned) != 1 {
			t.Error(err)
		}
	}
	if err := errors.Join(table.Ban(b, time.Minute), table.Apply(everything)); err != nil || len(f.banned) != 2 {
		t.Error("what changes nothing ends a ban", err)
	}
	for range 2 { // the second time it has ended by itself
		if err := table.Pardon(a); err != nil || len(f.banned) != 1 {
			t.Error(err, f.banned)
		}
	}
	if err := table.Lift(); err != nil || len(f.banned) > 0 {
		t.Error(err, f.banned)
	}
	if err := table.Close(); err != nil || !f.closed || table.Up() {
		t.Error(err)
	}
}

// A kernel that cannot masquerade does the rest.
func TestNoMasquerade(t *testing.T) {
	f := &fake{noMasq: true}
	table := Table{conn: f}
	err := table.Apply(everything)
	less := everything
	less.Masquerade = nil
	if !errors.Is(err, ErrNoMasquerade) || !strings.Contains(err.Error(), "CONFIG_NFT_MASQ") || !reflect.DeepEqual(f.contents, less.messages()) {
		t.Error(err)
	}
}

func TestBanned(t *testing.T) {
	for p, want := range map[string]string{
		"192.0.2.7/32":         "banned4 c0000207",
		"2001:db8:1:2:3::/64":  "banned6 20010db8000100020000000000000000",
		"2001:db8:1:2:3::9/64": "banned6 20010db8000100020000000000000000",
	} {
		if set, key := banned(netip.MustParsePrefix(p)); fmt.Sprintf("%s %x", set, key) != want {
			t.Errorf("%s: %s %x", p, set, key)
		}
	}
}
