package demo

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// wire counts the IPv4 packets that pass an interface, by two sockets whose filters the kernel runs: one takes IKE and
// ESP, the other everything else. Nothing is read from either; the kernel counts.
type wire struct{ sealed, clear int }

// passed is what a wire has seen.
type passed struct{ sealed, clear uint64 }

// Offsets in an Ethernet frame without VLAN tag, and in the IPv4 packet in it.
const (
	offEtherType = 12
	offIP        = 14
	offFragment  = offIP + 6
	offProtocol  = offIP + 9
)

// filter takes IPv4 that is IKE or ESP, or that is neither. Later fragments count as what their protocol says.
func filter(sealed bool) []unix.SockFilter {
	yes, no := uint32(1), uint32(0)
	if !sealed {
		yes, no = no, yes
	}
	const (
		loadByte, loadHalf, loadHalfX = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, unix.BPF_LD | unix.BPF_H | unix.BPF_IND
		equal, anyBit                 = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		headerLength                  = unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH
		give                          = unix.BPF_RET | unix.BPF_K
	)
	return []unix.SockFilter{
		0:  {Code: loadHalf, K: offEtherType},
		1:  {Code: equal, K: unix.ETH_P_IP, Jf: 14}, // not IPv4: neither
		2:  {Code: loadByte, K: offProtocol},
		3:  {Code: equal, K: unix.IPPROTO_ESP, Jt: 10},
		4:  {Code: equal, K: unix.IPPROTO_UDP, Jf: 10},
		5:  {Code: loadHalf, K: offFragment},
		6:  {Code: anyBit, K: 0x1fff, Jt: 7}, // a later fragment has no ports
		7:  {Code: headerLength, K: offIP},
		8:  {Code: loadHalfX, K: offIP + 2}, // destination port
		9:  {Code: equal, K: 500, Jt: 4},
		10: {Code: equal, K: 4500, Jt: 3},
		11: {Code: loadHalfX, K: offIP}, // source port
		12: {Code: equal, K: 500, Jt: 1},
		13: {Code: equal, K: 4500, Jf: 1},
		14: {Code: give, K: yes},
		15: {Code: give, K: no},
		16: {Code: give, K: 0},
	}
}

// watch begins to count on an interface of the namespace.
func (s *namespace) watch(iface string) (w *wire, err error) {
	w = &wire{-1, -1}
	err = s.do(func() (err error) {
		link, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		for fd, sealed := range map[*int]bool{&w.sealed: true, &w.clear: false} {
			if *fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			program := filter(sealed)
			if err := unix.SetsockoptSockFprog(*fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}); err != nil {
				return err
			}
			unix.SetsockoptInt(*fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0) // what does not fit is counted as well
			if err := unix.Bind(*fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: link.Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.close()
		return nil, fmt.Errorf("listen on %s: %w", iface, err)
	}
	return w, nil
}

// htons turns a number into network order.
func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

// counts are the packets since the last call.
func (w *wire) counts() (p passed) {
	for fd, n := range map[int]*uint64{w.sealed: &p.sealed, w.clear: &p.clear} {
		if st, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			*n = uint64(st.Packets)
		}
	}
	return p
}

func (w *wire) close() {
	for _, fd := range []int{w.sealed, w.clear} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
