package isakmp

import "net/netip"

// ParseNATOA reads the body of a NAT-OA payload, the address its sender believes an end to have (RFC 3947 section 5.2;
// the drafts have the same form).
func ParseNATOA(body []byte) (netip.Addr, error) {
	if len(body) < 4 {
		return netip.Addr{}, malformed(PayloadNATOA, "body length", len(body), 8)
	}
	t := IDType(body[0])
	if t != IDIPv4 && t != IDIPv6 {
		return netip.Addr{}, &Error{Payload: PayloadNATOA, Problem: "identity type not an address", Have: int(t), Want: -1, Notify: InvalidIDInformation}
	}
	a, ok := addrOf(t == IDIPv4, body[4:])
	if !ok || t == IDIPv6 && len(body) != 20 {
		return netip.Addr{}, malformed(PayloadNATOA, t.String()+" address length", len(body)-4, t.length())
	}
	return a, nil
}

// AppendNATOA writes the body of a NAT-OA payload. addr must be valid.
func AppendNATOA(b []byte, addr netip.Addr) []byte {
	return IDFromAddr(addr, 0, 0).Append(b)
}

// NATT is a dialect of NAT traversal: the numbers that differ between RFC 3947 and its drafts.
type NATT struct {
	D, OA                       PayloadType
	EncapTunnel, EncapTransport uint16 // values of P2Encap
}

var (
	// NATTRFC3947 is the standard (sections 3.2, 5.1 and 5.2).
	NATTRFC3947 = NATT{PayloadNATD, PayloadNATOA, EncapUDPTunnel, EncapUDPTransport}
	// NATTDraft03 is draft-ietf-ipsec-nat-t-ike-00 to -03.
	NATTDraft03 = NATT{PayloadNATDDraft, PayloadNATOADraft, EncapUDPTunnelDraft, EncapUDPTransportDraft}
	// NATTDraft08 is draft-ietf-ipsec-nat-t-ike-04 to -08, which took payload numbers that GDOI has.
	NATTDraft08 = NATT{PayloadSAK, PayloadSAT, EncapUDPTunnel, EncapUDPTransport}
)
