package lab

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A SoftEther is SoftEther VPN server on a node: a second L2TP/IPsec server that nobody here wrote. Its ESP, L2TP and PPP all
// run in one process in userspace; from the kernel it wants UDP sockets, and a TAP device by which the node's own network
// reaches the clients. All that it keeps lies in the node's own /var and /run, and vanishes with them.
type SoftEther struct {
	*Node
	Local netip.Addr // the node's own address inside; clients need a route to it, because PPP names another, 1.0.0.1

	server *Daemon
}

const (
	softEtherServer  = "/usr/libexec/softether/vpnserver/vpnserver"
	softEtherCommand = "/usr/libexec/softether/vpncmd/vpncmd"
	softEtherTap     = "tap_lab"
)

// SoftEtherServer starts SoftEther as a server on a node. Of IKE it takes the pre-shared key alone (it agrees to what the
// client proposes; an empty key makes it serve plain L2TP), of LNS all but the authentication method and MTU: it offers
// MS-CHAPv2 and PAP.
func SoftEtherServer(n *Node, ike IKE, lns LNS) *SoftEther {
	n.lab.Helper()
	local, err := netip.ParseAddr(lns.Local)
	n.lab.Must(err, "SoftEther's own address")
	first, last, _ := strings.Cut(lns.Pool, "-")
	// What gives out the addresses is a virtual host on the virtual hub, with an address of its own: the one after the pool.
	end, err := netip.ParseAddr(last)
	n.lab.Must(err, "SoftEther's pool")

	for _, dir := range []string{"/run/softether", "/var/lib/softether", "/var/log/softether"} {
		n.WriteFile(dir+"/.keep", "")
	}
	n.WriteFile("/etc/resolv.conf", "") // it looks for its maker's services on the Internet all the time
	s := &SoftEther{Node: n, Local: local, server: n.Daemon("softether", softEtherServer, "execsvc")}
	const admin = "5555"
	if !n.lab.WaitFor(time.Minute, func() bool { return !s.server.Running() || n.listens(netip.IPv4Unspecified(), admin) }) || !s.server.Running() {
		n.lab.Fatalf("SoftEther did not start: %s", lastLines(s.server.Log(), 5))
	}

	commands := []string{
		"HubCreate LAB /PASSWORD:",
		"KeepDisable",
		"BridgeCreate LAB /DEVICE:" + strings.TrimPrefix(softEtherTap, "tap_") + " /TAP:yes",
		"Hub LAB",
		"LogDisable packet", "LogDisable security",
		fmt.Sprintf("SecureNatHostSet /MAC:none /IP:%v /MASK:255.255.255.0", end.Next()),
		fmt.Sprintf("DhcpSet /START:%s /END:%s /MASK:255.255.255.0 /EXPIRE:7200 /GW:%v /DNS:none /DNS2:none /DOMAIN:none /LOG:no", first, last, local),
		"SecureNatEnable", "NatDisable",
	}
	for name, password := range lns.Users {
		commands = append(commands, "UserCreate "+name+" /GROUP:none /REALNAME:none /NOTE:none", "UserPasswordSet "+name+" /PASSWORD:"+password)
	}
	if ike.PSK != "" {
		commands = append(commands, fmt.Sprintf("IPsecEnable /L2TP:yes /L2TPRAW:no /ETHERIP:no /PSK:%q /DEFAULTHUB:LAB", ike.PSK))
	} else {
		commands = append(commands, "IPsecEnable /L2TP:no /L2TPRAW:yes /ETHERIP:no /PSK:none /DEFAULTHUB:LAB")
	}
	n.lab.Must(s.configure(admin, commands...), "configure SoftEther")
	port := 1701
	if ike.PSK != "" {
		port = 4500
	}
	if !n.lab.WaitFor(time.Minute, func() bool { return n.listensUDP(port) && len(n.Interfaces(softEtherTap)) > 0 }) {
		n.lab.Fatalf("SoftEther does not listen on port %d, or has no %s", port, softEtherTap)
	}
	n.IP("address add "+lns.Local+"/24 dev "+softEtherTap, "link set "+softEtherTap+" up")
	return s
}

// configure runs commands of vpncmd in the server.
func (s *SoftEther) configure(port string, commands ...string) error {
	const file = "/run/softether/commands"
	s.WriteFile(file, strings.Join(commands, "\n")+"\n")
	out, err := s.Node.Command(s.lab.Context(), softEtherCommand, "localhost:"+port, "/SERVER", "/IN:"+file).CombinedOutput()
	// After a command that failed it goes on with the next one.
	if err != nil || strings.Contains(string(out), "Error occurred") {
		return fmt.Errorf("vpncmd: %v: %s", err, lastLines(string(out), 60))
	}
	return nil
}

// listensUDP reports whether somebody has bound a UDP port.
func (n *Node) listensUDP(port int) bool {
	b, err := n.ReadFile("/proc/thread-self/net/udp")
	return err == nil && strings.Contains(string(b), fmt.Sprintf(":%04X 00000000:0000 ", port))
}

// Stop ends the server.
func (s *SoftEther) Stop() {
	// The process started here only watches the one that serves; its signal handler ends both.
	s.server.Stop()
	s.Node.Kill()
}

// Memory returns the resident memory of the server's processes in octets.
func (s *SoftEther) Memory() (total int64) {
	for _, pid := range s.Processes() {
		total += procMemory(pid, "status", "VmRSS:")
	}
	return total
}

// CPU returns the processor time that the server's processes have used.
func (s *SoftEther) CPU() (total time.Duration) {
	for _, pid := range s.Processes() {
		total += cpuTime(pid)
	}
	return total
}
