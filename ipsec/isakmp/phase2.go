package isakmp

// Phase 2 attribute types (RFC 2407 section 4.5, RFC 4304 section 2, RFC 4359).
const (
	P2LifeType     = 1
	P2LifeDuration = 2
	P2Group        = 3 // values are those of P1Group
	P2Encap        = 4
	P2Auth         = 5
	P2KeyLength    = 6 // in bits
	P2KeyRounds    = 7
	P2CompressDict = 8
	P2CompressPriv = 9
	P2ECNTunnel    = 10
	P2ESN          = 11
	P2AuthKeyLen   = 12
	P2SigEncoding  = 13
)

// P2Encap values: encapsulation modes (RFC 2407 section 4.5, RFC 3947 section 5.1; the private ones belong to NAT-T
// drafts 00 to 03).
const (
	EncapTunnel            = 1
	EncapTransport         = 2
	EncapUDPTunnel         = 3
	EncapUDPTransport      = 4
	EncapUDPTunnelDraft    = 61443
	EncapUDPTransportDraft = 61444
)

// P2Auth values: authentication algorithms (RFC 2407 section 4.5, RFC 4868, RFC 3566, RFC 4543).
const (
	AuthHMACMD5    = 1
	AuthHMACSHA1   = 2
	AuthDESMAC     = 3
	AuthKPDK       = 4
	AuthHMACSHA256 = 5
	AuthHMACSHA384 = 6
	AuthHMACSHA512 = 7
	AuthHMACRIPEMD = 8
	AuthAESXCBC    = 9
	AuthAESGMAC128 = 11
	AuthAESGMAC192 = 12
	AuthAESGMAC256 = 13
)

// ESP transform identifiers (RFC 2407 section 4.4.4, RFC 3602, RFC 3686, RFC 4106, RFC 4309, RFC 4543; IANA).
const (
	ESPDESIV64     = 1
	ESPDES         = 2
	ESP3DES        = 3
	ESPRC5         = 4
	ESPIDEA        = 5
	ESPCAST        = 6
	ESPBlowfish    = 7
	ESP3IDEA       = 8
	ESPDESIV32     = 9
	ESPRC4         = 10
	ESPNull        = 11
	ESPAES         = 12
	ESPAESCTR      = 13
	ESPAESCCM8     = 14
	ESPAESCCM12    = 15
	ESPAESCCM16    = 16
	ESPAESGCM8     = 18
	ESPAESGCM12    = 19
	ESPAESGCM16    = 20
	ESPCamellia    = 22
	ESPNullAESGMAC = 23
	// ESPChaCha20Poly1305 is of the numbers for private use: RFC 7634 has one for IKEv2 only. It means this cipher between
	// peers that both send VendorCulvert.
	ESPChaCha20Poly1305 = 250
)

var espNames = names[uint64]{
	{ESPDESIV64, "des-iv64"}, {ESPDES, "des"}, {ESP3DES, "3des"}, {ESPRC5, "rc5"}, {ESPIDEA, "idea"}, {ESPCAST, "cast"},
	{ESPBlowfish, "blowfish"}, {ESP3IDEA, "3idea"}, {ESPDESIV32, "des-iv32"}, {ESPRC4, "rc4"}, {ESPNull, "null"},
	{ESPAES, "aes-cbc"}, {ESPAESCTR, "aes-ctr"}, {ESPAESCCM8, "aes-ccm-8"}, {ESPAESCCM12, "aes-ccm-12"}, {ESPAESCCM16, "aes-ccm-16"},
	{ESPAESGCM8, "aes-gcm-8"}, {ESPAESGCM12, "aes-gcm-12"}, {ESPAESGCM16, "aes-gcm-16"}, {ESPCamellia, "camellia-cbc"},
	{ESPNullAESGMAC, "null-aes-gmac"}, {ESPChaCha20Poly1305, "chacha20-poly1305"},
}

// Phase2 is the attribute space of AH, ESP and IPCOMP.
var Phase2 = &Space{name: "phase 2", infos: []attributeInfo{
	P2LifeType:     {"life-type", KindBasic, lifeNames},
	P2LifeDuration: {"life-duration", KindVariable, nil},
	P2Group:        {"group", KindBasic, groupNames},
	P2Encap: {"encapsulation", KindBasic, names[uint64]{
		{EncapTunnel, "tunnel"}, {EncapTransport, "transport"}, {EncapUDPTunnel, "udp-tunnel"}, {EncapUDPTransport, "udp-transport"},
		{EncapUDPTunnelDraft, "udp-tunnel-draft"}, {EncapUDPTransportDraft, "udp-transport-draft"},
	}},
	P2Auth: {"auth", KindBasic, names[uint64]{
		{AuthHMACMD5, "hmac-md5"}, {AuthHMACSHA1, "hmac-sha1"}, {AuthDESMAC, "des-mac"}, {AuthKPDK, "kpdk"},
		{AuthHMACSHA256, "hmac-sha256"}, {AuthHMACSHA384, "hmac-sha384"}, {AuthHMACSHA512, "hmac-sha512"},
		{AuthHMACRIPEMD, "hmac-ripemd"}, {AuthAESXCBC, "aes-xcbc"}, {AuthAESGMAC128, "aes-128-gmac"},
		{AuthAESGMAC192, "aes-192-gmac"}, {AuthAESGMAC256, "aes-256-gmac"},
	}},
	P2KeyLength:    {"key-length", KindBasic, nil},
	P2KeyRounds:    {"key-rounds", KindBasic, nil},
	P2CompressDict: {"compress-dictionary-size", KindBasic, nil},
	P2CompressPriv: {"compress-private", KindVariable, nil},
	P2ECNTunnel:    {"ecn-tunnel", KindBasic, names[uint64]{{1, "allowed"}, {2, "forbidden"}}},
	P2ESN:          {"esn", KindBasic, names[uint64]{{1, "64-bit"}, {0, "32-bit"}}},
	P2AuthKeyLen:   {"auth-key-length", KindVariable, nil},
	P2SigEncoding:  {"signature-encoding", KindBasic, nil},
}}
