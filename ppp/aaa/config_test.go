package aaa

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestUsers(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	pool := func(first, last, next string) Pool {
		return Pool{Ranges: []Range{{addr(first), addr(last)}}, Next: next}
	}
	c := Config{
		Pools: map[string]Pool{
			"vpn":   pool("192.168.99.2", "192.168.99.100", "more"),
			"more":  pool("192.168.98.0", "192.168.98.255", "vpn"), // in a circle
			"ours":  pool("10.9.0.1", "10.9.0.9", ""),
			"fresh": pool("10.8.0.1", "10.8.0.9", ""), // nobody's
		},
		Profiles: map[string]Profile{"default": {Local: Source{Pool: "ours"}, Remote: Source{Pool: "vpn"}}, "empty": {}},
		Secrets: map[string]Secret{
			"ann": {Remote: Source{Addr: addr("192.168.99.100")}},
			"ben": {Remote: Source{Addr: addr("192.168.99.101")}, Routes: []Route{{Dst: prefix("192.168.55.7/24")}, {Dst: prefix("0.0.0.0/0")}, {Dst: prefix("172.16.0.0/12")}, {Dst: prefix("fd00::/8")}}},
		},
	}
	var got []string
	for _, r := range c.Users() {
		got = append(got, fmt.Sprintf("%v-%v", r.First, r.Last))
	}
	const want = "172.16.0.0-172.31.255.255 192.168.55.0-192.168.55.255 192.168.98.0-192.168.98.255 192.168.99.2-192.168.99.100 192.168.99.101-192.168.99.101 fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("%s, want\n%s", s, want)
	}
}
