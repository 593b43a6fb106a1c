package ikev1

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// Calling a server ourselves. Dial gives a mark at once, so that traffic can be held back until the SAs stand, and then
// everything a client does is done until ClosePeer: phase 1 with the lists of offers one after the other, phase 2 without
// and then with perfect forward secrecy, both renewed in good time, and done again where the server has let one go.

// Dial says whom to call, and how.
type Dial struct {
	// Peer is the server; its Remote is not looked at. A profile without Ciphers stands for what the servers out there
	// accept: a list of today's algorithms first and one of the old ones (3DES, MODP1024) if the server refuses it or
	// keeps silent. A proposal without Suites is the same for phase 2. With PFS 0 it is tried without perfect forward
	// secrecy and, refused, with the group of phase 1. NewServer makes such a Peer.
	Peer Peer
	// Path is our address and the server's, with the ports that IKE begins on (500); both must be specific.
	Path ipsec.Path
	// LocalPort is the UDP port that L2TP will send from; 0 lets the SAs carry any. The server's is 1701.
	LocalPort uint16
	// ID is how we show ourselves where the peer has no Credentials: empty for our address, "name@domain", "host.domain", an address, or "keyid:" and text.
	ID string
}

// NewServer returns a Peer to dial of which no more is known than the secret.
func NewServer(name string, secret ipsec.Secret) Peer {
	return Peer{
		Name: name, Secret: secret, Exchange: Main, SendInitialContact: true,
		Profile: Profile{Lifetime: defaultLifetime, NATTraversal: true, DPDInterval: 30 * time.Second, DPDMaxFailures: 4},
	}
}

// DialCause tells the ways apart in which a call fails.
type DialCause uint8

const (
	DialNoAnswer    DialCause = iota + 1 // nothing came back
	DialSilence                          // the server answered, and then stopped
	DialRefused                          // it refused with an error that has no cause of its own here
	DialNoProposal                       // no common phase 1 proposal
	DialSecret                           // the pre-shared keys differ, or the server has none for us
	DialNoSuite                          // no common phase 2 proposal
	DialSelector                         // the server does not let UDP 1701 through its SAs
	DialBackend                          // our own data plane refuses the SAs
	DialHungUp                           // the server ended it before the SAs stood
	DialCertificate                      // the server's certificate is refused, or it refuses ours
)

var dialCauses = [...]string{"", "no answer", "silence", "refused", "no common proposal", "secret", "no common suite", "selector", "data plane", "hung up", "certificate"}

func (c DialCause) String() string {
	if int(c) < len(dialCauses) {
		return dialCauses[c]
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// DialError is why a call failed, in words for an operator.
type DialError struct {
	Cause  DialCause
	Notify isakmp.NotifyType // what the server refused with, 0 where it did not
	Reason string            // what happened, and what mends it
}

func (e *DialError) Error() string { return e.Reason }

// dialing is a call, from Dial to its PeerDown.
type dialing struct {
	client   *client
	peer     Peer
	path     ipsec.Path // as asked for
	port     uint16
	id       []byte // our identification payload
	offers   [][]phase1Choice
	next     int // of offers, the one in use
	suites   []ipsec.Suite
	pfs      Group
	pfsTried bool
	trying   *phase1 // phase 1 in progress
	timer    timer   // when something lost is done again
	wait     time.Duration
	losses   int
	lostAt   time.Time
	pressed  time.Time // until then PPP waits for a renewal
	over     bool
	told     bool // PeerDown has been called
}

const (
	mendDelay    = time.Second      // a server that leaves takes back one SA after the other
	firstBackoff = 10 * time.Second // between attempts to renew
	maxBackoff   = 2 * time.Minute
	maxLosses    = 4                // times in a row that a server may accept an SA and take it back at once
	steady       = 2 * time.Minute  // an SA that lasted so long was no failure
	phase1Old    = 30 * time.Second // how long an ISAKMP SA stays beside its successor
	// pressing is how long PPP goes on asking once it has missed an answer (RouterOS asks five times, a second apart).
	pressing = 5 * time.Second
	// aggressivePause lets the server digest message 3: strongSwan drops a quick mode that overtakes it.
	aggressivePause = 200 * time.Millisecond
)

var (
	errDialPath     = errors.New("ikev1: dial: both addresses must be given, of one family and unicast, with a port on the server's side")
	errDialSecret   = errors.New("ikev1: dial: no pre-shared key")
	errDialID       = errors.New("ikev1: dial: an identity has 1 to 255 octets")
	errDialOffer    = errors.New("ikev1: dial: the profile and the proposal leave nothing to offer")
	errDialMark     = errors.New("ikev1: dial: no free mark")
	errDialShutdown = errors.New("ikev1: dial: the engine is closed")
)

// Dial calls a server and keeps the connection up until ClosePeer, or until the server ends it or is dead. The mark is
// valid at once. PeerUp tells that the SAs stand; PeerDown, once and always, that the mark is free again. An error means
// that the call cannot even be tried.
func (e *Engine) Dial(now time.Time, d Dial) (ipsec.Mark, error) {
	e.at = now
	path := unmap(d.Path)
	local, remote := path.Local.Addr(), path.Remote.Addr()
	switch {
	case e.closed:
		return 0, errDialShutdown
	case !path.Valid() || local.Is4() != remote.Is4() || local.IsUnspecified() || remote.IsUnspecified() ||
		local.IsMulticast() || remote.IsMulticast() || path.Remote.Port() == 0 || path.Local.Port() == 0:
		return 0, errDialPath
	case len(d.Peer.Secret) == 0 && d.Peer.Credentials == nil:
		return 0, errDialSecret
	}
	id, err := parseIdentity(d.ID, local)
	if err != nil {
		return 0, err
	}
	if cred := d.Peer.Credentials; cred != nil && d.Peer.Exchange != Aggressive {
		id = cred.ID // what the certificate says, nothing else would be believed
	}
	c := &dialing{peer: d.Peer, path: path, port: d.LocalPort, id: id.Append(nil)}
	c.offers = offers(&c.peer)
	c.suites = c.peer.Proposal.Suites
	if len(c.suites) == 0 {
		c.suites = e.can(commonSuites)
		c.peer.Proposal.Suites = c.suites
	}
	if len(c.offers) == 0 || c.offers[0][0].method == noMethod || c.peer.Proposal.PFS != 0 && c.peer.Proposal.PFS.publicLen() == 0 {
		return 0, errDialOffer
	}
	c.pfs = c.peer.Proposal.PFS
	mark, ok := e.newMark()
	if !ok || len(e.clients) >= maxClients {
		return 0, errDialMark
	}
	c.client = &client{e: e, mark: mark, key: clientKey{remote: path.Remote}, path: path, idBody: []byte{0, 0, 0, 0}, peer: &c.peer, since: now, touched: now, dial: c}
	c.client.alive.fire = c.client.keepalive
	c.timer.fire = c.resume
	e.clients[mark] = c.client
	e.log.Info("calling", "mark", mark, "server", path.Remote, "peer", c.peer.Name)
	c.begin(now)
	e.flush()
	return mark, nil
}

// parseIdentity reads Dial.ID.
func parseIdentity(s string, local netip.Addr) (id isakmp.ID, err error) {
	if s == "" {
		return isakmp.IDFromAddr(local, 0, 0), nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return isakmp.IDFromAddr(a.WithZone(""), 0, 0), nil
	}
	id.Type = isakmp.IDFQDN
	if key, ok := strings.CutPrefix(s, "keyid:"); ok {
		id.Type, s = isakmp.IDKeyID, key
	} else if strings.Contains(s, "@") {
		id.Type = isakmp.IDUserFQDN
	}
	if len(s) == 0 || len(s) > 255 {
		return id, errDialID
	}
	id.Data = []byte(s)
	return id, nil
}

// dialedPeer is the server that we have called at this address and port, for it may renew phase 1 itself.
func (e *Engine) dialedPeer(remote netip.AddrPort, aggressive bool) *Peer {
	for _, c := range e.clients {
		if c.dial != nil && c.up && c.path.Remote == remote && aggressive == (c.peer.Exchange == Aggressive) {
			return c.peer
		}
	}
	return nil
}

// begin starts phase 1 with the list of offers whose turn it is.
func (d *dialing) begin(now time.Time) {
	if d.over || d.trying != nil {
		return
	}
	e := d.client.e
	ci, err := e.cookie()
	if err != nil {
		e.log.Error("no random numbers", "error", err)
		d.again(now)
		return
	}
	sa := &phase1{
		e: e, id: cookies{initiator: ci}, aggressive: d.peer.Exchange == Aggressive, path: d.path, arrival: d.path.Local.Port(),
		peer: &d.peer, dial: d, offer: d.offers[d.next],
	}
	sa.expiry.fire, sa.retry.fire, sa.renew.fire = sa.expire, sa.resend, sa.renewDue
	sa.saBody = phase1Offer(sa.offer, d.peer.Profile.Lifetime).Append(nil)
	e.sas[sa.id], e.ours[ci] = sa, sa
	d.trying = sa
	if sa.aggressive {
		sa.aggressiveCall(now)
		return
	}
	sa.mainCall(now)
}

// failed draws the conclusion from a phase 1 that did not come up: another list, later again, or the end of the call.
func (d *dialing) failed(now time.Time, sa *phase1, err *DialError) {
	sa.decline()
	sa.remove()
	if d.over {
		return
	}
	e := d.client.e
	if d.client.up && len(d.client.children)+len(d.client.phase1s) > 0 {
		e.log.Warn("phase 1 cannot be renewed, trying again", "mark", d.client.mark, "server", d.path.Remote, "problem", err.Reason)
		d.again(now)
		return
	}
	if (err.Cause == DialNoAnswer || err.Cause == DialNoProposal) && d.next+1 < len(d.offers) {
		d.next++
		e.log.Info("calling with other proposals", "mark", d.client.mark, "server", d.path.Remote, "problem", err.Cause, "offered", describeChoices(d.offers[d.next]))
		d.begin(now)
		return
	}
	d.end(now, err)
}

// end gives the call up.
func (d *dialing) end(now time.Time, err *DialError) {
	if d.over {
		return
	}
	c := d.client
	c.e.log.Warn("the call failed: "+err.Reason, "mark", c.mark, "server", d.path.Remote, "peer", d.peer.Name)
	if f := c.e.env.DialFailed; f != nil && !c.up {
		c.e.later(func() { f(c.mark, err) })
	}
	c.goodbye(now, err.Reason)
}

// stop lets nothing be done again.
func (d *dialing) stop() {
	d.over = true
	d.client.e.timers.stop(&d.timer)
	if d.trying != nil {
		d.trying.remove()
	}
}

// again arranges for another attempt, later each time.
func (d *dialing) again(now time.Time) {
	d.wait = min(max(2*d.wait, firstBackoff), maxBackoff)
	d.client.e.timers.set(&d.timer, now.Add(d.client.e.jitter(d.wait)))
}

// soon arranges for another attempt where nothing but a busy worker was in the way.
func (d *dialing) soon(now time.Time) {
	d.client.e.timers.set(&d.timer, now.Add(d.client.e.jitter(mendDelay)))
}

// attach gives an ISAKMP SA that has come up to its client.
func (d *dialing) attach(now time.Time, sa *phase1) {
	c, e := d.client, d.client.e
	e.timers.stop(&sa.retry)
	sa.key, sa.offer, sa.tries, sa.refused = nil, nil, 0, 0
	if sa.out = nil; sa.aggressive {
		sa.out = sa.reply.answer
	}
	d.trying, d.wait = nil, 0
	if e.byKey[c.key] == c {
		delete(e.byKey, c.key)
	}
	if c.path.Remote != sa.path.Remote && len(c.children) > 0 {
		c.move(now, sa.path.Remote)
		delete(e.byKey, c.key)
	}
	c.key, c.idBody = sa.clientKey(), sa.idBody
	if e.byKey[c.key] == nil {
		e.byKey[c.key] = c
	}
	c.adopt(now, sa)
}

// adopted is called for every ISAKMP SA of the server, whoever began it.
func (d *dialing) adopted(now time.Time, sa *phase1) {
	c, e := d.client, d.client.e
	sa.renew.fire = sa.renewDue
	e.timers.set(&sa.renew, now.Add(d.early(sa.lifetime())))
	for _, old := range c.phase1s {
		if old != sa {
			e.timers.set(&old.renew, now.Add(phase1Old))
		}
	}
	for len(c.phase1s) > maxPhase1 {
		old := c.phase1s[0]
		old.sayDelete(now)
		old.remove()
	}
	if len(c.children) == 0 && !d.negotiating() {
		at := now // once the ISAKMP SA is settled
		if sa.aggressive {
			at = now.Add(aggressivePause)
		}
		d.wait = 0
		e.timers.set(&d.timer, at)
	}
}

// early is when to renew what lives for so long: at 80 to 85 %.
func (d *dialing) early(life time.Duration) time.Duration {
	b, err := d.client.e.random(1)
	if err != nil {
		b = []byte{0}
	}
	return life/100*80 + life/100*5/256*time.Duration(b[0])
}

// jitter adds up to a quarter.
func (e *Engine) jitter(d time.Duration) time.Duration {
	b, err := e.random(1)
	if err != nil {
		return d
	}
	return d + d/1024*time.Duration(b[0])
}

// renewDue begins the successor of an ISAKMP SA, or deletes one that has a successor.
func (sa *phase1) renewDue(now time.Time) {
	if sa.client == nil || sa.client.dial == nil || sa.client.dial.over {
		return
	}
	if sa.client.newest() != sa {
		sa.sayDelete(now)
		sa.remove()
		return
	}
	sa.client.dial.begin(now)
}

// negotiating says that a quick mode of ours is under way.
func (d *dialing) negotiating() bool {
	for _, sa := range d.client.phase1s {
		for _, q := range sa.quicks {
			if q.start != nil && q.state != quickDone {
				return true
			}
		}
	}
	return false
}

// lost is told when the last pair or the last ISAKMP SA has gone, and says whether that will be mended.
func (d *dialing) lost(reason string) bool {
	c := d.client
	now := c.e.at
	if d.over {
		return false
	}
	if d.trying != nil || d.negotiating() {
		return true
	}
	if c.up && len(c.children) == 0 && len(c.phase1s) == 0 {
		d.stop() // the server has taken everything back
		return false
	}
	if len(c.children) == 0 && d.timer.pos == 0 {
		if d.losses++; now.Sub(d.lostAt) > steady {
			d.losses = 1
		}
		d.lostAt = now
		if len(c.phase1s) == 0 || d.losses > maxLosses {
			err := &DialError{Cause: DialHungUp, Reason: "the server agreed and took it back at once (" + reason + "): its log knows why"}
			c.e.later(func() { d.end(now, err) })
			return true
		}
	}
	if at := now.Add(c.e.jitter(mendDelay)); (len(c.children) == 0 || len(c.phase1s) == 0) && (d.timer.pos == 0 || at.Before(d.timer.at)) {
		c.e.timers.set(&d.timer, at)
	}
	return true
}

// resume does what is missing: phase 1, or the pair.
func (d *dialing) resume(now time.Time) {
	c := d.client
	sa := c.newest()
	switch {
	case d.over || d.trying != nil:
	case sa == nil || sa.renew.pos == 0: // gone, or overdue
		d.begin(now)
	case len(c.children) == 0 && !d.negotiating():
		if err := sa.quickStart(now, nil); errors.Is(err, errBusy) {
			d.soon(now)
		} else if err != nil {
			c.e.log.Error("no quick mode", "mark", c.mark, "error", err)
			d.again(now)
		}
	}
}
