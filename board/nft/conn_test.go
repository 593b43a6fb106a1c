package nft

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// reply builds an NLMSG_ERROR.
func reply(seq uint32, code int32, words string) []byte {
	body := host.AppendUint32(nil, uint32(code))
	body = append(body, make([]byte, netlink.HeaderLen)...) // of the request
	flags := uint16(unix.NLM_F_CAPPED)
	if words != "" {
		flags |= unix.NLM_F_ACK_TLVS
		body = join(body, text(unix.NLMSGERR_ATTR_MSG, words))
	}
	return netlink.Header{Kind: unix.NLMSG_ERROR, Flags: flags, Seq: seq}.Append(nil, body)
}

func TestAnswer(t *testing.T) {
	const first, last = 0xfffffffe, 3 // the sequence numbers have just wrapped
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"acknowledged", reply(last, 0, ""), "<nil>"},
		{"refused", reply(1, -int32(unix.EEXIST), "not so"), "file exists (not so)"},
		{"refused without a word", reply(first, -int32(unix.EPERM), ""), "operation not permitted"},
		{"the error stands before the acknowledgement", join(reply(2, -int32(unix.ENOENT), ""), reply(last, 0, "")), "no such file or directory"},
		{"of an earlier batch", join(reply(first-1, -int32(unix.ENOENT), ""), reply(last, 0, "")), "<nil>"},
		{"only of an earlier batch", reply(first-1, 0, ""), "no answer"},
		{"of one in the middle", reply(0, 0, ""), "no answer"},
		{"nothing", nil, "no answer"},
		{"a length of nothing", make([]byte, netlink.HeaderLen), "netlink message of 0 octets in 16"},
	} {
		if err := answer(test.b, first, last); fmt.Sprint(err) != test.want {
			t.Errorf("%s: %v", test.name, err)
		}
		for n := range test.b { // never a success that was cut off
			if answer(test.b[:n], first, last) == nil {
				t.Errorf("%s, cut to %d of %d octets: taken for a success", test.name, n, len(test.b))
			}
		}
	}
}

// A chain, as the kernel describes it.
func TestParseChain(t *testing.T) {
	b := join([]byte{unix.NFPROTO_INET, 0, 0, 1}, Table("fw4").BaseChain("input", Hook{"filter", unix.NF_INET_LOCAL_IN, 0}).Body)
	chain, base, err := parseChain(b)
	if err != nil || !base || chain != (BaseChain{unix.NFPROTO_INET, "fw4", "input", unix.NF_INET_LOCAL_IN, false}) || chain.String() != "inet fw4 input" {
		t.Errorf("%+v %v %v", chain, base, err)
	}
	b = join(b, be32(unix.NFTA_CHAIN_POLICY, verdictDrop))
	if chain, _, _ := parseChain(b); !chain.Drop {
		t.Error("its policy is not seen")
	}
	if _, base, err := parseChain(join([]byte{unix.NFPROTO_IPV4, 0, 0, 1}, Table("x").Chain("y").Body)); base || err != nil {
		t.Error(base, err)
	}
	for n := range b {
		parseChain(b[:n])
	}
	if _, _, err := parseChain(b[:7]); err != nil {
		t.Error("less than an attribute's header is padding", err)
	}
	if _, _, err := parseChain(b[:9]); err == nil {
		t.Error("an attribute that was cut short is read")
	}
}

func FuzzParseChain(f *testing.F) {
	f.Add(join([]byte{unix.NFPROTO_INET, 0, 0, 1}, Table("fw4").BaseChain("input", Hook{"filter", unix.NF_INET_LOCAL_IN, 0}).Body))
	f.Fuzz(func(t *testing.T, b []byte) { parseChain(b) })
}

func FuzzAnswer(f *testing.F) {
	f.Add(reply(1, 0, ""))
	f.Add(reply(2, -17, "exists"))
	f.Fuzz(func(t *testing.T, b []byte) { answer(b, 1, 9) })
}
