package ikev1

import "time"

// Bounds. Each protects memory or processor time from peers that have not proved anything, or too little.
const (
	maxMessage      = 16 << 10 // octets; the largest known message without certificates is under 1 KiB
	maxFirst        = 4 << 10  // octets of a first message, which is kept in part while the exchange is half open
	maxPerAddress   = 64       // half-open exchanges from one address (IPv6: one /64)
	maxPhase1       = 4        // ISAKMP SAs of one client
	maxChildren     = 16       // child SA pairs of one client
	maxOpenQuick    = 8        // quick modes in progress under one ISAKMP SA
	maxClients      = 8192     // clients in all
	maxSeen         = 512      // message ids remembered by one ISAKMP SA
	maxResend       = 8        // how often a cached reply is sent again
	maxBadAuth      = 8        // wrong fifth messages heard out before an exchange is left to time out
	exchangeBurst   = 64       // Diffie-Hellman exchanges of one source (budgets), and then
	exchangeRate    = 8        // a second
	loudBurst       = 4        // answers to aggressive mode that are longer than the question, and then
	loudRate        = 0.2      // a second
	halfOpenTimeout = 30 * time.Second
	computeTimeout  = 30 * time.Second
)

// bucket lets through a burst, then a steady rate.
type bucket struct {
	burst   float64
	rate    float64 // per second
	level   float64 // what has been used up
	at      time.Time
	refused uint64 // since the last that was let through
}

// take says whether one more may pass.
func (b *bucket) take(now time.Time) bool {
	if d := now.Sub(b.at); d > 0 {
		b.level = max(0, b.level-d.Seconds()*b.rate)
		b.at = now
	}
	if b.level+1 > b.burst {
		b.refused++
		return false
	}
	b.level++
	return true
}
