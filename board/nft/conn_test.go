package nft

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttr(t *testing.T) {
	for n := range 9 {
		b := attr(5, bytes.Repeat([]byte{0xee}, n))
		if len(b)%4 != 0 || len(b) < 4+n || len(b) > 4+n+3 || int(host.Uint16(b)) != 4+n || host.Uint16(b[2:]) != 5 {
			t.Errorf("%d octets: %x", n, b)
		}
	}
}

// reply builds an NLMSG_ERROR.
func reply(seq uint32, code int32, words string) []byte {
	body := host.AppendUint32(nil, uint32(code))
	body = append(body, make([]byte, lenHeader)...) // of the request
	flags := uint16(unix.NLM_F_CAPPED)
	if words != "" {
		flags |= unix.NLM_F_ACK_TLVS
		body = join(body, text(unix.NLMSGERR_ATTR_MSG, words))
	}
	b := host.AppendUint32(nil, uint32(lenHeader+len(body)))
	b = host.AppendUint16(b, unix.NLMSG_ERROR)
	b = host.AppendUint16(b, flags)
	b = host.AppendUint32(b, seq)
	return append(append(b, 0, 0, 0, 0), body...)
}

func TestAnswer(t *testing.T) {
	const first, last = 0xfffffffe, 3 // the sequence numbers have just wrapped
	for _, test := range []struct {
		name string
		b    []byte
		done bool
		err  string
	}{
		{"acknowledged", reply(last, 0, ""), true, "<nil>"},
		{"refused", reply(1, -int32(unix.EEXIST), "not so"), true, "nftables: op: file exists (not so)"},
		{"refused without a word", reply(first, -int32(unix.EPERM), ""), true, "nftables: op: operation not permitted"},
		{"the error stands before the acknowledgement", join(reply(2, -int32(unix.ENOENT), ""), reply(last, 0, "")), true, "nftables: op: no such file or directory"},
		{"of an earlier batch", join(reply(first-1, -int32(unix.ENOENT), ""), reply(last, 0, "")), true, "<nil>"},
		{"only of an earlier batch", reply(first-1, 0, ""), false, "<nil>"},
		{"of one in the middle", reply(0, 0, ""), false, "<nil>"},
		{"nothing", nil, false, "<nil>"},
		{"a length of nothing", make([]byte, lenHeader), true, "nftables: op: netlink message of 0 octets in 16"},
	} {
		done, err := answer("op", test.b, first, last)
		if done != test.done || fmt.Sprint(err) != test.err {
			t.Errorf("%s: %v, %v", test.name, done, err)
		}
		for n := range test.b { // never a success that was cut off
			if done, err := answer("op", test.b[:n], first, last); done && err == nil && n < len(test.b) {
				t.Errorf("%s, cut to %d of %d octets: taken for a success", test.name, n, len(test.b))
			}
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(reply(1, 0, ""))
	f.Add(reply(2, -17, "exists"))
	f.Fuzz(func(t *testing.T, b []byte) { answer("op", b, 1, 9) })
}
