package config

import (
	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/ipsec/pki"
)

// calls is `[ipsec]` as it counts for the servers that we call. `[ipsec.peer.NAME]` of a client's name says more about its
// server; without one it is the profile and the proposal named default. A server out there accepts what it accepts, so
// what nobody has written is not the default of the peers that call us but tried in several ways: the zero lists of
// ikev1.Dial.
type calls struct {
	profiles  map[string]ikev1.Profile
	proposals map[string]ikev1.Proposal
	peers     map[string]ikev1.Peer
}

func newCalls() calls {
	return calls{
		profiles:  map[string]ikev1.Profile{"default": ikev1.NewServer("", nil).Profile},
		proposals: map[string]ikev1.Proposal{"default": {}},
		peers:     map[string]ikev1.Peer{},
	}
}

// callProfile takes from a profile what is written in it.
func callProfile(t *table, written ikev1.Profile) ikev1.Profile {
	p := ikev1.NewServer("", nil).Profile
	if t.has("enc-algorithm") || t.has("hash-algorithm") || t.has("dh-group") {
		p.Ciphers, p.Hashes, p.Groups = written.Ciphers, written.Hashes, written.Groups
	}
	if t.has("lifetime") {
		p.Lifetime = written.Lifetime
	}
	if t.has("dpd-interval") || t.has("dpd-maximum-failures") {
		p.DPDInterval, p.DPDMaxFailures = written.DPDInterval, written.DPDMaxFailures
	}
	p.NATTraversal = written.NATTraversal
	return p
}

// callProposal likewise.
func callProposal(t *table, written ikev1.Proposal) (p ikev1.Proposal) {
	if t.has("enc-algorithms") || t.has("auth-algorithms") {
		p.Suites = written.Suites
	}
	if t.has("lifetime") {
		p.Lifetime = written.Lifetime
	}
	p.PFS, p.Bytes = written.PFS, written.Bytes
	return p
}

// calls gives each client the peer to call. The peers and identities have been read.
func (r *reader) calls(c *Config, t *table, use calls, known map[string]identity) {
	for i := range c.Clients {
		x := &c.Clients[i]
		id := known[x.Name]
		x.Peer = ikev1.NewServer(x.Name, ipsec.Secret(x.IPsecSecret))
		profile, proposal := "default", "default"
		if own, ok := use.peers[x.Name]; ok {
			x.Peer.Exchange, x.Peer.SendInitialContact = own.Exchange, own.SendInitialContact
			pt := t.sub("peer").sub(x.Name)
			pt.str("profile", &profile)
			pt.str("proposal", &proposal)
		}
		x.Peer.Profile, x.Peer.Proposal = use.profiles[profile], use.proposals[proposal]
		x.Peer.ID, x.Peer.RemoteID = id.mine, id.theirs
		switch {
		case id.signature && x.UseIPsec:
			name := id.name()
			if name == "" {
				name = x.ConnectTo
			}
			x.Peer.Credentials = r.credentials(c, id, pki.Terms{Server: true, Name: name})
			x.Peer.Secret = nil
		case id.signature:
			id.table.warn("", "not used: l2tp.client.%s.use-ipsec is off", quoteKey(x.Name))
		}
		if id.secret != "" && id.secret != string(x.IPsecSecret) {
			t.sub("identity").sub(x.Name).fail("secret", "ipsec-secret in [l2tp.client.%s] says another: write it once", quoteKey(x.Name))
		}
	}
}

// client finds a client by its name.
func (c *Config) client(name string) *Client {
	for i := range c.Clients {
		if c.Clients[i].Name == name {
			return &c.Clients[i]
		}
	}
	return nil
}
