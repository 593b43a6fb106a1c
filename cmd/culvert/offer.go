package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/cpu"

	"culvert/hwcrypto"
	"culvert/ipsec"
	"culvert/ipsec/esp"
	"culvert/ipsec/ikev1"
)

// A call whose proposal is not configured offers the suites that every server known has one of. In front of them comes
// AES-GCM where this machine is faster by it: a server that does not know it, as old ones, passes over it (RFC 2408
// section 4.2), and takes one of those behind it as before.

// gcm are the suites that can come first.
var gcm = []ipsec.Suite{
	{Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128},
	{Cipher: ipsec.AESGCM, KeyBits: 256, ICVBits: 128},
}

// worthwhile is by how much GCM must be faster than what is offered first otherwise.
const worthwhile = 1.2

// callSuites are all that such a call can lead to.
func callSuites() []ipsec.Suite { return slices.Concat(gcm, ikev1.CommonSuites()) }

// callOffer is what such a call offers, and why. speed is the throughput of full packets in MB/s, 0 where it is not known;
// then instructions decides: those that the processor has for AES and for GCM's hash, and that are made use of.
func callOffer(speed func(ipsec.Suite) float64, instructions bool) (offer []ipsec.Suite, why string) {
	common := ikev1.CommonSuites()
	base := speed(common[0])
	var first []ipsec.Suite
	for _, s := range gcm {
		if v := speed(s); base > 0 && v > worthwhile*base || (base == 0 || v == 0) && instructions {
			first = append(first, s)
		}
	}
	sort.SliceStable(first, func(i, j int) bool { return speed(first[i]) > speed(first[j]) })
	switch v := speed(gcm[0]); {
	case len(first) > 0 && base > 0 && speed(first[0]) > 0:
		why = fmt.Sprintf("full packets pass at %.3g MB/s, and at %.3g by %s", speed(first[0]), base, common[0])
	case len(first) > 0:
		why = "the processor's instructions for it are in use"
	case base > 0 && v > 0:
		why = fmt.Sprintf("every server has it, and %s passes full packets at %.3g MB/s against %.3g", gcm[0], v, base)
	default:
		why = "every server has it, and no instructions of the processor are in use for AES-GCM"
	}
	return append(first, common...), why
}

// kernelHasGCM says whether the kernel makes use of them: the drivers of C code are called generic.
func kernelHasGCM() bool {
	algs, err := hwcrypto.Discover()
	if err != nil {
		return hasGCM() // it does not tell
	}
	best := hwcrypto.Best(algs, hwcrypto.Suite{Cipher: hwcrypto.AESGCM}.KernelName()).Driver
	return hasGCM() && !strings.Contains(best, "-generic")
}

// hasGCM says whether the processor has instructions for AES and for the multiplication in GCM.
func hasGCM() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.ARM.HasAES && cpu.ARM.HasPMULL || cpu.S390X.HasAESGCM
}

// callOffer is what a call offers now: what is measured may come to be known later.
func (d *daemon) callOffer() ([]ipsec.Suite, string) {
	instructions := hasGCM
	if d.path.esp == inKernel {
		instructions = kernelHasGCM
	}
	return callOffer(func(s ipsec.Suite) float64 {
		h, ok := esp.Suite(s)
		switch {
		case !ok:
			return 0
		case d.path.esp == inUserspace:
			return d.crypto.Speed(h)
		}
		return d.kernelSpeeds[h.KernelName()]
	}, instructions())
}

// kernelSpeeds are the throughputs of full packets that were measured of the kernel's ESP, by the kernel's names.
type kernelSpeeds map[string]float64

const fullPacket = len(hwcrypto.Sizes) - 1
