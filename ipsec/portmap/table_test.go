package portmap

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
	"culvert/board/nft"
)

const testMask = 0x7fff0000

// fake is nf_tables as far as elements go: what commit says happens, all or nothing.
type fake struct {
	elements map[string]bool
	chains   int
	fail     error
	closed   bool
}

func (f *fake) Close() error { f.closed = true; return nil }

func (f *fake) Commit(_ string, msgs ...nft.Message) error {
	if f.fail != nil {
		return f.fail
	}
	for _, m := range msgs {
		k := string(m.Body)
		switch {
		case m.Kind == unix.NFT_MSG_NEWSETELEM && f.elements[k]:
			return &netlink.Error{Errno: unix.EEXIST}
		case m.Kind == unix.NFT_MSG_DELSETELEM && !f.elements[k]:
			return &netlink.Error{Errno: unix.ENOENT}
		}
	}
	for _, m := range msgs {
		switch k := string(m.Body); m.Kind {
		case unix.NFT_MSG_NEWSETELEM:
			f.elements[k] = true
		case unix.NFT_MSG_DELSETELEM:
			delete(f.elements, k)
		case unix.NFT_MSG_NEWCHAIN:
			f.chains++
		case unix.NFT_MSG_DELCHAIN:
			f.chains--
		}
	}
	return nil
}

// has says whether the fake holds exactly these elements.
func (f *fake) has(msgs ...nft.Message) bool {
	for _, m := range msgs {
		if !f.elements[string(m.Body)] {
			return false
		}
	}
	return len(f.elements) == len(msgs)
}

func fakeTable(t *testing.T, o Options) (*Table, *fake) {
	t.Helper()
	o.MarkMask, o.Ports = testMask, []uint16{1701}
	o, err := o.complete()
	if err != nil {
		t.Fatal(err)
	}
	o.Log = quiet
	f := &fake{elements: make(map[string]bool)}
	return newTable(o, f), f
}

// arrow is what is in the kernel for one mapping.
func arrow(mark uint32, source, port uint16) []nft.Message {
	return []nft.Message{
		tableName.Add(mapArriving, nft.Element{Key: markPort(mark, source), Data: nft.BE16(port)}),
		tableName.Add(mapLeaving, nft.Element{Key: markPort(mark, port), Data: nft.BE16(source)}),
	}
}

func TestAddRemove(t *testing.T) {
	table, f := fakeTable(t, Options{})
	a, err := table.Add(0x10000, 1701)
	if err != nil || a < DefaultFirst || a > DefaultLast {
		t.Fatal(a, err)
	}
	if again, err := table.Add(0x10000, 1701); err != nil || again != a {
		t.Errorf("the second SA got %d, %v, want %d", again, err, a)
	}
	b, err := table.Add(0x20000, 1701)
	if err != nil || b == a {
		t.Fatalf("two clients have port %d, %v", b, err)
	}
	other, err := table.Add(0x10000, 50000)
	if err != nil || other == a || other == b {
		t.Fatalf("two ports of one client are one, %d, %v", other, err)
	}
	all := append(append(arrow(0x10000, 1701, a), arrow(0x20000, 1701, b)...), arrow(0x10000, 50000, other)...)
	if !f.has(all...) {
		t.Errorf("the kernel has %d elements, want %d others", len(f.elements), len(all))
	}
	for _, step := range []struct {
		mark   uint32
		source uint16
		left   int
	}{{0x10000, 1701, 6}, {0x10000, 1701, 4}, {0x10000, 1701, 4}, {0x30000, 1701, 4}, {0x20000, 1701, 2}, {0x10000, 50000, 0}} {
		if err := table.Remove(step.mark, step.source); err != nil {
			t.Error(err)
		}
		if len(f.elements) != step.left {
			t.Errorf("after Remove(%#x, %d) %d elements are left, want %d", step.mark, step.source, len(f.elements), step.left)
		}
		if f.chains != 2*min(step.left, 1) {
			t.Errorf("after Remove(%#x, %d) with %d elements there are %d chains", step.mark, step.source, step.left, f.chains)
		}
	}
	if again, err := table.Add(0x10000, 1701); err != nil || again != a {
		t.Errorf("the client came back as %d, %v, was %d", again, err, a)
	}
}

func TestAddRefuses(t *testing.T) {
	table, f := fakeTable(t, Options{First: 100, Last: 101})
	for _, test := range []struct {
		mark   uint32
		source uint16
	}{{0, 1701}, {0x10001, 1701}, {0x80000000, 1701}, {0x10000, 0}} {
		if _, err := table.Add(test.mark, test.source); !errors.Is(err, errMark) {
			t.Errorf("Add(%#x, %d): %v", test.mark, test.source, err)
		}
	}
	f.fail = &netlink.Error{Errno: unix.ENOMEM}
	if _, err := table.Add(0x10000, 1701); !errors.Is(err, unix.ENOMEM) {
		t.Error(err)
	}
	f.fail = nil
	seen := map[uint16]bool{}
	for mark := uint32(0x10000); mark <= 0x20000; mark += 0x10000 { // both, although one failed before
		port, err := table.Add(mark, 1701)
		if err != nil || port < 100 || port > 101 || seen[port] {
			t.Error(port, err)
		}
		seen[port] = true
	}
	if _, err := table.Add(0x30000, 1701); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	// What the kernel does not give up stays ours, and is taken up again.
	f.fail = &netlink.Error{Errno: unix.EIO}
	if err := table.Remove(0x10000, 1701); !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	f.fail = nil
	if _, err := table.Add(0x30000, 1701); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if _, err := table.Add(0x10000, 1701); err != nil {
		t.Error(err)
	}
	if err := table.Remove(0x10000, 1701); err != nil || len(f.elements) != 2 {
		t.Error(err, len(f.elements))
	}
	// What somebody else removed is gone for us too.
	clear(f.elements)
	if err := table.Remove(0x20000, 1701); err != nil {
		t.Error(err)
	}
	if err := table.Close(); err != nil || !f.closed {
		t.Error(err)
	}
	if _, err := table.Add(0x30000, 1701); err == nil {
		t.Error("a closed table took a client")
	}
	if err := table.Close(); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	ports := []uint16{1701}
	for _, o := range []Options{
		{Ports: ports}, {MarkMask: 1}, {MarkMask: 1, Ports: []uint16{1701, 0}}, {MarkMask: 1, Ports: ports, First: 7, Last: 6},
	} {
		if _, err := o.complete(); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	for _, o := range []Options{{First: 65535, Last: 65535}, {First: 50000}, {First: 1, Last: 65535}} {
		o.MarkMask, o.Ports = 1, ports
		if o, err := o.complete(); err != nil || o.First > o.Last {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestBind(t *testing.T) {
	table, f := fakeTable(t, Options{})
	for range 2 {
		if err := table.Bind(0x10000, 7); err != nil {
			t.Fatal(err)
		}
	}
	want := []nft.Message{
		tableName.Add(setMembers, nft.Element{Key: markPort(0x10000, 7)}),
		tableName.Add(setTunnels, nft.Element{Key: nft.BE16(7)}),
	}
	if !f.has(want...) {
		t.Error("not bound")
	}
	if err := table.Bind(0x20000, 7); !errors.Is(err, ErrBound) {
		t.Error(err)
	}
	if err := table.Bind(1, 8); !errors.Is(err, errMark) {
		t.Error(err)
	}
	if err := table.Bind(0, 8); err != nil { // outside of IPsec
		t.Error(err)
	}
	for _, id := range []uint16{7, 7, 8, 9} {
		if err := table.Unbind(id); err != nil {
			t.Error(err)
		}
	}
	if len(f.elements) > 0 {
		t.Errorf("%d elements left", len(f.elements))
	}
}

// Clients come and go at random: no two ever have one port, and nothing is left of them.
func TestManyClients(t *testing.T) {
	const clients = 300
	table, f := fakeTable(t, Options{First: 40000, Last: 40000 + clients - 1})
	r := rand.New(rand.NewPCG(1, 2))
	have := map[uint32]uint16{}
	owner := map[uint16]uint32{}
	for range 20000 {
		mark := uint32(1+r.IntN(2*clients)) << 16
		if port, ok := have[mark]; ok {
			if err := table.Remove(mark, 1701); err != nil {
				t.Fatal(err)
			}
			delete(have, mark)
			delete(owner, port)
			continue
		}
		port, err := table.Add(mark, 1701)
		if len(have) == clients {
			if !errors.Is(err, ErrFull) {
				t.Fatalf("client %d of %d: %v", len(have)+1, clients, err)
			}
			continue
		}
		if err != nil || owner[port] != 0 {
			t.Fatalf("%#x got port %d of %#x, %v", mark, port, owner[port], err)
		}
		have[mark], owner[port] = port, mark
	}
	for mark := range have {
		table.Remove(mark, 1701)
	}
	if len(f.elements)+len(table.taken)+len(table.mapped) > 0 {
		t.Errorf("%d elements, %d ports left", len(f.elements), len(table.taken))
	}
}

// Written down by hand from linux/netfilter/nf_tables.h.
func TestGoldenElement(t *testing.T) {
	if nft.Native32(1)[0] == 0 {
		t.Skip("this is the message of a little-endian machine")
	}
	got := tableName.Add(mapArriving, nft.Element{Key: markPort(0x5f4a0000, 1701), Data: nft.BE16(10000)})
	want := "0c000100" + "63756c7665727400" + // table "culvert"
		"0d000200" + "6172726976696e67" + "00000000" + // set "arriving"
		"24000380" + "20000180" + // elements, one
		"10000180" + "0c000100" + "00004a5f" + "06a50000" + // key: the mark in host order, the port in network order
		"0c000280" + "06000100" + "27100000" // data: the port
	if s := hex.EncodeToString(got.Body); s != want {
		t.Errorf("%s, want\n%s", s, want)
	}
}
