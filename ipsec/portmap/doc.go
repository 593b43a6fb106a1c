// Package portmap lets any number of clients behind one NAT use the same UDP port inside their SAs, as Windows does with
// 1701. Decrypted, their packets have one four-tuple (RFC 3947 section 5.1 shows the like for tunnel mode), and the
// kernel's L2TP would take them all for the first client's. So each client gets a source port of its own: an nftables
// table rewrites the port by the packet's mark, before the packet meets a socket, and back before it is encrypted. That
// is stateless, one map lookup for a packet with L2TP's port and none for another's; connection tracking has no part in
// it. UDP checksums stay right. While no client is behind a NAT there is nothing to rewrite and no chain for it.
//
// The same table holds clients to their own tunnels: from Linux 6.11 on the kernel finds an L2TPv2 session by its ids
// alone, whatever socket received the packet.
//
// The table belongs to this process (NFT_TABLE_F_OWNER, Linux 5.12): it goes when the process ends, however it ends, and
// a firewall's `flush ruleset` passes it over.
//
// Read table.go first, then rules.go for what the table says; board/nft writes it.
package portmap
