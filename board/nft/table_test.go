package nft

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// inOrder turns a message written down for a big-endian machine into this machine's: what netlink itself has, lengths and
// types of attributes, is in host order and marked with an h; what nf_tables has is big-endian everywhere.
func inOrder(t *testing.T, golden string) string {
	t.Helper()
	var b []byte
	for _, w := range strings.Fields(golden) {
		raw, err := hex.DecodeString(strings.TrimPrefix(w, "h"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(w, "h") && host.Uint16([]byte{1, 0}) == 1 {
			for i, j := 0, len(raw)-1; i < j; i, j = i+1, j-1 {
				raw[i], raw[j] = raw[j], raw[i]
			}
		}
		b = append(b, raw...)
	}
	return hex.EncodeToString(b)
}

// Written down by hand from linux/netlink.h and linux/netfilter/nf_tables.h.
func TestGolden(t *testing.T) {
	const table Table = "tab"
	for _, test := range []struct {
		name        string
		got         Message
		kind, flags uint16
		want        string
	}{
		{"table", table.with(ownerFlag, nil)[0], 0, 0x600,
			"h0008 h0001 74616200" + // NFTA_TABLE_NAME "tab"
				" h0008 h0002 00000002"}, // NFTA_TABLE_FLAGS: owner
		{"delete table", table.Delete(), 2, 0, "h0008 h0001 74616200"},
		{"chain", table.Chain("c"), 3, 0x400, "h0008 h0001 74616200 h0006 h0003 63000000"},
		{"base chain", table.BaseChain("c", Hook{"nat", unix.NF_INET_POST_ROUTING, PriorityRaw}), 3, 0x400,
			"h0008 h0001 74616200 h0006 h0003 63000000" +
				" h0014 h8004 h0008 h0001 00000004 h0008 h0002 fffffed4" + // hook, priority
				" h0008 h0005 00000001 h0008 h0007 6e617400"}, // policy accept, type
		{"set", table.Set(Set{Name: "s", Key: IPv4Address, Timeouts: true, Size: 4096}), 9, 0x600,
			"h0008 h0001 74616200 h0006 h0002 73000000 h0008 h0004 00000007 h0008 h0005 00000004" +
				" h000c h8009 h0008 h0001 00001000" + // description: size
				" h0008 h0003 00000010 h0008 h000a 00000001"}, // flags: timeout, id
		{"map", table.Set(Set{Name: "s", Key: Mark.Then(Port), Data: Port}), 9, 0x600,
			"h0008 h0001 74616200 h0006 h0002 73000000 h0008 h0004 000004cd h0008 h0005 00000008" +
				" h0008 h0006 0000000d h0008 h0007 00000002 h0008 h0003 00000008 h0008 h000a 00000001"},
		{"element with a timeout", table.Add("s", Element{Key: []byte{192, 0, 2, 7}, Timeout: 60000}), 12, 0x600,
			"h0008 h0001 74616200 h0006 h0002 73000000" +
				" h0020 h8003 h001c h8001" + // elements, one
				" h000c h8001 h0008 h0001 c0000207" + // key
				" h000c h0004 000000000000ea60"}, // timeout
		{"interval", table.Add("s", Element{Key: []byte{10, 0, 0, 2}}, Element{Key: []byte{10, 0, 0, 9}, End: true}), 12, 0x600,
			"h0008 h0001 74616200 h0006 h0002 73000000" +
				" h002c h8003 h0010 h8001 h000c h8001 h0008 h0001 0a000002" +
				" h0018 h8001 h000c h8001 h0008 h0001 0a000009 h0008 h0003 00000001"},
		{"flush", table.Flush("s"), 14, 0, "h0008 h0001 74616200 h0006 h0002 73000000"},
		{"rule", table.Rule("c", Protocol(unix.IPPROTO_ESP), Counter(), Drop()), 6, 0xc00,
			"h0008 h0001 74616200 h0006 h0002 63000000" +
				" h0098 h8004" +
				" h0024 h8001 h0009 h0001 6d65746100000000 h0014 h8002 h0008 h0002 00000010 h0008 h0001 00000001" + // meta l4proto
				" h002c h8001 h0008 h0001 636d7000 h0020 h8002 h0008 h0001 00000001 h0008 h0002 00000000 h000c h8003 h0005 h0001 32000000" + // cmp eq
				" h0014 h8001 h000c h0001 636f756e74657200 h0004 h8002" + // counter
				" h0030 h8001 h000e h0001 696d6d65646961746500 0000 h001c h8002 h0008 h0001 00000000 h0010 h8002 h000c h8002 h0008 h0001 00000000"},
		{"masquerade", table.Rule("c", Masquerade()), 6, 0xc00,
			"h0008 h0001 74616200 h0006 h0002 63000000 h0018 h8004 h0014 h8001 h0009 h0001 6d61737100000000 h0004 h8002"},
	} {
		if s, want := hex.EncodeToString(test.got.Body), inOrder(t, test.want); s != want || test.got.Kind != test.kind || test.got.Flags != test.flags {
			t.Errorf("%s: kind %d, flags %#x,\n%s, want kind %d, flags %#x,\n%s", test.name, test.got.Kind, test.got.Flags, s, test.kind, test.flags, want)
		}
	}
}

// kernels stands for nf_tables of some age, where somebody may have a table of the name already.
type kernels struct {
	owners bool // 5.12
	lacks  unix.Errno
	theirs int // tries for which another process owns the table
	there  bool
	flags  uint32
}

func (k *kernels) commit(op string, msgs ...Message) error {
	refuse := func(e unix.Errno) error { return &netlink.Error{Errno: e} }
	if k.theirs > 0 {
		k.theirs--
		return refuse(unix.EPERM)
	}
	for _, m := range msgs {
		switch m.Kind {
		case unix.NFT_MSG_NEWTABLE:
			k.flags = uint32(m.Body[len(m.Body)-1])
			switch {
			case k.lacks != 0:
				return refuse(k.lacks)
			case k.there:
				return refuse(unix.EEXIST)
			case k.flags != 0 && !k.owners:
				return refuse(unix.EINVAL)
			}
			k.there = true
		case unix.NFT_MSG_DELTABLE:
			k.there = false
		}
	}
	return nil
}

func TestOwn(t *testing.T) {
	for _, test := range []struct {
		name string
		k    kernels
		want string
	}{
		{"new", kernels{owners: true}, ""},
		{"the predecessor's is about to go", kernels{owners: true, theirs: 3}, ""},
		{"nobody's", kernels{owners: true, there: true}, ""},
		{"before 5.12", kernels{}, ""},
		{"before 5.12, left by one that was killed", kernels{there: true}, ""},
		{"another's", kernels{owners: true, theirs: 1 << 20}, "another program has the nftables table \"inet tab\""},
		{"no nf_tables", kernels{lacks: unix.EOPNOTSUPP}, "CONFIG_NF_TABLES_INET"},
		{"something else", kernels{lacks: unix.ENOMEM}, "cannot allocate memory"},
	} {
		patience := time.Minute
		if test.k.theirs > 1000 {
			patience = 0
		}
		err := own(test.k.commit, "tab", nil, patience)
		if test.want == "" && (err != nil || !test.k.there || test.k.flags != 0 != test.k.owners) {
			t.Errorf("%s: %v, %+v", test.name, err, test.k)
		}
		if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", test.name, err)
		}
		if lacks := test.k.lacks == unix.EOPNOTSUPP; errors.Is(err, ErrLacking) != lacks {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
