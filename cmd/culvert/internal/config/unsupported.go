package config

// feature is a part of the documented configuration that this version does not do. Its keys are read and checked; using
// them is reported, so that nobody believes in a setting that does nothing. Building one means deleting its line here and
// the calls that name it.
type feature string

const (
	featureRADIUS    feature = "RADIUS: users are those of [ppp.secret]"
	featureMPPE      feature = "MPPE encryption: IPsec encrypts (use-ipsec = \"required\")"
	featurePrefixes  feature = "delegating IPv6 prefixes"
	featureBCP       feature = "bridging over PPP (BCP)"
	featureRate      feature = "rate limits"
	featureMultilink feature = "multilink PPP (mrru)"
	featureFastPath  feature = "RouterOS's fast path; packets take the kernel's own"
	featureV3        feature = "L2TPv3"
	featureClientV3  feature = "L2TPv3: this tunnel is not dialled"
	featureEther     feature = "Ethernet over L2TPv3: this tunnel is not made"
)

const notYet = "not supported by this version yet: "

// unsupported goes on without the feature; unsupportedFatal refuses, because going on without it would give up security
// that was asked for, or serve nobody.
func (t *table) unsupported(key string, f feature) {
	t.add(Unsupported, t.line(key), key, "%s%s", notYet, f)
}

func (t *table) unsupportedFatal(key string, f feature) {
	t.add(Fatal, t.line(key), key, "%s%s", notYet, f)
}
