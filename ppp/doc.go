// Package ppp is one PPP link as a pure core: LCP, authentication in both directions, IPCP and IPV6CP.
//
// It implements RFC 1661 (the automaton and LCP), RFC 1334 (PAP), RFC 1994 (CHAP), RFC 2433 and RFC 2759 (MS-CHAP v1 and
// v2), RFC 1332 and RFC 1877 (IPCP), and RFC 5072 (IPV6CP). Everything else is refused in the protocol's own words.
//
// Read link.go first: it holds a Link, its surroundings and its entry points; phases.go walks through the phases of RFC
// 1661 section 3.2. Below them automaton.go is the table of RFC 1661 section 4.1 once for all, control.go the packets around
// it, options.go the negotiation of a list of options; lcp*.go, ipcp*.go and ipv6cp.go are nothing but such lists, one file
// per option. echo.go ends a link whose peer is silent, lookout.go notices it sooner where that can be mended.
//
// A Link has no goroutine, clock or socket. Its owner calls it from one goroutine, passes the time in, and after each call
// (and after each done it calls) looks at Deadline. Only control frames come here: IP packets go past it.
package ppp
