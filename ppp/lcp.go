package ppp

import "encoding/binary"

// LCP configuration options (RFC 1661 section 6; the IANA registry for the rest). Those without a file of their own here
// are rejected by not being in the list: quality protocol (4), FCS alternatives (9), callback (13), MRRU (17), short
// sequence numbers (18), endpoint discriminator (19) and everything newer.
const (
	optMRU   = 1
	optACCM  = 2
	optAuth  = 3
	optMagic = 5
	optPFC   = 7
	optACFC  = 8
)

// lcp is the options of LCP with names.
type lcp struct {
	mru   mruOption
	accm  accmOption
	auth  authOption
	magic magicOption
	pfc   compressOption
	acfc  compressOption
}

func newLCP(l *Link) *lcp {
	return &lcp{
		mru:   mruOption{ours: l.cfg.MRU, peer: defaultMRU},
		accm:  accmOption{peer: 0xffffffff},
		auth:  newAuthOption(l),
		magic: magicOption{link: l},
		pfc:   compressOption{number: optPFC},
		acfc:  compressOption{number: optACFC},
	}
}

func (o *lcp) set() optionSet {
	return optionSet{&o.mru, &o.accm, &o.auth, &o.magic, &o.pfc, &o.acfc}
}

// lcpExtra handles the codes that LCP has and the NCPs have not.
func (l *Link) lcpExtra(p packet) bool {
	switch p.code {
	case codeProtRej:
		// RFC 1661 section 5.7: in other states these are discarded.
		if l.lcp.state == Opened && len(p.data) >= 2 {
			l.protocolRejected(Protocol(binary.BigEndian.Uint16(p.data)))
		}
	case codeEchoReq, codeEchoRep, codeDiscard:
		if l.lcp.state == Opened && l.echoReceived(p) {
			l.lcp.handle(l.now, evRXR)
		}
	case codeIdent, codeTimeLeft:
		// Nothing to do, and nothing to complain about: a Code-Reject makes some Windows versions hang up.
	default:
		return false
	}
	return true
}
