package config

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"culvert/ipsec/ikev1"
)

const callFile = `
[l2tp.client.out]
connect-to = "vpn.example.com"
user = "u"
password = "p"
use-ipsec = true
ipsec-secret = "0123456789"
`

func loadText(t *testing.T, text string) (*Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "culvert.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(file)
}

// What is written of [ipsec] counts for calls too, and what is not leaves the lists of what servers accept.
func TestCalls(t *testing.T) {
	bare := ikev1.NewServer("out", []byte("0123456789"))
	for _, c := range []struct {
		name, more string
		want       func(p *ikev1.Peer)
	}{
		{"nothing", "", func(*ikev1.Peer) {}},
		{"default profile", "[ipsec.profile.default]\nlifetime = \"2h\"\ndpd-interval = \"10s\"\nnat-traversal = false", func(p *ikev1.Peer) {
			p.Profile.Lifetime, p.Profile.DPDInterval, p.Profile.DPDMaxFailures, p.Profile.NATTraversal = 2*time.Hour, 10*time.Second, 5, false
		}},
		{"algorithms", "[ipsec.profile.default]\ndh-group = [\"modp4096\"]\n[ipsec.proposal.default]\npfs-group = \"ecp256\"", func(p *ikev1.Peer) {
			d := DefaultProfile()
			p.Profile.Ciphers, p.Profile.Hashes, p.Profile.Groups = d.Ciphers, d.Hashes, []ikev1.Group{ikev1.MODP4096}
			p.Proposal.PFS = ikev1.ECP256
		}},
		{"of its own", "[ipsec.peer.out]\nexchange-mode = \"aggressive\"\nsend-initial-contact = false\nproposal = \"x\"\n[ipsec.proposal.x]\nlifetime = \"20m\"\nenc-algorithms = [\"aes-128-gcm\"]\nauth-algorithms = []\n[ipsec.identity.out]\nmy-id = \"fqdn:branch.example.com\"", func(p *ikev1.Peer) {
			p.Exchange, p.SendInitialContact, p.ID = ikev1.Aggressive, false, "branch.example.com"
			p.Proposal = ikev1.Proposal{Lifetime: 20 * time.Minute, Suites: suites(phase2Ciphers[2:3], nil)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := loadText(t, callFile+c.more)
			if err != nil {
				t.Fatal(err)
			}
			want := bare
			if c.want(&want); !reflect.DeepEqual(cfg.Clients[0].Peer, want) {
				t.Errorf("got  %+v\nwant %+v", cfg.Clients[0].Peer, want)
			}
			if len(cfg.IPsec.Peers) != 0 {
				t.Errorf("a server to call is taken for one that calls: %+v", cfg.IPsec.Peers)
			}
		})
	}
	if _, err := loadText(t, callFile+"[ipsec.identity.out]\nsecret = \"another secret\""); err == nil {
		t.Error("two secrets for one server")
	}
}
