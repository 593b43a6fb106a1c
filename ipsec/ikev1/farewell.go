package ikev1

import (
	"fmt"
	"strings"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// Farewell is what a client has to be told should this daemon die without a goodbye: the Delete messages of its SAs
// (RFC 2408 section 3.15), sealed in advance. The next run of the daemon sends them, so that the client does not talk to
// a dead SA until its own dead peer detection. It holds no key, and is of no other use to whoever reads it.
type Farewell struct {
	Mark     ipsec.Mark
	Path     ipsec.Path
	Messages [][]byte // to be sent in this order
	Of       string   // names the SAs and the path that it is about: when this changes another one is due
}

// Farewells calls changed for every client with SAs whose Farewell is another than the one known, and then returns.
func (e *Engine) Farewells(known func(ipsec.Mark) (of string), changed func(Farewell)) {
	for mark, c := range e.clients {
		of := c.estate()
		if of == "" || of == known(mark) {
			continue
		}
		f := Farewell{Mark: mark, Path: c.newest().path, Of: of}
		spis := make([][]byte, len(c.children))
		for i, ch := range c.children {
			spis[i] = be32(uint32(ch.in))
		}
		if len(spis) > 0 {
			d := isakmp.Delete{DOI: isakmp.DOIIPsec, Protocol: isakmp.ProtoESP, SPIs: spis}
			if msg, _ := c.newest().prepared(isakmp.Payload{Type: isakmp.PayloadDelete, Body: d.Append(nil)}); msg != nil {
				f.Messages = append(f.Messages, msg)
			}
		}
		for _, sa := range c.phase1s {
			if sa.state != stateEstablished {
				continue
			}
			if msg, _ := sa.prepared(sa.deletion()); msg != nil {
				f.Messages = append(f.Messages, msg)
			}
		}
		changed(f)
	}
}

// Alive says whether a mark is that of a client, with SAs or about to have some.
func (e *Engine) Alive(m ipsec.Mark) bool { return e.clients[m] != nil }

// estate names all that a client has here; empty without an ISAKMP SA to seal messages with.
func (c *client) estate() string {
	sa := c.newest()
	if sa == nil || sa.state != stateEstablished {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v", sa.path)
	for _, sa := range c.phase1s {
		fmt.Fprintf(&b, " %s", sa.id.responder)
	}
	for _, ch := range c.children {
		fmt.Fprintf(&b, " %s", ch.in)
	}
	return b.String()
}
