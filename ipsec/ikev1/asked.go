package ikev1

import (
	"encoding/binary"
	"time"
)

// asked remembers first messages that were not answered, so that their repetition is. Under a flood of messages of which no
// two are alike the list of half-open exchanges is full, and what is let in pushes another out, within less than a round
// trip; but who floods from forged addresses says everything once, and every client repeats itself after one to four
// seconds. So a stranger of a kind that is not known has to ask twice, and stays once it is in.
//
// It is a Bloom filter in two generations: now and then it takes one for another, which lets a stranger in at once.
type asked struct {
	young, old []uint64
	since      time.Time // when the young generation began
}

const (
	askedBits = 1 << 20          // in each generation, 128 KiB, while there is a flood
	askedLife = 8 * time.Second  // of a generation; a repetition counts for as long, or for twice that
	askedIdle = 60 * time.Second // without a flood, until its memory is given back
)

// before says whether a message was there before, by a hash of it that nobody can foresee, and remembers it.
func (a *asked) before(now time.Time, hash []byte) bool {
	switch age := now.Sub(a.since); {
	case a.young == nil, age >= 2*askedLife:
		*a = asked{young: make([]uint64, askedBits/64), since: now}
	case age >= askedLife:
		a.old, a.young = a.young, a.old
		if a.young == nil {
			a.young = make([]uint64, askedBits/64)
		}
		clear(a.young)
		a.since = now
	}
	inYoung, inOld := true, a.old != nil
	for i := range 2 {
		bit := binary.BigEndian.Uint32(hash[4*i:]) % askedBits
		word, mask := bit/64, uint64(1)<<(bit%64)
		inYoung = inYoung && a.young[word]&mask != 0
		inOld = inOld && a.old[word]&mask != 0
		a.young[word] |= mask
	}
	return inYoung || inOld
}

// rest gives the memory back when there has been no flood for a while.
func (a *asked) rest(now time.Time) {
	if a.young != nil && now.Sub(a.since) > askedIdle {
		*a = asked{}
	}
}

// mustAskAgain says whether a first message of a kind that nobody has used goes without an answer, because there is no room
// for all of them and this one was not there before.
func (e *Engine) mustAskAgain(now time.Time, m *message, hash []byte) bool {
	if e.halfOpen[0].order.Len() < e.cfg.HalfOpen {
		e.asked.rest(now)
		return false
	}
	return !e.asked.before(now, e.templates.proof(0, 0, hash, m))
}
