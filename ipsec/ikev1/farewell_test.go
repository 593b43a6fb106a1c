package ikev1

import (
	"testing"

	"culvert/ipsec"
)

// TestFarewell: the messages that are kept for the case of a crash end everything at the client, from another engine
// that knows nothing, and hold no key.
func TestFarewell(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.connect(c)
	known := map[ipsec.Mark]string{}
	var got []Farewell
	collect := func() {
		w.e.Farewells(func(m ipsec.Mark) string { return known[m] }, func(f Farewell) { known[f.Mark] = f.Of; got = append(got, f) })
	}
	collect()
	collect() // nothing has changed
	if len(got) != 1 || len(got[0].Messages) != 2 || got[0].Path != c.from() {
		t.Fatalf("farewells %+v", got)
	}
	w.run(c, c.quick()) // another pair of SAs
	collect()
	if len(got) != 2 || got[1].Of == got[0].Of {
		t.Fatalf("%d farewells after a rekey, want another one", len(got))
	}
	if !w.e.Alive(got[1].Mark) {
		t.Error("the client is not known by its mark")
	}
	if len(c.deleted) != 0 || c.gone {
		t.Fatal("the client has been told already")
	}
	for _, m := range got[1].Messages {
		c.receive(m)
	}
	if len(c.deleted) != 2 || !c.gone {
		t.Errorf("the client was told of %d SAs, want 2; ISAKMP SA gone: %v", len(c.deleted), c.gone)
	}
}
