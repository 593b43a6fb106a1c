// Package kernel is the kernel's data path of one PPP link: Linux's ppp_generic through /dev/ppp. The link's Channel is
// attached to a pppol2tp socket and carries LCP and authentication; once the user is in, a Unit makes it a network
// interface, whose IP packets never come up here. What is left for the binary are the control frames of both.
//
// The sequence is the kernel's (Documentation/networking/ppp_generic.rst) and pppd's: PPPIOCGCHAN, PPPIOCATTCHAN; then
// RTM_NEWLINK or PPPIOCNEWUNIT, PPPIOCSMRU, PPPIOCSNPMODE, PPPIOCCONNECT. Read channel.go first, then unit.go.
//
// Everything belongs to the network namespace of the thread that opened it, so a process stays in one namespace.
package kernel
