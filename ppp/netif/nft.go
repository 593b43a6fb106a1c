package netif

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// What little of nf_tables' netlink protocol a table of our own takes.

var host = binary.NativeEndian

// nftSocket is a socket of nf_tables. A table made as owned belongs to it, and goes with it.
type nftSocket struct {
	fd  int
	seq uint32
}

// nftMessage is one request.
type nftMessage struct {
	kind, flags uint16 // NFT_MSG_*, NLM_F_*
	body        []byte
}

func dialNFT() (*nftSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	tv := unix.NsecToTimeval(int64(answerTimeout))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	return &nftSocket{fd: fd}, nil
}

func (s *nftSocket) close() { unix.Close(s.fd) }

// commit makes all the changes to tables of the family, or none.
func (s *nftSocket) commit(family uint8, msgs ...nftMessage) error {
	first := s.seq + 1
	b := s.append(nil, unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	for i, m := range msgs {
		if i == len(msgs)-1 {
			m.flags |= unix.NLM_F_ACK // errors come by themselves, and before it
		}
		b = s.append(b, unix.NFNL_SUBSYS_NFTABLES<<8|m.kind, m.flags, family, 0, m.body)
	}
	last := s.seq
	b = s.append(b, unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	if err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	in := make([]byte, 8192)
	for {
		n, from, err := unix.Recvfrom(s.fd, in, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("no answer from the kernel: %w", err)
		}
		if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != 0 {
			continue
		}
		for m := in[:n]; len(m) >= unix.NLMSG_HDRLEN; {
			size := int(host.Uint32(m))
			if size < unix.NLMSG_HDRLEN || size > len(m) {
				break
			}
			seq := host.Uint32(m[8:])
			if host.Uint16(m[4:]) == unix.NLMSG_ERROR && seq-first <= last-first && size >= unix.NLMSG_HDRLEN+4 {
				if code := int32(host.Uint32(m[unix.NLMSG_HDRLEN:])); code < 0 {
					return syscall.Errno(-code)
				} else if seq == last {
					return nil
				}
			}
			m = m[min((size+3)&^3, len(m)):]
		}
	}
}

func (s *nftSocket) append(b []byte, kind, flags uint16, family uint8, subsystem uint16, body []byte) []byte {
	s.seq++
	b = host.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+4+len(body)))
	b = host.AppendUint16(b, kind)
	b = host.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = host.AppendUint32(b, s.seq)
	b = append(b, 0, 0, 0, 0, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, subsystem)
	return append(b, body...) // attributes are padded already
}

// attr appends one attribute, padded; nest one that consists of attributes.
func attr(b []byte, kind uint16, data []byte) []byte {
	b = host.AppendUint16(b, uint16(unix.NLA_HDRLEN+len(data)))
	b = host.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

func nest(b []byte, kind uint16, attrs ...[]byte) []byte {
	var inside []byte
	for _, a := range attrs {
		inside = append(inside, a...)
	}
	return attr(b, kind|unix.NLA_F_NESTED, inside)
}

func text(kind uint16, s string) []byte { return attr(nil, kind, append([]byte(s), 0)) }
func be32(kind uint16, v uint32) []byte {
	return attr(nil, kind, binary.BigEndian.AppendUint32(nil, v))
}
func value(kind uint16, v []byte) []byte { return nest(nil, kind, attr(nil, unix.NFTA_DATA_VALUE, v)) }

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// expr is one expression of a rule.
func expr(name string, attrs ...[]byte) []byte {
	return nest(nil, unix.NFTA_LIST_ELEM, text(unix.NFTA_EXPR_NAME, name), nest(nil, unix.NFTA_EXPR_DATA, attrs...))
}

const nftReg1, nftReg2 = unix.NFT_REG_1, unix.NFT_REG_2

func loadMeta(key uint32) []byte {
	return expr("meta", be32(unix.NFTA_META_KEY, key), be32(unix.NFTA_META_DREG, nftReg1))
}

func equals(v ...byte) []byte {
	return expr("cmp", be32(unix.NFTA_CMP_SREG, nftReg1), be32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ), value(unix.NFTA_CMP_DATA, v))
}
