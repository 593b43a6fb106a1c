package portmap

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"culvert/board/nft"
)

// DefaultFirst and DefaultLast are the ports given to clients unless Options say otherwise. They lie below what systems
// take as source ports by themselves (32768 and up on Linux, 49152 and up elsewhere), so that a client which is not
// mapped does not have the port of one that is.
const (
	DefaultFirst = 10000
	DefaultLast  = 32767
)

// Options of a Table.
type Options struct {
	Log *slog.Logger
	// MarkMask is where clients' marks lie in a packet's mark.
	MarkMask uint32
	// Ports are our UDP ports of L2TP. What goes to and comes from others is left alone.
	Ports []uint16
	// First and Last bound the ports given to clients; zero means the defaults.
	First, Last uint16
}

// Table is the nftables table of this process. Its methods may be called from any goroutine; each change is one
// transaction in the kernel and takes effect when the method returns.
type Table struct {
	o    Options
	log  *slog.Logger
	mu   sync.Mutex // guards what follows
	conn kernel     // nil when closed

	mapped map[peer]*mapping
	taken  map[uint16]bool
	bound  map[uint16]uint32 // the mark of each tunnel
}

// kernel is what a Table wants of nf_tables.
type kernel interface {
	// commit makes all the changes or none. What is to be added and exists, or to be deleted and does not, is an error.
	Commit(op string, msgs ...nft.Message) error
	Close() error
}

// peer is what a client's packets come with: its mark and its own source port.
type peer struct {
	mark uint32
	port uint16
}

type mapping struct {
	port  uint16
	users int
}

var (
	// ErrFull says that every port of the range is given away.
	ErrFull = errors.New("portmap: no port left for another client: widen the range")
	// ErrBound says that a tunnel is bound to another mark.
	ErrBound = errors.New("portmap: the tunnel id belongs to another client")
	errMark  = errors.New("portmap: not a client's mark")
)

// New makes the table in the network namespace of the calling thread. Run Probe for what to do about an error.
func New(o Options) (*Table, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	c, err := nft.Own(tableName, ruleset(tableName, o.MarkMask, o.Ports)...)
	if err != nil {
		return nil, fmt.Errorf("portmap: %w", err)
	}
	return newTable(o, c), nil
}

func newTable(o Options, k kernel) *Table {
	return &Table{
		o: o, log: o.Log, conn: k,
		mapped: make(map[peer]*mapping), taken: make(map[uint16]bool), bound: make(map[uint16]uint32),
	}
}

// complete fills in the defaults.
func (o Options) complete() (Options, error) {
	if o.First == 0 {
		o.First = DefaultFirst
	}
	if o.Last == 0 {
		o.Last = max(o.First, DefaultLast)
	}
	switch {
	case o.MarkMask == 0:
		return o, errors.New("portmap: the mask of the marks is empty")
	case o.First > o.Last:
		return o, fmt.Errorf("portmap: no port lies between %d and %d", o.First, o.Last)
	case len(o.Ports) == 0 || slices.Contains(o.Ports, 0):
		return o, errors.New("portmap: which UDP ports carry L2TP has to be said")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Probe asks the kernel whether it would take the table, and changes nothing. The error says what is missing.
func Probe() error {
	const probe = tableName + "-probe"
	err := nft.Try(probe, ruleset(probe, 1, []uint16{1})...)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("run as root or with CAP_NET_ADMIN: %w", err)
	}
	return err
}

// Close removes the table.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil {
		return nil
	}
	err := t.conn.Commit("remove table", tableName.Delete())
	err = errors.Join(err, t.conn.Close()) // which would remove it too
	t.conn = nil
	return err
}

// Add makes the packets that carry the mark and come from the source port appear to come from the port that it returns,
// which no other client has, and those sent back to that port leave for the original one. Every Add asks for one Remove;
// for a mark and port that are mapped it returns the same port again. After an error nothing has changed.
func (t *Table) Add(mark uint32, source uint16) (uint16, error) {
	if mark == 0 || mark&^t.o.MarkMask != 0 || source == 0 {
		return 0, fmt.Errorf("%w under %#x: %#x, port %d", errMark, t.o.MarkMask, mark, source)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := peer{mark, source}
	if m := t.mapped[p]; m != nil {
		m.users++
		return m.port, nil
	}
	port, ok := t.free(mark)
	if !ok {
		return 0, ErrFull
	}
	if err := t.mapClient(p, port); err != nil {
		return 0, err
	}
	t.mapped[p], t.taken[port] = &mapping{port: port, users: 1}, true
	t.log.Debug("client's port mapped", "mark", hexMark(mark), "source", source, "as", port)
	return port, nil
}

// Remove takes one Add back; with the last one the mapping is gone. What is not mapped is no error.
func (t *Table) Remove(mark uint32, source uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := peer{mark, source}
	m := t.mapped[p]
	if m == nil {
		return nil
	}
	if m.users = max(m.users-1, 0); m.users > 0 {
		return nil
	}
	if err := t.unmapClient(p, m.port); err != nil && !errors.Is(err, unix.ENOENT) {
		return err // it is still there, and so is our note of it
	}
	delete(t.mapped, p)
	delete(t.taken, m.port)
	return nil
}

// free finds a port that nobody has. A mark's first choice is always the same one: a client that comes back soon, or to a
// restarted daemon, is likely to be given what it had.
func (t *Table) free(mark uint32) (uint16, bool) {
	n := uint32(t.o.Last-t.o.First) + 1
	first := mark >> bits.TrailingZeros32(t.o.MarkMask) % n
	if uint32(len(t.taken)) >= n {
		return 0, false
	}
	for i := range n {
		if port := t.o.First + uint16((first+i)%n); !t.taken[port] {
			return port, true
		}
	}
	return 0, false
}

// elements are table.Add or table.Remove.
type elements func(set string, e ...nft.Element) nft.Message

// mapClient adds a client to the kernel's table, and unmapClient takes it out. The chains that translate come with the first client and go with
// the last one: every packet of the machine passes them.
func (t *Table) mapClient(p peer, port uint16) error {
	msgs := arrows(tableName.Add, p, port)
	if len(t.mapped) == 0 {
		msgs = append(msgs, translation(tableName, t.o.MarkMask, t.o.Ports)...)
	}
	return t.commit("map client", msgs...)
}

func (t *Table) unmapClient(p peer, port uint16) error {
	msgs := arrows(tableName.Remove, p, port)
	if len(t.mapped) == 1 {
		msgs = append(noTranslation(tableName), msgs...)
	}
	return t.commit("unmap client", msgs...)
}

// arrows are both directions of a mapping.
func arrows(change elements, p peer, port uint16) []nft.Message {
	return []nft.Message{
		change(mapArriving, nft.Element{Key: markPort(p.mark, p.port), Data: nft.BE16(port)}),
		change(mapLeaving, nft.Element{Key: markPort(p.mark, port), Data: nft.BE16(p.port)}),
	}
}

// Bind lets data messages for a tunnel (L2TPv2, by our id of it) in only with the mark; zero is a tunnel outside of
// IPsec. Tunnels that are not bound are open to all. Binding twice changes nothing.
func (t *Table) Bind(mark uint32, tunnel uint16) error {
	if mark&^t.o.MarkMask != 0 {
		return fmt.Errorf("%w under %#x: %#x", errMark, t.o.MarkMask, mark)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if have, ok := t.bound[tunnel]; ok {
		if have != mark {
			return ErrBound
		}
		return nil
	}
	if err := t.guard("bind tunnel", tableName.Add, mark, tunnel); err != nil {
		return err
	}
	t.bound[tunnel] = mark
	return nil
}

// Unbind ends Bind. A tunnel that is not bound is no error.
func (t *Table) Unbind(tunnel uint16) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	mark, ok := t.bound[tunnel]
	if !ok {
		return nil
	}
	if err := t.guard("unbind tunnel", tableName.Remove, mark, tunnel); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	delete(t.bound, tunnel)
	return nil
}

func (t *Table) guard(op string, change elements, mark uint32, tunnel uint16) error {
	return t.commit(op, change(setMembers, nft.Element{Key: markPort(mark, tunnel)}), change(setTunnels, nft.Element{Key: nft.BE16(tunnel)}))
}

func (t *Table) commit(op string, msgs ...nft.Message) error {
	if t.conn == nil {
		return errors.New("portmap: closed")
	}
	return t.conn.Commit(op, msgs...)
}

// hexMark prints marks as the kernel's tools do.
type hexMark uint32

func (h hexMark) String() string { return fmt.Sprintf("%#x", uint32(h)) }
