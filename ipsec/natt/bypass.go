package natt

import (
	"encoding/binary"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Offsets and values of struct xfrm_userpolicy_info (linux/xfrm.h).
const (
	policySelFamily = 40
	policyLifetime  = 56
	policyDir       = 160
	policyAction    = 161

	policyIn, policyOut = 0, 1
	policyAllow         = 0
)

// bypass exempts a socket from all IPsec policies in both directions: the exchange that makes the SAs cannot wait for
// them. The kernel asks for CAP_NET_ADMIN.
func bypass(fd int, v6 bool) error {
	level, opt := unix.IPPROTO_IP, unix.IP_XFRM_POLICY
	if v6 {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_XFRM_POLICY
	}
	for _, dir := range []byte{policyIn, policyOut} {
		if err := unix.SetsockoptString(fd, level, opt, bypassPolicy(v6, dir)); err != nil {
			return err
		}
	}
	return nil
}

// bypassPolicy is a policy for everything of the family, without templates: let it pass as it is.
func bypassPolicy(v6 bool, dir byte) string {
	// The structure ends in octets; only i386 does not round it up to a multiple of eight.
	n := 168
	if runtime.GOARCH == "386" {
		n = 164
	}
	b := make([]byte, n)
	family := uint16(unix.AF_INET)
	if v6 {
		family = unix.AF_INET6
	}
	binary.NativeEndian.PutUint16(b[policySelFamily:], family)
	copy(b[policyLifetime:], strings.Repeat("\xff", 4*8)) // byte and packet limits: XFRM_INF
	b[policyDir], b[policyAction] = dir, policyAllow
	return string(b)
}
