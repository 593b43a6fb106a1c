// Package user is a link's data path for kernels without ppp_generic: a TUN device stands for the PPP interface. IP and
// IPv6 packets go between the TUN and what carries the link's frames (Lower, an L2TP session); all other frames go to
// and from the protocols of package ppp. It is used as package ppp/kernel is: Attach, Serve, OpenUnit, Send, Close.
//
// In: Lower calls deliver on the goroutine that read the datagram, and the packet is written to the TUN from where it
// lies. Out: one goroutine per unit reads the TUN and sends. The kernel gives and takes TCP streams as packets of up to
// 64 KiB where it can (IFF_VNET_HDR and TUNSETOFFLOAD); they are cut here on the way out and joined on the way in,
// because a packet through the kernel's network stack costs far more than a copy.
//
// Read channel.go first, then unit.go, tun.go, segment.go (out) and coalesce.go (in). RFC 1661 section 2, RFC 1332,
// RFC 5072; include/uapi/linux/if_tun.h and virtio_net.h.
package user
