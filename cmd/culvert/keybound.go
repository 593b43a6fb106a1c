package main

import (
	"fmt"

	"culvert/ipsec"
	"culvert/l2tp"
	"culvert/ppp/aaa"
)

// keyHolder is the user whose own pre-shared key the tunnel's SAs were made with; empty for the key that all share.
func (d *daemon) keyHolder(via l2tp.Via) string {
	if c := d.clients[ipsec.Mark(via)]; c != nil {
		return c.info.User
	}
	return ""
}

// keyBound lets nobody but one user in: a tunnel made with a user's own pre-shared key is that user's.
type keyBound struct {
	aaa.Authenticator
	user string
}

// Authenticate asks whoever knows, and holds the user that it names against the key's. The name as it was sent would not
// do: it may have a domain in front.
func (b keyBound) Authenticate(req aaa.Request, done func(*aaa.Grant, *aaa.Reject)) {
	b.Authenticator.Authenticate(req, func(g *aaa.Grant, r *aaa.Reject) {
		if g == nil || g.User == b.user {
			done(g, r)
			return
		}
		user := g.User
		g.Release()
		done(nil, &aaa.Reject{Code: aaa.NoDialin, Text: fmt.Sprintf(
			"user %q: the tunnel's pre-shared key is user %q's, who alone may log in over it: give the device this user's ipsec-secret", user, b.user)})
	})
}
