// Package firewall is culvert's own table in the router's firewall, `inet culvert-firewall`: it lets the key exchange, ESP
// and L2TP in, drops L2TP that did not come out of an SA where it has to, and what comes from banned addresses before
// anybody looks at it, and masquerades users who leave through certain interfaces. Its counters show what arrives.
//
// A verdict of accept is no more than this table's: a packet that another table drops is dropped. So it goes with a
// firewall that lets in what nobody forbids, or with none. One that forbids by policy (OpenWrt's fw4, ufw, firewalld) has
// to let IKE and ESP in by rules of its own.
//
// The table goes with the process, and changes as a whole (see board/nft).
package firewall
