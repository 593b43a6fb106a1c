package xfrm

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
)

// Lack is something that this kernel cannot do.
type Lack struct {
	Feature string
	Mend    string
	// Fatal says that no SA can be installed at all, so that ESP has to be done in userspace.
	Fatal bool
	Err   error
}

// ProbeError lists what the kernel lacks.
type ProbeError struct{ Lacks []Lack }

func (e *ProbeError) Error() string {
	var s []string
	for _, l := range e.Lacks {
		s = append(s, fmt.Sprintf("%s: %s (%v)", l.Feature, l.Mend, l.Err))
	}
	return "xfrm: the kernel lacks " + strings.Join(s, "; ")
}

func (e *ProbeError) Unwrap() []error {
	var out []error
	for _, l := range e.Lacks {
		out = append(out, l.Err)
	}
	return out
}

// Fatal says whether no Backend can work here.
func (e *ProbeError) Fatal() bool {
	for _, l := range e.Lacks {
		if l.Fatal {
			return true
		}
	}
	return false
}

const (
	trialSPI  ipsec.SPI  = 0xc7c7c7c7
	trialMark ipsec.Mark = 0x10000 // under a mask of its own: no client has it
)

var trialSuite = ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA1, ICVBits: 96}

// trialAddr is nobody's: the loopback network's last address, and one of the discard prefix (RFC 6666).
func trialAddr(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr("100::c7c7:c7c7")
	}
	return netip.MustParseAddr("127.255.255.254")
}

// Probe tries in the kernel whether a Backend can work, by SAs and policies that are removed at once. The error is a
// *ProbeError with the mend for each thing missing; what is not Fatal costs only what it names.
func Probe() error {
	var lacks []Lack
	lack := func(fatal bool, feature, mend string, err error) {
		lacks = append(lacks, Lack{feature, mend, fatal, err})
	}
	b, err := trialBackend()
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT):
		lack(true, "IPsec (CONFIG_XFRM_USER)", "modprobe xfrm_user, or a kernel that has it", err)
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		lack(true, "permission", "run as root or with CAP_NET_ADMIN", err)
	case err != nil:
		lack(true, "netlink", "see the error", err)
	}
	if err != nil {
		return &ProbeError{lacks}
	}
	defer b.kernel.Close()

	for _, v6 := range []bool{false, true} {
		proto, config, module := "IPv4", "CONFIG_INET_ESP", "esp4"
		if v6 {
			proto, config, module = "IPv6", "CONFIG_INET6_ESP", "esp6"
		}
		err := b.try(v6, trialSuite, true)
		switch {
		case err == nil:
		case v6 && errors.Is(err, unix.EAFNOSUPPORT):
			// No IPv6 at all: nothing to protect.
		case errors.Is(err, unix.EPROTONOSUPPORT):
			lack(!v6, "ESP over "+proto+" ("+config+")", "modprobe "+module+", or a kernel that has it", err)
		case errors.Is(err, unix.EPERM):
			lack(true, "permission", "run as root or with CAP_NET_ADMIN", err)
			return &ProbeError{lacks}
		case errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOENT):
			lack(!v6, "AES-CBC with HMAC-SHA1", "modprobe authenc cbc aes hmac sha1 echainiv, or a kernel that has them", err)
		case errors.Is(err, errNoSetMark):
			lack(true, "marks stamped by SAs (XFRMA_SET_MARK_MASK)", "Linux 4.19 or later", err)
		default:
			lack(!v6, "SAs over "+proto, "see the error", err)
		}
	}
	p := markPolicy(b.trialRequest(false, trialSuite))
	if err := b.kernel.do("try a policy", msgNewPolicy, p.append); err != nil && !errors.Is(err, unix.EEXIST) {
		lack(true, "policies with marks", "see the error", err)
	} else if err := b.deletePolicy(p); err != nil {
		lack(true, "policies with marks", "see the error", err)
	}
	if len(lacks) > 0 {
		return &ProbeError{lacks}
	}
	return nil
}

var errNoSetMark = errors.New("xfrm: the kernel ignored the mark to stamp")

// Suites tries in the kernel which suites it has the algorithms for, strongest first. The kernel may load modules for
// them. HMAC-SHA-256 can also be truncated to 96 bits wherever it is listed.
func (b *Backend) Suites() []ipsec.Suite {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []ipsec.Suite
	for _, s := range trials() {
		if err := b.try(false, s, false); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// ESN tries whether the kernel has extended sequence numbers for all that Suites lists: their HMACs need a module more.
func (b *Backend) ESN() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.trialRequest(false, trialSuite)
	r.sa.ESN = true
	err := b.kernel.do("try extended sequence numbers", msgNewSA, r.append)
	return err == nil && b.deleteSA(r.key(), r.reqid) == nil
}

// Suites is Backend.Suites without a Backend; it fails where Probe's error is fatal.
func Suites() ([]ipsec.Suite, error) {
	b, err := trialBackend()
	if err != nil {
		return nil, err
	}
	defer b.kernel.Close()
	if err := b.try(false, trialSuite, true); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	return b.Suites(), nil
}

// trialBackend can do nothing but try.
func trialBackend() (*Backend, error) {
	kernel, err := dial()
	if err != nil {
		return nil, err
	}
	return &Backend{kernel: kernel, o: Options{MarkMask: uint32(trialMark)}}, nil
}

// trialRequest is an SA for addresses that are nobody's, under the request id of no mark.
func (b *Backend) trialRequest(v6 bool, s ipsec.Suite) *request {
	addr := trialAddr(v6)
	keys := ipsec.Keys{Enc: make(ipsec.Secret, s.EncLen()), Auth: make(ipsec.Secret, s.AuthLen())}
	for i := range keys.Enc {
		keys.Enc[i] = byte(i) // 3DES: in FIPS mode its three keys must differ
	}
	sa := ipsec.SA{
		Dir: ipsec.In, SPI: trialSPI, Mark: trialMark, Local: addr, Remote: addr,
		Encap: ipsec.Encap{Local: 4500, Remote: 4500}, Mode: ipsec.Transport, Suite: s, Keys: keys,
	}
	return &request{sa: sa, reqid: reqidBase, mask: uint32(trialMark)}
}

// try installs a trial SA and removes it at once.
func (b *Backend) try(v6 bool, suite ipsec.Suite, readBack bool) error {
	r := b.trialRequest(v6, suite)
	if err := b.kernel.do("try "+suite.String(), msgNewSA, r.append); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	var err error
	if readBack {
		var s *state
		if s, err = b.getSA(r.key()); err == nil && s.setMark != (mark{uint32(trialMark), uint32(trialMark)}) {
			err = errNoSetMark
		}
	}
	return errors.Join(err, b.deleteSA(r.key(), r.reqid))
}
