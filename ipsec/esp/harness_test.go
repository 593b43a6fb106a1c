package esp

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
)

const markA, markB = ipsectest.MarkA, ipsectest.MarkB

// end is a Backend whose socket is a list and whose upper layer is another.
type end struct {
	*Backend
	now  time.Time
	sent []wirePacket
	up   []delivery
}

type wirePacket struct {
	path   ipsec.Path // as the sender sees it
	packet []byte
}

type delivery struct {
	mark          ipsec.Mark
	local, remote netip.AddrPort
	payload       string
}

func newEnd(t testing.TB) *end {
	e := &end{now: time.Unix(1_700_000_000, 0)}
	e.Backend = New(Options{
		SendUDP: func(p ipsec.Path, b []byte) error {
			e.sent = append(e.sent, wirePacket{p, bytes.Clone(b)})
			return nil
		},
		SendRaw: func(local, remote netip.Addr, b []byte) error {
			e.sent = append(e.sent, wirePacket{ipsec.Path{Local: netip.AddrPortFrom(local, 0), Remote: netip.AddrPortFrom(remote, 0)}, bytes.Clone(b)})
			return nil
		},
		Deliver: func(m ipsec.Mark, local, remote netip.AddrPort, payload []byte) {
			e.up = append(e.up, delivery{m, local, remote, string(payload)})
		},
		Now: func() time.Time { return e.now },
	})
	t.Cleanup(func() { e.Close() })
	return e
}

// flip is a path seen from the other end.
func flip(p ipsec.Path) ipsec.Path { return ipsec.Path{Local: p.Remote, Remote: p.Local} }

// take empties the list of what was sent.
func (e *end) take() []wirePacket {
	s := e.sent
	e.sent = nil
	return s
}

func (e *end) receive(ps ...wirePacket) {
	for _, p := range ps {
		e.Receive(flip(p.path), bytes.Clone(p.packet))
	}
}

func (e *end) install(t testing.TB, sas ...ipsec.SA) {
	t.Helper()
	for _, sa := range sas {
		if err := e.Install(sa); err != nil {
			t.Fatal(err)
		}
	}
}

// queued are the events that wait for Serve.
func (e *end) queued() (out []ipsec.Event) {
	for {
		select {
		case ev := <-e.events:
			out = append(out, ev)
		default:
			return out
		}
	}
}

// mirror is the same SA seen from the other end.
func mirror(sa ipsec.SA) ipsec.SA {
	sa.Dir = ipsec.In + ipsec.Out - sa.Dir
	sa.Local, sa.Remote = sa.Remote, sa.Local
	sa.Encap.Local, sa.Encap.Remote = sa.Encap.Remote, sa.Encap.Local
	s := &sa.Selector
	s.Local, s.Remote = s.Remote, s.Local
	s.LocalPort, s.RemotePort = s.RemotePort, s.LocalPort
	return sa
}

// child is one client's SAs as its server sees them, and as the client does.
type child struct{ serverIn, serverOut, clientIn, clientOut ipsec.SA }

// newChild makes up a child SA between a server and a client's address and port; port 0 means plain ESP.
func newChild(m ipsec.Mark, server, client string, port uint16, spiIn, spiOut ipsec.SPI, suite ipsec.Suite) child {
	var c child
	local, remote := netip.MustParseAddr(server), netip.MustParseAddr(client)
	c.serverIn, c.serverOut = ipsectest.Pair(m, local, netip.AddrPortFrom(remote, port), spiIn, spiOut)
	for _, sa := range []*ipsec.SA{&c.serverIn, &c.serverOut} {
		sa.Suite, sa.Keys = suite, ipsectest.Keys(suite, byte(sa.SPI))
		if port == 0 {
			sa.Encap = ipsec.Encap{}
		}
	}
	c.clientIn, c.clientOut = mirror(c.serverOut), mirror(c.serverIn)
	return c
}

const serverAddr, clientAddr = "192.0.2.1", "198.51.100.7"

var serverL2TP, clientL2TP = netip.MustParseAddrPort(serverAddr + ":1701"), netip.MustParseAddrPort(clientAddr + ":1701")

// pair is a server and a client with one encapsulated child.
func pair(t testing.TB, change func(*child)) (server, client *end, c child) {
	t.Helper()
	c = newChild(markA, serverAddr, clientAddr, 40001, 0x1001, 0x80002001, ipsectest.AESSHA1)
	if change != nil {
		change(&c)
	}
	server, client = newEnd(t), newEnd(t)
	server.install(t, c.serverIn, c.serverOut)
	client.install(t, c.clientIn, c.clientOut)
	return server, client, c
}

// say sends text from the client to the server's L2TP port and returns the packet.
func (e *end) say(t testing.TB, text string) wirePacket {
	t.Helper()
	if err := e.SendMessage(markA, clientL2TP, serverL2TP, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return e.take()[0]
}

// craft makes a packet of the client's with any text inside, without the trailer's rules.
func (e *end) craft(t testing.TB, text []byte) wirePacket {
	t.Helper()
	s := e.tables.Load().out[markA]
	packet := make([]byte, s.overhead+len(text))
	copy(packet[s.front:], text)
	s.seq++
	putHeader(packet, uint32(s.id.SPI), uint32(s.seq))
	if err := s.crypt.Seal(packet, s.seq); err != nil {
		t.Fatal(err)
	}
	return wirePacket{s.place.Load().path, packet}
}

func putHeader(p []byte, spi, seq uint32) {
	for i := range 4 {
		p[i], p[4+i] = byte(spi>>(24-8*i)), byte(seq>>(24-8*i))
	}
}

// everySuite is what IKE may propose, and what old Androids insist on.
func everySuite() []ipsec.Suite {
	return append(Suites(), ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA256, ICVBits: 96})
}
