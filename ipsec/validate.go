package ipsec

import (
	"fmt"
	"net/netip"
)

// SAError names the field of an SA that no Backend can install.
type SAError struct {
	ID     SAID
	Field  string
	Reason string
}

func (e *SAError) Error() string {
	return fmt.Sprintf("ipsec: SA %s: %s: %s", e.ID, e.Field, e.Reason)
}

// Validate checks what every Backend demands of an SA before it touches anything, so that all refuse alike.
// The error is an *SAError.
func (sa *SA) Validate() error {
	bad := func(field, format string, args ...any) error {
		return &SAError{ID: sa.ID(), Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case sa.Dir != In && sa.Dir != Out:
		return bad("direction", "%d is neither in nor out", uint8(sa.Dir))
	case sa.SPI < 256:
		return bad("SPI", "0 to 255 are reserved (RFC 4303 section 2.1)")
	case sa.Mark == 0:
		return bad("mark", "zero means no IPsec")
	case !sa.Local.IsValid() || !sa.Remote.IsValid():
		return bad("addresses", "missing")
	case sa.Local.Is4() != sa.Remote.Is4() || sa.Local.Is4In6() || sa.Remote.Is4In6():
		return bad("addresses", "%s and %s are not of one family", sa.Local, sa.Remote)
	case sa.Remote.IsUnspecified() || sa.Remote.IsMulticast() || sa.Local.IsUnspecified() || sa.Local.IsMulticast():
		return bad("addresses", "%s and %s must both be unicast", sa.Local, sa.Remote)
	case (sa.Encap.Local == 0) != (sa.Encap.Remote == 0):
		return bad("encapsulation", "one port is zero")
	case sa.Mode != Transport:
		return bad("mode", "only transport mode carries L2TP (RFC 3193 section 3)")
	case sa.Replay < 0 || sa.Replay > MaxReplay:
		return bad("replay window", "%d is not in 0..%d", sa.Replay, MaxReplay)
	case sa.Selector.Proto == 0 && (sa.Selector.LocalPort != 0 || sa.Selector.RemotePort != 0):
		return bad("selector", "ports without a protocol")
	}
	for _, p := range []struct {
		name   string
		prefix netip.Prefix
	}{{"local selector", sa.Selector.Local}, {"remote selector", sa.Selector.Remote}} {
		if p.prefix.IsValid() && p.prefix.Addr().Is4() != sa.Local.Is4() {
			return bad(p.name, "%s is of another family than the outer addresses", p.prefix)
		}
	}
	if err := sa.Suite.Validate(); err != nil {
		return bad("suite", "%s", err)
	}
	if n := sa.Suite.EncLen(); len(sa.Keys.Enc) != n {
		return bad("encryption key", "%d octets, %s takes %d", len(sa.Keys.Enc), sa.Suite, n)
	}
	if n := sa.Suite.AuthLen(); len(sa.Keys.Auth) != n {
		return bad("integrity key", "%d octets, %s takes %d", len(sa.Keys.Auth), sa.Suite, n)
	}
	return nil
}

// MaxReplay is the largest replay window in packets (Linux: XFRMA_REPLAY_ESN_MAX, in bits).
const MaxReplay = 4096

// Validate says whether the parts of the suite go together.
func (s Suite) Validate() error {
	switch s.Cipher {
	case TripleDES:
		if s.KeyBits != 192 {
			return fmt.Errorf("3des has 192 key bits, not %d", s.KeyBits)
		}
	case AESCBC, AESGCM:
		if s.KeyBits != 128 && s.KeyBits != 192 && s.KeyBits != 256 {
			return fmt.Errorf("AES has 128, 192 or 256 key bits, not %d", s.KeyBits)
		}
	case ChaCha20Poly1305:
		if s.KeyBits != 256 {
			return fmt.Errorf("chacha20-poly1305 has 256 key bits, not %d", s.KeyBits)
		}
	default:
		return fmt.Errorf("unknown cipher %d", uint8(s.Cipher))
	}
	if s.AEAD() {
		if s.Integrity != IntegrityNone {
			return fmt.Errorf("%s brings its own integrity", s)
		}
		if s.ICVBits != 128 {
			return fmt.Errorf("%s has an ICV of 128 bits, not %d", s, s.ICVBits)
		}
		return nil
	}
	hash := s.AuthLen() * 8
	if hash == 0 {
		return fmt.Errorf("%s has no integrity", s)
	}
	// 96 is right for MD5 and SHA1 and what old Androids use with SHA-256; half the hash is RFC 4868.
	if s.ICVBits != 96 && s.ICVBits != hash/2 && s.ICVBits != hash {
		return fmt.Errorf("%s cannot have an ICV of %d bits", s, s.ICVBits)
	}
	return nil
}

// MovedTo returns the SA as it is after its peer's address or port changed: outer addresses, and a selector that named
// the old address, follow. A plain ESP SA ignores the port. The error is an *SAError.
func (sa *SA) MovedTo(remote netip.AddrPort) (SA, error) {
	moved := *sa
	if moved.Selector.Remote.IsValid() && moved.Selector.Remote.IsSingleIP() && moved.Selector.Remote.Addr() == sa.Remote.WithZone("") {
		moved.Selector.Remote = netip.PrefixFrom(remote.Addr(), remote.Addr().BitLen())
	}
	moved.Remote = remote.Addr()
	if sa.Encap != (Encap{}) {
		moved.Encap.Remote = remote.Port()
	}
	return moved, moved.Validate()
}
