// Package engine has the kernel's ESP use the ciphers that are fastest on this machine: the processor's, or a crypto
// engine's.
//
// XFRM cannot name a driver. It asks for a name such as "echainiv(authenc(hmac(sha1),cbc(aes)))" and gets the registered
// implementation with the highest priority, or else one built out of parts chosen in the same way; and priorities are
// what authors of drivers believe. Some engines lose to the processor on the small packets that acknowledgements are, some
// drop packets, some hang. So [Open] finds the chains of drivers that could do each suite in use, passes packets through a
// pair of SAs of its own in a network namespace of its own, over each chain in turn, compares what comes out with
// hwcrypto's software, takes the time, and then lifts the priority of the best chain above the others. What has lost or
// failed is not touched, so that other users of the engine keep it. [Engines.Close] puts back what was there.
//
// An engine that works at the start may break later. [Engines.Check] tests those in use again, when there is a reason to:
// the kernel counts errors of its ciphers (XfrmOutStateProtoError, XfrmInStateProtoError), or peers go silent. What is
// broken is left as if it had lost, and SAs in use have to be made anew, for the kernel keeps what they were made with.
//
// What was measured, and what has been changed, is in a file: the next start on the same board and kernel measures
// nothing, and one after a crash first restores.
//
// Files: engine.go (steering), measure.go (choice), watch.go (engines that break), loop.go (the SAs and packets), state.go (the file). Who
// makes the SAs is the caller's business: this package does not know XFRM's messages.
package engine
