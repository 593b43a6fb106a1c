package ikev1

import (
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"culvert/ipsec"
)

// clientKey tells clients apart: those behind one NAT have one address and different ports, and those that a NAT gives
// the same port one after the other have, as a rule, different identities.
type clientKey struct {
	remote netip.AddrPort
	id     string // type and data of the identification payload, without protocol and port
	user   string // whose key it has, empty for the shared one
	signed bool   // it has shown a certificate
}

func keyOf(remote netip.AddrPort, idBody []byte, user string) clientKey {
	return clientKey{remote: remote, id: string(idBody[:1]) + string(idBody[4:]), user: user}
}

func (sa *phase1) clientKey() clientKey {
	key := keyOf(sa.path.Remote, sa.idBody, sa.user)
	key.signed = sa.chosen.method.signed()
	return key
}

// client is who is behind one or several ISAKMP SAs, and what the data path knows as one Mark.
type client struct {
	e        *Engine
	mark     ipsec.Mark
	key      clientKey
	path     ipsec.Path
	idBody   []byte
	certs    [][]byte // its certificate and those above it, where it has shown one
	peer     *Peer
	software string
	phase1s  []*phase1 // the newest last
	children []*child  // the newest last
	up       bool
	since    time.Time
	touched  time.Time // last authenticated message
	alive    timer     // NAT keepalives, while we are behind a NAT
	dial     *dialing  // the server is one that we have called; nil for a client that called us
}

const (
	// contactIdle is how long a client must have been silent before another endpoint of the same address and identity,
	// or an announcement that is also made by clients that rekey, may declare it dead: longer than any keepalive of PPP.
	contactIdle = time.Minute
	// contactBrief is enough where the client says it has no ISAKMP SA, and we have a young one.
	contactBrief      = 10 * time.Second
	childlessTime     = 10 * time.Minute // how long an ISAKMP SA without children is kept
	keepaliveInterval = 20 * time.Second // RFC 3948 section 4
)

// attach finds or makes the client of a newly authenticated ISAKMP SA. contact says that the peer announced by an
// authenticated notification that it has no other (RFC 2407 section 4.6.3.3). False means that there is no room.
func (e *Engine) attach(now time.Time, sa *phase1, contact bool) bool {
	key := sa.clientKey()
	if contact || sa.vendors.initialContact {
		sa.contact = contact
		e.initialContact(now, nil, sa.peer, key, contact)
	}
	c := e.byKey[key]
	if c == nil || !c.trusts(sa.peer) {
		if c = e.newClient(now, sa, key); c == nil {
			return false
		}
	}
	c.adopt(now, sa)
	for len(c.phase1s) > maxPhase1 {
		old := c.phase1s[0]
		old.sayDelete(now)
		old.remove()
	}
	return true
}

// trusts says whether who knows a peer's secret may speak for the client. Nobody but the server itself, by the secret of
// the call, takes over a call of ours.
func (c *client) trusts(p *Peer) bool { return c.dial == nil || p == &c.dial.peer }

// newClient makes a client with a fresh mark; nil if there are too many.
func (e *Engine) newClient(now time.Time, sa *phase1, key clientKey) *client {
	mark, ok := e.newMark()
	if !ok || len(e.clients) >= maxClients {
		e.drops[DropLimit]++
		e.log.Error("too many IPsec clients", "clients", len(e.clients), "remote", sa.path.Remote)
		return nil
	}
	c := &client{e: e, mark: mark, key: key, path: sa.path, idBody: sa.idBody, since: now}
	c.alive.fire = c.keepalive
	e.clients[mark] = c
	e.byKey[key] = c
	return c
}

// newMark takes the next free mark within the mask.
func (e *Engine) newMark() (ipsec.Mark, bool) {
	mask := e.cfg.MarkMask
	size := uint64(1)<<bits.OnesCount32(mask) - 1
	if e.lastMark == 0 {
		b, err := e.random(4)
		if err != nil {
			return 0, false
		}
		e.lastMark = beUint32(b)
	}
	for range min(size, uint64(len(e.clients))+2) {
		e.lastMark++
		m := ipsec.Mark(spread(uint32(uint64(e.lastMark)%size)+1, mask))
		if _, taken := e.clients[m]; !taken {
			return m, true
		}
	}
	return 0, false
}

// spread deposits the low bits of v at the places that are set in mask.
func spread(v, mask uint32) (out uint32) {
	for mask != 0 {
		low := mask & -mask
		if v&1 != 0 {
			out |= low
		}
		v >>= 1
		mask &^= low
	}
	return out
}

// adopt takes an ISAKMP SA in as the newest.
func (c *client) adopt(now time.Time, sa *phase1) {
	sa.client = c
	c.phase1s = append(c.phase1s, sa)
	c.peer, c.certs = sa.peer, sa.certs
	c.path = sa.path
	if s := sa.vendors.software(); s != "" {
		c.software = s
	}
	c.touch(now)
	c.pace(now)
	if sa.localNAT && sa.natt != nil && c.alive.pos == 0 && c.e.env.Keepalive != nil {
		c.e.timers.set(&c.alive, now.Add(keepaliveInterval))
	}
	if c.dial != nil {
		c.dial.adopted(now, sa)
	}
}

func (c *client) touch(now time.Time) { c.touched = now }

// pace gives the ISAKMP SAs their full life while there are children, and a short one otherwise: a client that went away
// without a word would leave them for hours.
func (c *client) pace(now time.Time) {
	for _, sa := range c.phase1s {
		end := sa.since.Add(withGrace(sa.lifetime()))
		if soon := now.Add(childlessTime); len(c.children) == 0 && soon.Before(end) {
			end = soon
		}
		c.e.timers.set(&sa.expiry, end)
	}
}

// keepalive holds our own NAT's mapping open while there is something to receive.
func (c *client) keepalive(now time.Time) {
	c.e.env.Keepalive(c.path)
	c.e.timers.set(&c.alive, now.Add(keepaliveInterval))
}

// forget lets an ISAKMP SA go that has been removed.
func (c *client) forget(sa *phase1) {
	c.phase1s = slices.DeleteFunc(c.phase1s, func(x *phase1) bool { return x == sa })
	if len(c.children) == 0 {
		c.settle("phase 1 deleted")
	} else if c.dial != nil {
		c.dial.lost("phase 1 deleted")
	}
}

// newest is the ISAKMP SA to talk through, nil if there is none: a client may have deleted it and keep its children.
func (c *client) newest() *phase1 {
	if n := len(c.phase1s); n > 0 {
		return c.phase1s[n-1]
	}
	return nil
}

// settle draws the conclusions when something of the client has gone: without children it is down, and without anything
// it is forgotten and its mark free.
func (c *client) settle(reason string) {
	if len(c.children) > 0 || c.dial != nil && c.dial.lost(reason) {
		return
	}
	if c.up || c.dial != nil && !c.dial.told {
		c.up = false
		if c.dial != nil {
			c.dial.told = true
		}
		c.e.log.Info("closed", "mark", c.mark, "remote", c.path.Remote, "reason", reason)
		if f := c.e.env.PeerDown; f != nil {
			c.e.later(func() { f(c.mark, reason) })
		}
	}
	if len(c.phase1s) == 0 && c.e.clients[c.mark] == c {
		delete(c.e.clients, c.mark)
		if c.e.byKey[c.key] == c {
			delete(c.e.byKey, c.key)
		}
		c.e.timers.stop(&c.alive)
	}
}

// drop removes everything of a client without a word to it.
func (c *client) drop(now time.Time, reason string) {
	if c.dial != nil {
		c.dial.stop()
	}
	for len(c.children) > 0 {
		c.children[len(c.children)-1].remove(now, reason)
	}
	c.settle(reason) // for this reason, and not because phase 1 goes too
	for len(c.phase1s) > 0 {
		c.phase1s[len(c.phase1s)-1].remove()
	}
	c.settle(reason)
}

// goodbye tells the client that everything ends, children first, and removes it.
func (c *client) goodbye(now time.Time, reason string) {
	for _, ch := range c.children {
		ch.sayDelete(now)
	}
	for _, sa := range c.phase1s {
		sa.sayDelete(now)
	}
	c.drop(now, reason)
}

// lastHeard is when the client last showed signs of life: an authenticated message or ESP.
func (c *client) lastHeard(now time.Time) time.Time {
	at := c.touched
	for _, ch := range c.children {
		ch.traffic(now)
		if ch.heard.After(at) {
			at = ch.heard
		}
	}
	return at
}

// initialContact drops the former lives of a client: the same public address and identity, at the same port or silent.
// Never by the address alone, for others may be behind the same NAT. The vendor id form (sure is false) is also sent by
// clients whose ISAKMP SA ran out while their children live, so there it takes silence even at the same port.
func (e *Engine) initialContact(now time.Time, except *client, peer *Peer, key clientKey, sure bool) {
	for _, c := range e.clients {
		if c == except || !c.trusts(peer) || c.key.id != key.id || c.key.user != key.user || c.key.signed != key.signed || c.path.Remote.Addr() != key.remote.Addr() {
			continue
		}
		if c.outlived(now, c.path.Remote == key.remote, sure) {
			c.drop(now, "the client began anew")
		}
	}
}

// outlived judges whether what we have of a client is its former life.
func (c *client) outlived(now time.Time, samePort, sure bool) bool {
	if samePort && sure {
		return true
	}
	idle := now.Sub(c.lastHeard(now))
	if samePort && idle >= contactBrief && slices.ContainsFunc(c.phase1s, func(sa *phase1) bool { return now.Sub(sa.since) < sa.lifetime()*9/10 }) {
		return true // it neither ran out nor was deleted: the client has lost it
	}
	return idle >= contactIdle
}

// announced obeys an INITIAL-CONTACT notification that came after phase 1, once: the older ISAKMP SAs and children of
// this client are void, and what follows is a new client with a mark of its own.
func (sa *phase1) announced(now time.Time) {
	if sa.contact {
		return
	}
	sa.contact = true
	e, c := sa.e, sa.client
	key := sa.clientKey()
	e.initialContact(now, c, sa.peer, key, true)
	own := c.dial != nil // the server of a call of ours keeps its mark in any case
	for i := len(c.children) - 1; i >= 0; i-- {
		own = own || c.children[i].maker == sa.id
	}
	if len(c.phase1s) == 1 && len(c.children) == 0 {
		return
	}
	if own { // the announcement was overtaken by a quick mode: keep that and its mark
		for i := len(c.children) - 1; i >= 0; i-- {
			if c.children[i].maker != sa.id {
				c.children[i].remove(now, "the client began anew")
			}
		}
		for i := len(c.phase1s) - 1; i >= 0; i-- {
			if c.phase1s[i] != sa {
				c.phase1s[i].remove()
			}
		}
		return
	}
	c.phase1s = slices.DeleteFunc(c.phase1s, func(x *phase1) bool { return x == sa })
	sa.client = nil
	c.drop(now, "the client began anew")
	if fresh := e.newClient(now, sa, key); fresh != nil {
		fresh.adopt(now, sa)
		return
	}
	sa.remove()
}

// makeRoom sees to it that one more pair fits, at the cost of the oldest that has a successor.
func (c *client) makeRoom(now time.Time) bool {
	if len(c.children) < maxChildren {
		return true
	}
	for _, ch := range c.children[:len(c.children)-1] {
		if ch.state == childActive {
			ch.sayDelete(now)
			ch.remove(now, "too many SAs of one client")
			return true
		}
	}
	return false
}

// heard notes an authenticated message. Where a NAT stands before the peer, its mapping may have changed: a message that
// cannot be a replay moves the client to where it came from.
func (sa *phase1) heard(now time.Time, p ipsec.Path, fresh bool) {
	sa.dpd.failures = 0
	sa.out = nil // message 3 of aggressive mode has arrived
	sa.client.touch(now)
	if fresh && sa.natt != nil && sa.peerNAT && p.Local == sa.path.Local {
		sa.client.move(now, p.Remote)
	}
}

// absorb takes over the ISAKMP SAs of a client with the same key and without a pair: it is the same one, whose NAT moved it
// while it renewed phase 1, and nothing but that came from its new port before.
func (c *client) absorb(now time.Time, d *client) {
	fresh := d.phase1s
	if slices.ContainsFunc(fresh, func(sa *phase1) bool { return len(sa.quicks) > 0 || !c.trusts(sa.peer) }) {
		return // on its way to a pair of its own
	}
	d.phase1s = nil
	d.settle("it is another's renewal")
	c.e.byKey[c.key] = c
	for _, sa := range fresh {
		c.adopt(now, sa)
	}
	for len(c.phase1s) > maxPhase1 {
		old := c.phase1s[0]
		old.sayDelete(now)
		old.remove()
	}
}

// move follows a client to another address or port.
func (c *client) move(now time.Time, remote netip.AddrPort) {
	if remote == c.path.Remote {
		return
	}
	c.e.log.Info("client moved", "mark", c.mark, "from", c.path.Remote, "to", remote)
	if c.e.byKey[c.key] == c {
		delete(c.e.byKey, c.key)
	}
	c.path.Remote = remote
	c.key.remote = remote
	if d := c.e.byKey[c.key]; d == nil {
		c.e.byKey[c.key] = c
	} else if c.dial == nil && d.dial == nil && len(d.children) == 0 {
		c.absorb(now, d)
	}
	for _, sa := range c.phase1s {
		sa.path.Remote = remote
	}
	if len(c.children) == 0 {
		return
	}
	if err := c.e.env.Backend.Move(c.mark, remote); err != nil {
		c.e.log.Error("data plane does not follow a moved client", "mark", c.mark, "to", remote, "error", err)
	}
}
