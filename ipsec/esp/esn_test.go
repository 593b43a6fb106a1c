package esp

import (
	"fmt"
	"slices"
	"testing"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
)

// TestESN goes on beyond 2^32 packets, in any order and with a loss on the way, and takes no packet twice; without
// extended numbers the SA ends there.
func TestESN(t *testing.T) {
	for _, suite := range []ipsec.Suite{ipsectest.AESSHA1, {Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128}, {Cipher: ipsec.ChaCha20Poly1305, KeyBits: 256, ICVBits: 128}} {
		for _, esn := range []bool{true, false} {
			server, client := newEnd(t), newEnd(t)
			ch := newChild(markA, serverAddr, clientAddr, 40001, 0x1001, 0x2001, suite)
			for _, sa := range []*ipsec.SA{&ch.serverIn, &ch.clientOut} {
				sa.ESN = esn
			}
			server.install(t, ch.serverIn)
			client.install(t, ch.clientOut)
			const start = 1<<32 - 4
			client.all[ch.clientOut.ID()].seq = start
			server.all[ch.serverIn.ID()].window.top = start
			sent := 0
			for i := range 10 {
				buf := make([]byte, Headroom+20, 4096)
				copy(buf[Headroom:], fmt.Sprintf("packet %02d", i))
				if client.Send(markA, clientL2TP, serverL2TP, buf, Headroom) == nil {
					sent++
				}
			}
			packets := client.take()
			if want := map[bool]int{true: 10, false: 3}[esn]; sent != want || len(packets) != want {
				t.Fatalf("%s, ESN %v: %d sent, %d on the wire, want %d", suite, esn, sent, len(packets), want)
			}
			if !esn {
				continue
			}
			slices.Reverse(packets)
			server.receive(packets[1:]...) // one is late, and beyond the change
			server.receive(packets...)
			if len(server.up) != 10 {
				t.Errorf("%s: %d of 10 arrived, drops %+v", suite, len(server.up), server.Drops())
			}
		}
	}
}
