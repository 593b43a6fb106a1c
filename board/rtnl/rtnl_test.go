package rtnl

import (
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is asked for reads back as it was, and is refused where the fixed part is cut.
func TestMessages(t *testing.T) {
	link := append(ifinfo(7, unix.IFF_UP|unix.IFF_RUNNING, 0), Text(unix.IFLA_IFNAME, "eth0")...)
	link = append(append(link, Uint32(unix.IFLA_MTU, 1500)...), Attr(unix.IFLA_ADDRESS, []byte{2, 0, 0, 0, 0, 1})...)
	var counters []byte
	for i := range uint64(24) {
		counters = host.AppendUint64(counters, i<<32|i)
	}
	link = append(link, Attr(unix.IFLA_STATS64, counters)...)
	n := func(i uint64) uint64 { return i<<32 | i }
	for _, test := range []message{
		{link, unix.SizeofIfInfomsg, func(b []byte) (any, error) { return parseLink(b) }, Link{Index: 7, Name: "eth0", Flags: unix.IFF_UP | unix.IFF_RUNNING, MTU: 1500,
			HardwareAddr: []byte{2, 0, 0, 0, 0, 1}, Stats: &Stats{RxPackets: 0, TxPackets: n(1), RxBytes: n(2), TxBytes: n(3), RxDropped: n(6), TxDropped: n(7)}}},
		addr(Addr{Index: 3, Prefix: netip.MustParsePrefix("192.0.2.1/24"), Flags: unix.IFA_F_PERMANENT}),
		addr(Addr{Index: 3, Prefix: netip.MustParsePrefix("192.0.2.1/32"), Peer: netip.MustParsePrefix("192.0.2.9/32")}),
		addr(Addr{Index: 1 << 20, Prefix: netip.MustParsePrefix("fe80::1/64"), Flags: unix.IFA_F_NODAD | unix.IFA_F_MANAGETEMPADDR, Scope: unix.RT_SCOPE_LINK}),
		route(Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.9"), Index: 4, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Flags: unix.RTNH_F_ONLINK}),
		route(Route{Dst: netip.MustParsePrefix("2001:db8::/32"), Index: 4, Metric: 1<<31 - 1, Table: 1000, Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST}),
		{Proxy{5, netip.MustParseAddr("192.0.2.7"), 0xcb}.message(), unix.SizeofNdMsg, func(b []byte) (any, error) { return parseProxy(b) },
			Proxy{5, netip.MustParseAddr("192.0.2.7"), 0xcb}},
	} {
		if got, err := test.parse(test.msg); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%+v %v\nwant %+v", got, err, test.want)
		}
		for cut := range len(test.msg) {
			if _, err := test.parse(test.msg[:cut]); err == nil && cut < test.fixed {
				t.Errorf("%T cut to %d octets and read", test.want, cut)
			}
		}
	}
}

// message is one as the kernel has it, and what is in it.
type message struct {
	msg   []byte
	fixed int
	parse func([]byte) (any, error)
	want  any
}

func addr(a Addr) message {
	return message{a.message(), unix.SizeofIfAddrmsg, func(b []byte) (any, error) { return parseAddr(b) }, a}
}

func route(r Route) message {
	return message{r.message(unix.RTN_UNICAST), unix.SizeofRtMsg, func(b []byte) (any, error) { return parseRoute(b) }, r}
}

// RFC 919: the broadcast address of a network, where it has one.
func TestBroadcast(t *testing.T) {
	for prefix, want := range map[string]string{"192.0.2.1/24": "192.0.2.255", "10.1.2.3/13": "10.7.255.255", "192.0.2.1/30": "192.0.2.3", "192.0.2.1/31": ""} {
		has := strings.Contains(string(Addr{Prefix: netip.MustParsePrefix(prefix)}.message()), string(Attr(unix.IFA_BROADCAST, parseIP(want))))
		if has != (want != "") {
			t.Errorf("%s: no broadcast address %s", prefix, want)
		}
	}
}

func parseIP(s string) []byte {
	a, _ := netip.ParseAddr(s)
	return a.AsSlice()
}

// Any Linux has a loopback link.
func TestKernel(t *testing.T) {
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lo, err := c.LinkByName("lo")
	if err != nil || lo.Name != "lo" || lo.Flags&unix.IFF_LOOPBACK == 0 || lo.MTU == 0 || lo.Stats == nil {
		t.Fatalf("%+v %v", lo, err)
	}
	all, err := c.Links()
	if err != nil || len(all) == 0 || all[0].Name != "lo" {
		t.Errorf("%+v %v", all, err)
	}
	if again, err := c.Link(lo.Index); err != nil || again.Name != "lo" {
		t.Errorf("%+v %v", again, err)
	}
	if _, err := c.Link(1 << 30); !errors.Is(err, unix.ENODEV) {
		t.Error(err)
	}
	if _, err := c.LinkByName("none-such"); !errors.Is(err, unix.ENODEV) {
		t.Error(err)
	}
	if lo.Flags&unix.IFF_UP != 0 {
		addrs, err := c.Addrs(lo.Index, unix.AF_INET)
		if err != nil || len(addrs) == 0 || addrs[0].Prefix.String() != "127.0.0.1/8" {
			t.Errorf("%v %v", addrs, err)
		}
		r, err := c.RouteTo(netip.MustParseAddr("127.0.0.1"), 0)
		if err != nil || r.Type != unix.RTN_LOCAL || r.Index != lo.Index || r.Source.String() != "127.0.0.1" {
			t.Errorf("%+v %v", r, err)
		}
	}
	if _, err := c.Routes(unix.AF_INET, func(r Route) bool { return r.Table == unix.RT_TABLE_MAIN }); err != nil {
		t.Error(err)
	}
	if _, err := c.Proxies(); err != nil {
		t.Error(err)
	}
	if os.Getuid() != 0 {
		if err := c.SetMTU(lo.Index, lo.MTU); !errors.Is(err, unix.EPERM) {
			t.Error(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Addr{Index: 3, Prefix: netip.MustParsePrefix("192.0.2.1/24")}.message())
	f.Add(Route{Dst: netip.MustParsePrefix("192.0.2.0/24"), Metric: 9}.message(1))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseLink(b)
		parseProxy(b)
		if a, err := parseAddr(b); err == nil && a.Prefix.IsValid() {
			a.message()
		}
		if r, err := parseRoute(b); err == nil && r.Dst.IsValid() {
			r.message(0)
		}
	})
}
