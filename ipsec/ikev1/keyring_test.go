package ikev1

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

func withKeys(n int, shared string) func(*Config) {
	return func(cfg *Config) {
		cfg.Peers[0].Secret = ipsec.Secret(shared)
		for i := range n {
			cfg.Peers[0].Keys = append(cfg.Peers[0].Keys, UserKey{fmt.Sprintf("user%d", i), ipsec.Secret(fmt.Sprintf("key of %d", i))})
		}
	}
}

// TestUserKeys: whichever key a client has, it comes up as the user the key belongs to, from an address that says nothing.
func TestUserKeys(t *testing.T) {
	for _, n := range []int{1, inlineKeys - 1, 300} {
		for _, client := range []func(*testing.T, uint64) *initiator{windowsClient, func(t *testing.T, seed uint64) *initiator { return nmClient(t, seed, true) }} {
			for who, key := range map[string]string{"": "mySecret", "user0": "key of 0", fmt.Sprintf("user%d", n-1): fmt.Sprintf("key of %d", n-1)} {
				w := newWorld(t, withKeys(n, "mySecret"))
				jobs := 0
				w.e.env.Offload = func(work func() func(time.Time)) bool { jobs++; work()(w.now); return true }
				c := client(t, 1)
				c.psk = []byte(key)
				w.connect(c)
				if len(w.ups) != 1 || w.ups[0].User != who {
					t.Errorf("%d keys, %q: up as %+v", n, who, w.ups)
				}
				if want := map[bool]int{false: 1, true: 2}[n+1 > inlineKeys]; jobs != want { // Diffie-Hellman, and the trial where it is long
					t.Errorf("%d keys: %d jobs for the worker, want %d", n, jobs, want)
				}
				if w.e.byKey[keyOf(c.float, c.id(), who)] == nil {
					t.Errorf("%q: not found by its key", who)
				}
			}
		}
	}
}

func TestUserKeysWrong(t *testing.T) {
	for _, shared := range []string{"", "mySecret"} {
		w := newWorld(t, withKeys(3, shared))
		c := nmClient(t, 1, true)
		c.psk = []byte("nobody's")
		w.run(c, c.first())
		for range 3 {
			w.give(c.from(), c.lastSent)
		}
		n := 3
		if shared != "" {
			n = 4
		}
		if c.up || w.lines("level=WARN") != 1 || w.lines("message 5 decrypts with none of the enrolled keys") != 1 || w.lines(fmt.Sprintf("keys=%d", n)) != 1 {
			t.Errorf("up %v, log:\n%s", c.up, w.log)
		}
		if len(c.errors) != 1 || c.errors[0] != isakmp.AuthenticationFailed {
			t.Errorf("notifications %v", c.errors)
		}
		if shared == "" { // no key at all is no key
			d := nmClient(t, 2, true)
			d.psk = nil
			if w.run(d, d.first()); d.up {
				t.Error("came up with an empty key")
			}
		}
	}
}

// TestUserKeysForgedFifth: a forged message 5 does not spoil the exchange, nor while a worker tries the keys.
func TestUserKeysForgedFifth(t *testing.T) {
	w := newWorld(t, withKeys(100, ""))
	var queue []func() func(time.Time)
	w.e.env.Offload = func(work func() func(time.Time)) bool { queue = append(queue, work); return true }
	finish := func() (out []sent) {
		for len(queue) > 0 {
			f := queue[0]
			queue = queue[1:]
			f()(w.now)
		}
		out, w.sent = w.sent, nil
		return out
	}
	c := nmClient(t, 1, true)
	c.psk = []byte("key of 42")
	w.give(c.from(), c.receive(w.give(c.from(), c.first())[0].msg))
	fifth := c.receive(finish()[0].msg)
	forged := slices.Clone(fifth)
	forged[40] ^= 1
	w.give(c.from(), forged)
	w.give(c.from(), fifth) // while the other is being tried
	if len(queue) != 1 {
		t.Fatalf("%d jobs", len(queue))
	}
	if out := finish(); len(out) > 1 { // the refusal
		t.Fatalf("%d messages", len(out))
	}
	w.give(c.from(), fifth)
	for _, s := range finish() {
		c.receive(s.msg)
	}
	if !c.up {
		t.Fatal("the right message 5 is not heard any more")
	}
	// What a worker finds after the exchange has gone is nobody's.
	d := nmClient(t, 2, true).behindNAT("203.0.113.10", 61000, "192.168.1.34")
	d.psk = []byte("key of 7")
	w.give(d.from(), d.receive(w.give(d.from(), d.first())[0].msg))
	w.give(d.from(), d.receive(finish()[0].msg))
	w.advance(time.Minute)
	if out := finish(); len(out) != 0 || len(w.e.clients) != 1 {
		t.Errorf("a dead exchange came up: %d messages", len(out))
	}
}

// TestUserKeysBudget: a source that keeps guessing is not heard any more; another one is, and so is this one later.
func TestUserKeysBudget(t *testing.T) {
	w := newWorld(t, withKeys(3, ""))
	guess := func(seed uint64, from, key string) bool {
		c := nmClient(t, seed, true).behindNAT(from, uint16(10000+10*seed), "192.168.1.34")
		c.psk = []byte(key)
		w.run(c, c.first())
		return c.up
	}
	for i := range uint64(passBurst) {
		guess(i, "203.0.113.9", "guess")
	}
	if guess(100, "203.0.113.9", "key of 1") {
		t.Error("the right key after too many wrong ones is heard at once")
	}
	if w.e.drops[DropLimit] == 0 {
		t.Error("not counted")
	}
	if !guess(101, "203.0.113.77", "key of 1") {
		t.Error("another address has to pay for it")
	}
	w.advance(3 * time.Second)
	if !guess(102, "203.0.113.9", "key of 1") {
		t.Error("the source is shut out for good")
	}
	// Its key is known here now, and costs nothing.
	for i := range uint64(passBurst) {
		guess(200+i, "203.0.113.9", "guess")
	}
	if !guess(300, "203.0.113.9", "key of 1") {
		t.Error("the user of this address has to pay for the guesses of others")
	}
}

// TestUserKeysApart: two users who show themselves alike at one address and port are two clients, and the second does not
// end the first by announcing itself.
func TestUserKeysApart(t *testing.T) {
	w := newWorld(t, withKeys(2, ""))
	a, b := windowsClient(t, 1), windowsClient(t, 2)
	a.psk, b.psk = []byte("key of 0"), []byte("key of 1")
	w.connect(a)
	w.connect(b)
	if len(w.ups) != 2 || w.ups[0].Mark == w.ups[1].Mark || w.ups[0].User == w.ups[1].User || len(w.downs) != 0 {
		t.Fatalf("ups %+v, downs %v", w.ups, w.downs)
	}
	again := windowsClient(t, 3)
	again.psk = a.psk
	w.advance(15 * time.Second)
	w.connect(again) // the first one's own return does
	if len(w.downs) != 1 || w.downM[0] != w.ups[0].Mark {
		t.Errorf("downs %v %v", w.downs, w.downM)
	}
}

func TestUserKeysReconfigure(t *testing.T) {
	w := newWorld(t, withKeys(3, "mySecret"))
	var clients []*initiator
	for i, key := range []string{"key of 0", "key of 1", "mySecret"} {
		c := nmClient(t, uint64(i+1), true).behindNAT("203.0.113.9", uint16(1000*(i+1)), "192.168.1.34")
		c.psk = []byte(key)
		w.connect(c)
		clients = append(clients, c)
	}
	cfg := testConfig()
	withKeys(1, "mySecret")(&cfg) // user1's key is gone
	w.e.Reconfigure(w.now, cfg)
	if len(w.downs) != 1 || w.downM[0] != w.ups[1].Mark {
		t.Fatalf("downs %v", w.downM)
	}
	cfg = testConfig()
	withKeys(1, "other")(&cfg)
	w.e.Reconfigure(w.now, cfg)
	if len(w.downs) != 2 || w.downM[1] != w.ups[2].Mark {
		t.Fatalf("downs %v", w.downM)
	}
	w.run(clients[0], clients[0].quick()) // the one whose key stayed goes on
	if len(clients[0].children) != 2 {
		t.Error("the user whose key stayed cannot rekey")
	}
}

// TestUserKeysAggressive: aggressive mode names the user, and the answer to a name that does not exist looks like any other.
func TestUserKeysAggressive(t *testing.T) {
	client := func(seed uint64, id isakmp.ID, key string) *initiator {
		c := nmClient(t, seed, true)
		c.aggr, c.group, c.hash = true, MODP2048, isakmp.HashSHA256
		c.idBody = id.Append(nil)
		c.psk = []byte(key)
		return c
	}
	aggressive := func(shared string) func(*Config) {
		return func(cfg *Config) {
			withKeys(3, shared)(cfg)
			cfg.Peers[0].Exchange = Aggressive
		}
	}
	for _, id := range []isakmp.ID{{Type: isakmp.IDFQDN, Data: []byte("user1")}, {Type: isakmp.IDUserFQDN, Data: []byte("user1@example.com")}, {Type: isakmp.IDKeyID, Data: []byte("user1")}} {
		w := newWorld(t, aggressive("mySecret"))
		c := client(1, id, "key of 1")
		w.connect(c)
		if w.ups[0].User != "user1" {
			t.Errorf("%v: up as %q", id, w.ups[0].User)
		}
	}
	w := newWorld(t, aggressive("mySecret"))
	w.connect(client(1, isakmp.ID{Type: isakmp.IDFQDN, Data: []byte("stranger")}, "mySecret"))
	if w.ups[0].User != "" {
		t.Errorf("up as %q", w.ups[0].User)
	}
	w = newWorld(t, aggressive(""))
	known, unknown := client(1, isakmp.ID{Type: isakmp.IDFQDN, Data: []byte("user1")}, ""), client(2, isakmp.ID{Type: isakmp.IDFQDN, Data: []byte("user9")}, "")
	a, b := w.give(known.from(), known.first()), w.give(unknown.from(), unknown.first())
	if len(a) != 1 || len(b) != 1 || len(a[0].msg) != len(b[0].msg) {
		t.Errorf("a name that exists is answered otherwise than one that does not: %d and %d messages", len(a), len(b))
	}
}

// TestIdentities: main mode goes by addresses, remote-id by what it says, and my-id is shown.
func TestIdentities(t *testing.T) {
	name := isakmp.ID{Type: isakmp.IDFQDN, Data: []byte("office.example.com")}
	for _, test := range []struct {
		what     string
		exchange ExchangeMode
		remote   string
		nat      bool
		id       isakmp.ID // the address when zero
		ok       bool
	}{
		{"main, by address", Main, "", false, isakmp.ID{}, true},
		{"main, behind a NAT", Main, "", true, isakmp.ID{}, true},
		{"main, another address", Main, "", false, isakmp.IDFromAddr(serverAddr, 0, 0), false},
		{"main, a name", Main, "", false, name, false},
		{"main, the name", Main, "office.example.com", false, name, true},
		{"main-l2tp, a name", MainL2TP, "", true, name, true},
		{"main-l2tp, another name", MainL2TP, "home.example.com", true, name, false},
		{"main-l2tp, not the name", MainL2TP, "office.example.com", true, isakmp.ID{}, false},
		{"aggressive, the key id", Aggressive, "keyid:group", true, isakmp.ID{Type: isakmp.IDKeyID, Data: []byte("group")}, true},
		{"aggressive, not the key id", Aggressive, "keyid:group", true, name, false},
	} {
		w := newWorld(t, func(cfg *Config) {
			p := &cfg.Peers[0]
			p.Exchange, p.RemoteID, p.ID = test.exchange, test.remote, "server@example.com"
		})
		c := nmClient(t, 1, test.nat)
		if test.exchange == Aggressive {
			c.aggr, c.group, c.hash = true, MODP2048, isakmp.HashSHA256
		}
		if test.id.Type != 0 {
			c.idBody = test.id.Append(nil)
		}
		w.run(c, c.first())
		if up := len(w.e.clients) == 1; up != test.ok {
			t.Errorf("%s: up %v, log:\n%s", test.what, up, w.log)
		}
		if !test.ok && w.lines("identity refused") != 1 {
			t.Errorf("%s: log:\n%s", test.what, w.log)
		}
	}
}

// BenchmarkUserKeys is what one key costs of a message 5 that none fits.
func BenchmarkUserKeys(b *testing.B) {
	tr := &trial{cipher: AES256, hash: SHA256, ni: make([]byte, 32), nr: make([]byte, 32), gi: make([]byte, 256), gr: make([]byte, 256),
		secret: make([]byte, 256), iv: make([]byte, 16), saBody: make([]byte, 48), body: make([]byte, 64), first: isakmp.PayloadID}
	keys := []UserKey{{User: "a", Secret: ipsec.Secret("some pre-shared key")}}
	for b.Loop() {
		if tr.among(keys) != nil {
			b.Fatal("found")
		}
	}
}
