// Package nft makes nftables tables that belong to this process: it speaks as much of nf_tables' netlink protocol
// (linux/netfilter/nf_tables.h) as the tables of culvert take, all of the inet family. It is written by hand because the
// libraries do not offer NFT_TABLE_F_OWNER, and weigh five times as much.
//
// A [Table] writes the requests of a transaction, made of expressions; a [Conn] commits them, all or none. [Own] makes a
// table that goes with its Conn, however the process ends, and that a firewall's `flush ruleset` passes over.
//
// Read own.go first, then table.go and expr.go for what can be said, and conn.go for how. chains.go looks at other tables.
package nft
