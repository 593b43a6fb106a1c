package isakmp

// CertEncoding says what a CERT payload holds, and what a CERTREQ payload asks for (RFC 2408 section 3.9).
type CertEncoding uint8

const (
	CertPKCS7           CertEncoding = 1 // a whole chain, as a SignedData without signatures
	CertPGP             CertEncoding = 2
	CertDNSKey          CertEncoding = 3
	CertX509Signature   CertEncoding = 4 // one certificate in DER
	CertX509KeyExchange CertEncoding = 5
	CertKerberos        CertEncoding = 6
	CertCRL             CertEncoding = 7
	CertARL             CertEncoding = 8
	CertSPKI            CertEncoding = 9
	CertX509Attribute   CertEncoding = 10
)

var certEncodingNames = names[CertEncoding]{
	{CertPKCS7, "PKCS #7"}, {CertPGP, "PGP"}, {CertDNSKey, "DNS key"}, {CertX509Signature, "X.509 signature"},
	{CertX509KeyExchange, "X.509 key exchange"}, {CertKerberos, "Kerberos"}, {CertCRL, "CRL"}, {CertARL, "ARL"}, {CertSPKI, "SPKI"},
	{CertX509Attribute, "X.509 attribute"},
}

func (c CertEncoding) String() string { return name(certEncodingNames, c, "certificate encoding") }

// Cert is the body of a CERT payload (RFC 2408 section 3.9), or of a CERTREQ payload (section 3.10), where Data is the
// DER name of an authority; nothing stands for any.
type Cert struct {
	Encoding CertEncoding
	Data     []byte // aliases the input
}

// ParseCert reads the body of a CERT payload, which is never empty.
func ParseCert(body []byte) (Cert, error) {
	if len(body) < 2 {
		return Cert{}, malformed(PayloadCert, "body length", len(body), 2)
	}
	return Cert{CertEncoding(body[0]), body[1:]}, nil
}

// ParseCertRequest reads the body of a CERTREQ payload.
func ParseCertRequest(body []byte) (Cert, error) {
	if len(body) < 1 {
		return Cert{}, malformed(PayloadCertRequest, "body length", len(body), 1)
	}
	return Cert{CertEncoding(body[0]), body[1:]}, nil
}

// Append writes the body.
func (c Cert) Append(b []byte) []byte { return append(append(b, byte(c.Encoding)), c.Data...) }
