// Package netlink is what all of the kernel's netlink families have in common (RFC 3549, linux/netlink.h): a socket to the
// kernel, messages with their attributes, and how a request ended. What the families say is their packages' business.
package netlink
