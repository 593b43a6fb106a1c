package isakmp

// TransformKeyIKE is KEY_IKE, the only transform of protocol ISAKMP (RFC 2407 section 4.4.2).
const TransformKeyIKE = 1

// Phase 1 attribute types (RFC 2409 appendix A).
const (
	P1Encryption   = 1
	P1Hash         = 2
	P1AuthMethod   = 3
	P1Group        = 4
	P1GroupType    = 5
	P1GroupPrime   = 6
	P1GroupGenOne  = 7
	P1GroupGenTwo  = 8
	P1GroupCurveA  = 9
	P1GroupCurveB  = 10
	P1LifeType     = 11
	P1LifeDuration = 12
	P1PRF          = 13
	P1KeyLength    = 14 // in bits; must stand with ciphers of variable key length and only with those
	P1FieldSize    = 15
	P1GroupOrder   = 16
)

// P1Encryption values (RFC 2409 appendix A, RFC 3602, RFC 4312).
const (
	EncDES      = 1
	EncIDEA     = 2
	EncBlowfish = 3
	EncRC5      = 4
	Enc3DES     = 5
	EncCAST     = 6
	EncAES      = 7
	EncCamellia = 8
)

// P1Hash values (RFC 2409 appendix A, IANA ipsec-registry).
const (
	HashMD5    = 1
	HashSHA1   = 2
	HashTiger  = 3
	HashSHA256 = 4
	HashSHA384 = 5
	HashSHA512 = 6
)

// P1AuthMethod values (RFC 2409 appendix A, RFC 4754, draft-ietf-ipsec-isakmp-xauth-06 and
// draft-ietf-ipsec-isakmp-hybrid-auth-05).
const (
	MethodPSK          = 1
	MethodDSS          = 2
	MethodRSA          = 3
	MethodRSAEnc       = 4
	MethodRSARevEnc    = 5
	MethodECDSA256     = 9
	MethodECDSA384     = 10
	MethodECDSA521     = 11
	MethodHybridRSA    = 64221 // HybridInitRSA
	MethodXAUTHInitPSK = 65001
	MethodXAUTHRespPSK = 65002
	MethodXAUTHInitRSA = 65005
	MethodXAUTHRespRSA = 65006
)

// Diffie-Hellman groups, for P1Group and P2Group (RFC 2409 section 6, RFC 3526, RFC 5903, RFC 5114, RFC 8031).
const (
	GroupMODP768  = 1
	GroupMODP1024 = 2
	GroupEC2N155  = 3
	GroupEC2N185  = 4
	GroupMODP1536 = 5
	GroupMODP2048 = 14
	GroupMODP3072 = 15
	GroupMODP4096 = 16
	GroupMODP6144 = 17
	GroupMODP8192 = 18
	GroupECP256   = 19
	GroupECP384   = 20
	GroupECP521   = 21
	GroupX25519   = 31
)

// Life types, for P1LifeType and P2LifeType (RFC 2409 appendix A, RFC 2407 section 4.5).
const (
	LifeSeconds   = 1
	LifeKilobytes = 2
)

var groupNames = names[uint64]{
	{GroupMODP768, "modp768"}, {GroupMODP1024, "modp1024"}, {GroupEC2N155, "ec2n155"}, {GroupEC2N185, "ec2n185"},
	{GroupMODP1536, "modp1536"}, {GroupMODP2048, "modp2048"}, {GroupMODP3072, "modp3072"}, {GroupMODP4096, "modp4096"},
	{GroupMODP6144, "modp6144"}, {GroupMODP8192, "modp8192"}, {GroupECP256, "ecp256"}, {GroupECP384, "ecp384"},
	{GroupECP521, "ecp521"}, {22, "modp1024s160"}, {23, "modp2048s224"}, {24, "modp2048s256"}, {25, "ecp192"}, {26, "ecp224"},
	{GroupX25519, "x25519"}, {32, "x448"},
}

var lifeNames = names[uint64]{{LifeSeconds, "seconds"}, {LifeKilobytes, "kilobytes"}}

// Phase1 is the attribute space of protocol ISAKMP.
var Phase1 = &Space{name: "phase 1", infos: []attributeInfo{
	P1Encryption: {"encryption", KindBasic, names[uint64]{
		{EncDES, "des-cbc"}, {EncIDEA, "idea-cbc"}, {EncBlowfish, "blowfish-cbc"}, {EncRC5, "rc5-cbc"}, {Enc3DES, "3des-cbc"},
		{EncCAST, "cast-cbc"}, {EncAES, "aes-cbc"}, {EncCamellia, "camellia-cbc"},
	}},
	P1Hash: {"hash", KindBasic, names[uint64]{
		{HashMD5, "md5"}, {HashSHA1, "sha1"}, {HashTiger, "tiger"}, {HashSHA256, "sha256"}, {HashSHA384, "sha384"}, {HashSHA512, "sha512"},
	}},
	P1AuthMethod: {"auth", KindBasic, names[uint64]{
		{MethodPSK, "psk"}, {MethodDSS, "dss"}, {MethodRSA, "rsa"}, {MethodRSAEnc, "rsa-enc"}, {MethodRSARevEnc, "rsa-rev-enc"},
		{MethodECDSA256, "ecdsa-256"}, {MethodECDSA384, "ecdsa-384"}, {MethodECDSA521, "ecdsa-521"}, {MethodHybridRSA, "hybrid-rsa"},
		{MethodXAUTHInitPSK, "xauth-psk"}, {MethodXAUTHRespPSK, "xauth-resp-psk"},
		{MethodXAUTHInitRSA, "xauth-rsa"}, {MethodXAUTHRespRSA, "xauth-resp-rsa"},
	}},
	P1Group:        {"group", KindBasic, groupNames},
	P1GroupType:    {"group-type", KindBasic, names[uint64]{{1, "modp"}, {2, "ecp"}, {3, "ec2n"}}},
	P1GroupPrime:   {"group-prime", KindVariable, nil},
	P1GroupGenOne:  {"group-generator-one", KindVariable, nil},
	P1GroupGenTwo:  {"group-generator-two", KindVariable, nil},
	P1GroupCurveA:  {"group-curve-a", KindVariable, nil},
	P1GroupCurveB:  {"group-curve-b", KindVariable, nil},
	P1LifeType:     {"life-type", KindBasic, lifeNames},
	P1LifeDuration: {"life-duration", KindVariable, nil},
	P1PRF:          {"prf", KindBasic, nil},
	P1KeyLength:    {"key-length", KindBasic, nil},
	P1FieldSize:    {"field-size", KindBasic, nil},
	P1GroupOrder:   {"group-order", KindVariable, nil},
}}
