package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/nft"
)

// ErrNoMasquerade is in the error's tree where the table stands, but the kernel cannot masquerade.
var ErrNoMasquerade = errors.New("the kernel cannot masquerade: modprobe nft_masq nft_chain_nat, or a kernel with CONFIG_NFT_MASQ and CONFIG_NF_NAT (OpenWrt: kmod-nft-nat)")

// Table is the table in the kernel, or none as long as nothing was applied. The zero value is ready for use. It is for one
// goroutine at a time.
type Table struct {
	conn  kernel
	rules Rules
}

// kernel is what a Table wants of nf_tables.
type kernel interface {
	Commit(op string, msgs ...nft.Message) error
	Replace(t nft.Table, contents ...nft.Message) error
	BaseChains() ([]nft.BaseChain, error)
	Close() error
}

// Apply makes the table say what the rules do, at once and all of it; if that is something else, bans are gone. After an
// error it is as before, save for [ErrNoMasquerade], when it does the rest.
func (t *Table) Apply(r Rules) error {
	if t.conn != nil && reflect.DeepEqual(r, t.rules) {
		return nil
	}
	err := t.replace(r)
	if errors.Is(err, nft.ErrLacking) && len(r.Masquerade) > 0 {
		less := r
		less.Masquerade = nil
		if t.replace(less) == nil {
			return fmt.Errorf("%w: %w", ErrNoMasquerade, err)
		}
	}
	return err
}

func (t *Table) replace(r Rules) (err error) {
	if t.conn != nil {
		err = t.conn.Replace(tableName, r.messages()...)
	} else {
		var c *nft.Conn
		if c, err = nft.Own(tableName, r.messages()...); err == nil {
			t.conn = c
		}
	}
	if err == nil {
		t.rules = r
	}
	return err
}

// Close removes the table.
func (t *Table) Close() error {
	if t.conn == nil {
		return nil
	}
	err := t.conn.Commit("remove table", tableName.Delete())
	err = errors.Join(err, t.conn.Close()) // which would remove it too
	*t = Table{}
	return err
}

// Strict names the other tables' chains that drop by policy what comes in or passes through, unless rules of their own let
// it: this table cannot.
func (t *Table) Strict() (names []string, err error) {
	if t.conn == nil {
		return nil, nil
	}
	chains, err := t.conn.BaseChains()
	for _, c := range chains {
		ours := c.Family == unix.NFPROTO_INET || c.Family == unix.NFPROTO_IPV4 || c.Family == unix.NFPROTO_IPV6
		if ours && c.Drop && (c.Hook == unix.NF_INET_LOCAL_IN || c.Hook == unix.NF_INET_FORWARD) {
			names = append(names, c.String())
		}
	}
	return names, err
}

// Up says whether there is a table.
func (t *Table) Up() bool { return t.conn != nil }

// Ban drops what comes from a source for a time: an address of IPv4, or of IPv6 a network of 64 bits.
func (t *Table) Ban(source netip.Prefix, d time.Duration) error {
	if t.conn == nil {
		return nil
	}
	set, key := banned(source)
	add := tableName.Add(set, nft.Element{Key: key, Timeout: uint64(max(d.Milliseconds(), 1))})
	err := t.conn.Commit("ban", add)
	if errors.Is(err, unix.EEXIST) { // a ban does not grow longer
		err = t.conn.Commit("ban", tableName.Remove(set, nft.Element{Key: key}), add)
	}
	return err
}

// Pardon ends a ban. Where there is none that is no error.
func (t *Table) Pardon(source netip.Prefix) error {
	if t.conn == nil {
		return nil
	}
	set, key := banned(source)
	err := t.conn.Commit("end ban", tableName.Remove(set, nft.Element{Key: key}))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// Lift ends all bans.
func (t *Table) Lift() error {
	if t.conn == nil {
		return nil
	}
	return t.conn.Commit("end bans", tableName.Flush(banned4), tableName.Flush(banned6))
}

func banned(source netip.Prefix) (set string, key []byte) {
	if source.Addr().Is4() {
		return banned4, source.Addr().AsSlice()
	}
	return banned6, source.Masked().Addr().AsSlice()
}
