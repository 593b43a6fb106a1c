// Package xfrm is the ipsec.Backend of the Linux kernel: states, policies and reports over NETLINK_XFRM
// (linux/xfrm.h; RFC 4301 calls them SAD and SPD). It speaks netlink itself, because the marks with masks, output marks,
// in-place updates and NAT mapping reports that several clients behind one NAT need are what libraries leave out.
//
// Every client has a mark (ipsec.Mark). Its inbound SAs stamp the mark on what they decrypt; its outbound SAs and
// policies apply to packets that carry the mark. The request id of all of them is made from the mark, in a range of our
// own: that is how a template demands "an SA of this client", and how a restarted daemon knows what its predecessor left.
//
// Read backend.go first, then sa.go and policy.go for what is asked of the kernel, wire.go for how it is written.
package xfrm
