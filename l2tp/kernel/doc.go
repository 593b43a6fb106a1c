// Package kernel is an l2tp.DataPlane in the Linux kernel: l2tp_core and l2tp_ppp strip and push the headers of data
// messages and hand the frames to ppp_generic, so that no packet passes through this process.
//
// A tunnel is a UDP socket, bound to our L2TP port and connected to the peer, which a PPPoL2TP socket with session id 0
// turns into a kernel tunnel; a session is one more PPPoL2TP socket (Documentation/networking/l2tp.rst). That needs neither
// generic netlink nor L2TP_V3. The tunnel's socket carries the mark of the peer's security association, which chooses
// the way out, and gets what the kernel does not take for itself: the peer's control messages, which the plane hands on.
//
// On kernels before 6.11 a data message is looked up by session id alone in the tunnel of whatever socket the packet
// reached; two peers with the same addresses and ports, as behind one NAT, then need their ports rewritten by mark.
//
// Read plane.go first; sockaddr.go is include/uapi/linux/if_pppol2tp.h, system.go the system calls.
package kernel
