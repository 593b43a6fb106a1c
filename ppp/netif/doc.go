// Package netif is the one user of rtnetlink for point-to-point interfaces, of the kernel's ppp_generic or a TUN:
// names, MTU, addresses, routes, IPv6 switches, counters. Every operation states what shall be, and doing it twice
// changes nothing. Errors name the interface and, where a person can help, how.
//
// Read netif.go first, then interface.go and route.go.
package netif
