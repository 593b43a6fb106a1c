package console

import "strings"

// foreign are menus of RouterOS's that are about things which culvert leaves to the system it runs on. A command in one
// of them gets a line that says who does it, and a script goes on.
var foreign = []struct{ menus, why string }{
	{"ip firewall filter, ip firewall nat, ip firewall mangle, ip firewall raw, ip firewall address-list, ip firewall connection, ip firewall service-port, " +
		"ip firewall layer7-protocol, ipv6 firewall",
		"the firewall is the system's (nft, iptables, fw4): let UDP 500 and 4500 and IP protocol 50 in, and UDP 1701 where IPsec is not required; " +
			"/ip firewall settings set manage=yes is for routers without one of their own, and masquerades users by masquerade="},
	{"certificate", "certificates are PEM files, made with openssl or an ACME client: name them in /ip ipsec identity"},
	{"ip address, ipv6 address, interface ethernet, interface bridge, interface vlan, interface bonding, interface list, interface wireless, interface wifi",
		"addresses and interfaces are the system's; an image that has nothing else has /network interface"},
	{"ip route, ipv6 route, routing", "routes are the system's (ip route); those of a user are routes= in /ppp secret, a client's is add-default-route="},
	{"ip dhcp-server, ip dhcp-client, ip dns, ip arp, ip neighbor, ip settings, ip service, ip proxy, ip upnp, ip cloud, ip smb, ip ssh, ip socks, ip hotspot, " +
		"ip traffic-flow, ipv6 dhcp-client, ipv6 nd, ipv6 settings",
		"this service is the system's"},
	{"interface pptp-server, interface pptp-client, interface sstp-server, interface sstp-client, interface ovpn-server, interface ovpn-client, " +
		"interface pppoe-server, interface pppoe-client, interface ppp-client, interface gre, interface eoip, interface ipip, interface wireguard, interface lte",
		"culvert speaks L2TP and IPsec, no other tunnel"},
	{"queue", "queues are the system's (tc); a user's rate is rate-limit= in /ppp profile"},
	{"system clock, system ntp, system scheduler, system script, system package, system license, system note, system backup, system health, system leds, " +
		"system watchdog, tool, snmp, file, disk, port, special-login, mpls, container",
		"this is the system's"},
	{"ip ipsec mode-config, ip ipsec policy group, ip ipsec key", "not needed for L2TP: PPP gives the addresses"},
}

func plantForeign() {
	for _, f := range foreign {
		for _, path := range strings.Split(f.menus, ", ") {
			words := strings.Fields(path)
			parent := root
			for i := range words {
				known := len(parent.menus)
				m := parent.make(words[i])
				if len(parent.menus) > known && i < len(words)-1 {
					m.foreign = f.why // nothing of ours is in there
				}
				parent = m
			}
			if len(parent.commands) == 0 && len(parent.menus) == 0 {
				parent.foreign = f.why
			}
		}
	}
}
