package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

// Two users with a pre-shared key each, from addresses that say nothing, in main mode and in aggressive mode; with one
// user's key nobody else gets in, and a key that nobody has is refused. IKE fragmentation is tried on the way.
func TestLabUserKeys(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		r := newRig(t, l, rigConfig{Extra: `
[ipsec]
fragment-size = 576

[ipsec.profile.keys]
dh-group = ["modp2048", "modp4096"]

[ipsec.peer.l2tp-in]
exchange-mode = "aggressive"
profile = "keys"

[ppp.secret.ann]
password = "correct horse"
profile = "vpn"
ipsec-secret = "the key of ann"

[ppp.secret.ben]
password = "correct horse"
profile = "vpn"
ipsec-secret = "the key of ben"
`})
		as := func(user, key string) func(*lab.ClientConfig) {
			return func(c *lab.ClientConfig) { c.User, c.IKE.PSK, c.Timeout = user, key, 10*time.Second }
		}
		ann, ben, all := r.client(1, as("ann", "the key of ann")), r.hidden(2, as("ben", "the key of ben")), r.client(3, as("user1", labSecret))
		cat := r.client(4, as("ben", "the key of ben"), func(c *lab.ClientConfig) { c.IKE.Aggressive, c.IKE.LocalID = true, "ben" })
		for _, c := range []*lab.Client{ann, ben, all, cat} {
			r.reaches(c, r.connect(c))
		}
		for _, user := range []string{"ann", "ben"} {
			if !strings.Contains(r.Log(), "user="+user) {
				t.Errorf("the log does not say whose key it is: %s", user)
			}
		}
		for _, c := range []*lab.Client{ann, ben, all, cat} {
			if err := c.Disconnect(t.Context()); err != nil {
				t.Error(err)
			}
		}
		// One whose every message comes in pieces, the first included, and that is answered in pieces.
		split := r.client(6, as("user1", labSecret), func(c *lab.ClientConfig) {
			c.IKE.Proposals, c.IKE.Fragments = "aes256-sha256-modp4096", 150
		})
		wire := r.internet.Capture("client6", func(p lab.Packet) bool { return p.IKE() })
		r.reaches(split, r.connect(split))
		if err := split.Disconnect(t.Context()); err != nil {
			t.Error(err)
		}
		in, out := pieces(wire.Stop())
		t.Logf("%d pieces of messages to the server, %d from it", in, out)
		if in < 8 || out < 2 {
			t.Errorf("the messages did not come in pieces: %d to the server, %d from it", in, out)
		}

		for _, test := range []struct {
			name, user, key string
			words           []string
		}{
			{"another user's key", "ben", "the key of ann", []string{`user \"ben\"`, `user \"ann\"'s`, "alone may log in"}},
			{"the shared user with ann's key", "user1", "the key of ann", []string{`user \"user1\"`, "alone may log in"}},
			{"nobody's key", "ann", "the key of none", []string{"none of the enrolled keys", "keys=3"}},
		} {
			c := r.client(5, as(test.user, test.key))
			before := len(r.Complaints())
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
			if refusal(ctx, c) == nil {
				t.Errorf("%s: %v", test.name, errLetIn)
			}
			cancel()
			l.WaitFor(3*time.Second, func() bool { return len(r.Complaints()) > before })
			c.Disconnect(t.Context())
			c.Kill()
			r.internet.IP("link del client5")
			said := strings.Join(r.Complaints()[before:], "\n")
			for _, w := range test.words {
				if !strings.Contains(said, w) {
					t.Errorf("%s: the log does not say %q: %s", test.name, w, said)
				}
			}
			t.Logf("%s: %s", test.name, said)
		}
	}, lab.Timeout(4*time.Minute))
}
