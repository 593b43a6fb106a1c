package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"culvert/ppp/aaa"
)

// ParseDuration reads Go's durations, and days and weeks: "60s", "8h", "1d", "2w3d12h". None is negative.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf(`%q is not a time: write it as "30s", "5m", "8h", "1d" or "2w"`, s)
	if s == "0" {
		return 0, nil
	}
	if s == "" || len(s) > 64 {
		return 0, bad
	}
	var total time.Duration
	rest := s
	// Days and weeks lead; what follows is Go's.
	for rest != "" {
		i := 0
		for i < len(rest) && rest[i] >= '0' && rest[i] <= '9' {
			i++
		}
		if i == 0 || i == len(rest) || rest[i] != 'd' && rest[i] != 'w' {
			break
		}
		n, ok := decimal(rest[:i])
		unit := 24 * time.Hour
		if rest[i] == 'w' {
			unit *= 7
		}
		if !ok || n > int64(forever/unit) {
			return 0, bad
		}
		total += time.Duration(n) * unit
		rest = rest[i+1:]
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || strings.ContainsAny(rest, "+-") {
			if _, ok := decimal(s); ok {
				return 0, fmt.Errorf("%q has no unit: write \"%ss\"", s, s)
			}
			return 0, bad
		}
		total += d
	}
	if total < 0 || total > forever {
		return 0, fmt.Errorf("%q is longer than %s", s, FormatDuration(forever))
	}
	return total, nil
}

// FormatDuration writes what ParseDuration reads, the way RouterOS does: "1d", "2w3d", "1m30s", "300ms", "0s".
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	if d < 0 {
		b.WriteByte('-')
		d = -d
	}
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}} {
		if n := d / u.d; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10) + u.name)
			d -= n * u.d
		}
	}
	if d > 0 {
		b.WriteString(d.String())
	}
	return b.String()
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is %w", s, errNoAddress)
	}
	return a.Unmap(), nil
}

// parsePrefix reads "10.0.0.0/8", or an address that stands for itself.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := parseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network such as 10.0.0.0/8", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has host bits set: write %s", s, p.Masked())
	}
	return p, nil
}

// parseRange reads "a-b", an address, or a network. Of an IPv4 network its first and last address are left out, as they
// are no hosts' (RFC 1122 section 3.2.1.3).
func parseRange(s string) (aaa.Range, error) {
	if first, last, ok := strings.Cut(s, "-"); ok {
		a, err := parseAddr(strings.TrimSpace(first))
		if err != nil {
			return aaa.Range{}, err
		}
		b, err := parseAddr(strings.TrimSpace(last))
		if err != nil {
			return aaa.Range{}, err
		}
		if a.BitLen() != b.BitLen() {
			return aaa.Range{}, fmt.Errorf("%q begins in one protocol and ends in another", s)
		}
		if b.Less(a) {
			return aaa.Range{}, fmt.Errorf("%q ends before it begins: write %s-%s", s, b, a)
		}
		return aaa.Range{First: a, Last: b}, nil
	}
	p, err := parsePrefix(s)
	if err != nil {
		return aaa.Range{}, fmt.Errorf("%q is not a range: write it as 192.0.2.2-192.0.2.99, 192.0.2.0/24 or an address", s)
	}
	r := aaa.RangeOf(p)
	if p.Addr().Is4() && p.Bits() < 31 {
		r.First, r.Last = r.First.Next(), r.Last.Prev()
	}
	return r, nil
}

// parseRoute reads RouterOS's "destination [gateway] [metric]".
func parseRoute(s string) (aaa.Route, error) {
	f := strings.Fields(s)
	if len(f) < 1 || len(f) > 3 {
		return aaa.Route{}, fmt.Errorf(`%q is not a route: write it as "10.1.0.0/24", or with gateway and metric as "10.1.0.0/24 172.16.1.2 1"`, s)
	}
	dst, err := parsePrefix(f[0])
	if err != nil {
		return aaa.Route{}, err
	}
	r := aaa.Route{Dst: dst}
	if len(f) == 2 {
		// The second word is a gateway or a metric: only the former has dots or colons.
		if n, ok := decimal(f[1]); ok && n <= 255 {
			r.Metric = int(n)
			return r, nil
		}
	}
	if len(f) >= 2 {
		if r.Gateway, err = parseAddr(f[1]); err != nil {
			return aaa.Route{}, fmt.Errorf("gateway %w", err)
		}
		if r.Gateway.BitLen() != dst.Addr().BitLen() {
			return aaa.Route{}, fmt.Errorf("gateway %s does not speak the protocol of %s", r.Gateway, dst)
		}
		if r.Gateway.IsUnspecified() {
			r.Gateway = netip.Addr{} // RouterOS: the peer itself
		}
	}
	if len(f) == 3 {
		n, ok := decimal(f[2])
		if !ok || n > 255 {
			return aaa.Route{}, fmt.Errorf("metric %q is not within 0..255", f[2])
		}
		r.Metric = int(n)
	}
	return r, nil
}

// checkRate reads RouterOS's rate limit: rx[/tx] [burst-rx/tx [threshold [time [priority [rate-min]]]]], with k, M and G.
func checkRate(s string) error {
	f := strings.Fields(s)
	if len(f) == 0 {
		return nil
	}
	bad := fmt.Errorf(`%q is not a rate: write it as "10M/2M" (from the client/to the client), k, M or G`, s)
	if len(f) > 6 {
		return bad
	}
	for i, w := range f {
		parts := strings.Split(w, "/")
		if len(parts) > 2 {
			return bad
		}
		for _, p := range parts {
			if i != 3 && i != 4 && p != "" && strings.Contains("kKMG", p[len(p)-1:]) { // burst time and priority are plain
				p = p[:len(p)-1]
			}
			if _, ok := decimal(p); !ok {
				return bad
			}
		}
	}
	return nil
}

// parseMask reads the packet marks that are ours: a number, contiguous, wide enough for a board's clients.
func parseMask(v any) (uint32, error) {
	var n uint64
	switch x := v.(type) {
	case int64:
		if x < 0 {
			return 0, fmt.Errorf("%d is not a mask", x)
		}
		n = uint64(x)
	case string:
		var err error
		if n, err = strconv.ParseUint(x, 0, 64); err != nil {
			return 0, fmt.Errorf(`%q is not a mask such as "0x7fff0000"`, x)
		}
	default:
		return 0, fmt.Errorf(`has to be a mask such as "0x7fff0000"`)
	}
	if n == 0 || n > 1<<32-1 {
		return 0, fmt.Errorf("0x%x is not a mask of 32 bits", n)
	}
	shifted := n
	for shifted&1 == 0 {
		shifted >>= 1
	}
	if shifted&(shifted+1) != 0 {
		return 0, fmt.Errorf("0x%x has gaps: the bits of a mask stand together", n)
	}
	if shifted < 0xff {
		return 0, fmt.Errorf("0x%x leaves room for %d clients: give it 8 bits or more", n, shifted)
	}
	return uint32(n), nil
}
