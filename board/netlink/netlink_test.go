package netlink

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMessages(t *testing.T) {
	m := Header{Kind: 7, Flags: 8, Seq: 9}.Append(nil, []byte{1, 2, 3, 4})
	whole := len(m)
	m = Header{Kind: 10}.Append(m, nil)
	read := func(b []byte) (got string, err error) {
		err = Messages(b, func(h Header, body []byte) error {
			got += fmt.Sprintf("%v %x;", h, body)
			return nil
		})
		return got, err
	}
	if got, err := read(m); err != nil || got != "{7 8 9} 01020304;{10 0 0} ;" {
		t.Errorf("%s %v", got, err)
	}
	for n := range m {
		if _, err := read(m[:n]); (err == nil) != (n == 0 || n == whole) {
			t.Errorf("cut to %d of %d octets: %v", n, len(m), err)
		}
	}
	stop := errors.New("stop")
	if err := Messages(m, func(Header, []byte) error { return stop }); err != stop {
		t.Error(err)
	}
}

// Attributes are padded to four octets; a big-endian machine's are read everywhere.
func TestAttributes(t *testing.T) {
	b := AppendAttribute(binary.BigEndian, nil, 5|unix.NLA_F_NESTED, []byte{1, 2, 3})
	b = AppendAttribute(binary.BigEndian, b, 6, nil)
	if s := hex.EncodeToString(b); s != "0007800501020300"+"00040006" {
		t.Error(s)
	}
	got := ""
	read := func(b []byte) error {
		return Attributes(binary.BigEndian, b, func(kind uint16, data []byte) error { got += fmt.Sprintf("%d %x;", kind, data); return nil })
	}
	if err := read(b); err != nil || got != "5 010203;6 ;" {
		t.Error(got, err)
	}
	for n := 4; n < 7; n++ {
		if read(b[:n]) == nil {
			t.Errorf("cut to %d octets and read", n)
		}
	}
}

func TestOutcome(t *testing.T) {
	refused := host.AppendUint32(nil, 0xffffffff-uint32(unix.EEXIST)+1)
	request := Header{Kind: 16}.Append(nil, []byte("keys"))
	text := AppendAttribute(host, nil, unix.NLMSGERR_ATTR_MSG, []byte("taken\x00"))
	const tlvs = unix.NLM_F_ACK_TLVS
	for _, test := range []struct {
		h    Header
		body []byte
		want string
	}{
		{Header{Kind: unix.NLMSG_ERROR}, make([]byte, 4), "<nil>"},
		{Header{Kind: unix.NLMSG_DONE}, nil, "<nil>"},
		{Header{Kind: unix.NLMSG_ERROR}, refused, "file exists"},
		{Header{Kind: unix.NLMSG_ERROR, Flags: tlvs | unix.NLM_F_CAPPED}, bytes.Join([][]byte{refused, request[:HeaderLen], text}, nil), "file exists (taken)"},
		{Header{Kind: unix.NLMSG_ERROR, Flags: tlvs}, bytes.Join([][]byte{refused, request, text}, nil), "file exists (taken)"},
		{Header{Kind: unix.NLMSG_DONE, Flags: tlvs}, bytes.Join([][]byte{refused, text}, nil), "file exists (taken)"},
	} {
		err := Outcome(test.h, test.body)
		if fmt.Sprint(err) != test.want || err != nil && !errors.Is(err, unix.EEXIST) {
			t.Errorf("%v: %v", test.h, err)
		}
		for n := range test.body { // what is cut is the text, not the refusal
			if err := Outcome(test.h, test.body[:n]); n >= 4 && !errors.Is(err, unix.EEXIST) || n < 4 && err == nil && test.h.Kind == unix.NLMSG_ERROR {
				t.Errorf("%v, cut to %d octets: %v", test.h, n, err)
			}
		}
	}
}

// The loopback interface is everywhere, and nobody has to be root to see it.
func TestAsk(t *testing.T) {
	c, err := Dial(unix.NETLINK_ROUTE, time.Second, 16<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := func(index uint32) []byte { // struct ifinfomsg
		b := make([]byte, HeaderLen+unix.SizeofIfInfomsg)
		host.PutUint32(b[HeaderLen+4:], index)
		return b
	}
	for name, test := range map[string]struct {
		flags uint16
		index uint32
		want  bool
	}{"dump": {unix.NLM_F_DUMP, 0, true}, "one": {0, 1, true}, "acknowledged": {unix.NLM_F_ACK, 1, true}, "refused": {unix.NLM_F_ACK, 1 << 30, false}} {
		found := false
		err := c.Ask(unix.RTM_GETLINK, test.flags, request(test.index), func(body []byte) error {
			found = found || len(body) >= unix.SizeofIfInfomsg && host.Uint32(body[4:]) == 1
			return nil
		})
		if found != test.want || test.want != (err == nil) || err != nil && !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s: found %v, %v", name, found, err)
		}
	}
	stop := errors.New("stop")
	if err := c.Ask(unix.RTM_GETLINK, unix.NLM_F_DUMP, request(0), func([]byte) error { return stop }); err != stop {
		t.Error(err)
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(Header{Kind: unix.NLMSG_ERROR, Flags: unix.NLM_F_ACK_TLVS}.Append(nil, bytes.Repeat([]byte{0xff}, 60)))
	f.Fuzz(func(t *testing.T, b []byte) {
		Messages(b, func(h Header, body []byte) error {
			_ = Outcome(h, body)
			return Attributes(host, body, func(uint16, []byte) error { return nil })
		})
	})
}
