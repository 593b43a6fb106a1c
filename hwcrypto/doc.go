// Package hwcrypto protects ESP packets (RFC 4303) with whatever does it fastest on this machine: Go's own ciphers, which
// use the processor's instructions where it has some, or the kernel's ciphers over AF_ALG, and through them a crypto engine.
//
// A [Provider] makes a [Transform] for one direction of one security association; a Transform seals and opens whole packets
// in place. [Open] probes the providers, and each must pass the known answers of kat.go before it is used. [Providers.Choose]
// measures them and says which is taken and why. What [Providers.New] returns goes on with the next provider when one fails
// at run time, with the very packet it failed on.
//
// AF_ALG costs two system calls for a packet and is being closed to engines by newer kernels: it is one candidate, never a
// requirement. [Discover] tells what the kernel has, over NETLINK_CRYPTO or from /proc/crypto, and [Chains] in what ways it
// could do an algorithm. Package engine makes the kernel's own ESP take the best of them.
//
// Suites: RFC 3602 (AES-CBC), RFC 2451 (3DES), RFC 2403, 2404 and 4868 (HMACs), RFC 4106 (AES-GCM), RFC 7634
// (ChaCha20-Poly1305). Read provider.go first, then software.go and afalg.go, then failover.go and choose.go.
package hwcrypto
