// Package hwcrypto protects ESP packets (RFC 4303) with whatever does it fastest on this machine: Go's own ciphers, which
// use the processor's instructions where it has some, or the kernel's ciphers over AF_ALG, and through them a crypto engine.
//
// A [Provider] makes a [Transform] for one direction of one security association; a Transform seals and opens whole packets
// in place. [Open] probes the providers, and each must pass the known answers of kat.go before it is used. [Providers.Choose]
// measures them and says which is taken and why. What [Providers.New] returns goes on with the next provider when one fails
// at run time, with the very packet it failed on.
//
// AF_ALG costs two system calls for a packet and is being closed to engines by newer kernels: it is one candidate, never a
// requirement. It is asked for one packet at a time. The other way it has, many requests under way at once (io_submit, each
// on an operation socket of its own, for the IV belongs to the socket), was built and measured, 8 and 32 at a time: a batch
// of 32 mostly takes a half to a fifth of the time of one after the other. Microseconds of processor time for a packet, by
// software, by AF_ALG one at a time and by 32, with 64 and with 1400 octets, AES-128-CBC with SHA-1:
//
//	user-mode Linux 6.12, C code                0.6, 44, 22     5.4, 94, 52
//	QEMU ARMv8, virtio-crypto as the engine     11, 1080, 460   80, 2190, 430
//	QEMU ARMv7, the same                        9, 840, 760     96, 1410, 480
//	QEMU MIPS 24Kc, little-endian, the same     23, 640, 240    220, 450, 240
//	QEMU MIPS 24Kc, big-endian, the same        43, 460, 140    370, 1070, 300
//
// The machine was busy: the ratios count, not the times. A batch wins nowhere on small packets, and on full ones only on MIPS,
// where it does 0.9 and 1.2 times what software does (with AES-128-GCM, the kernel's C code against Go's, 1.4 and 2.2 times).
// That takes 32 full packets at hand in one direction, on a kernel that has AF_ALG and AIO and no ESP of its own: left out.
// [Discover] tells what the kernel has, over NETLINK_CRYPTO or from /proc/crypto, and [Chains] in what ways it
// could do an algorithm. Package engine makes the kernel's own ESP take the best of them.
//
// Suites: RFC 3602 (AES-CBC), RFC 2451 (3DES), RFC 2403, 2404 and 4868 (HMACs), RFC 4106 (AES-GCM), RFC 7634
// (ChaCha20-Poly1305). Read provider.go first, then software.go and afalg.go, then failover.go and choose.go.
package hwcrypto
