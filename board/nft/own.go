package nft

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLacking is in the tree of errors by which a kernel says that it is without nf_tables, or without what a table needs.
var ErrLacking = errors.New("the kernel has no nf_tables of the inet family: modprobe nf_tables, or a kernel with CONFIG_NF_TABLES_INET (OpenWrt: kmod-nft-core)")

// ownerFlag is NFT_TABLE_F_OWNER, of Linux 5.12.
const ownerFlag = 2

// patience is for a predecessor that has just been killed: its table goes when the kernel has closed its files.
const patience = 2 * time.Second

// Own makes the table with what contents say, in the network namespace of the calling thread. It belongs to the Conn and
// goes with it. Before Linux 5.12, which knows no owners, it stays when the process is killed, and Own replaces it.
func Own(t Table, contents ...Message) (*Conn, error) {
	c, err := Dial()
	if err != nil {
		return nil, lacking(err)
	}
	if err := own(c.Commit, t, contents, patience); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func own(commit func(string, ...Message) error, t Table, contents []Message, patience time.Duration) error {
	flags := uint32(ownerFlag)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := commit("create table", t.with(flags, contents)...)
		if errors.Is(err, unix.EEXIST) && commit("remove table", t.Delete()) == nil { // nobody's
			err = commit("create table", t.with(flags, contents)...)
		}
		if errors.Is(err, unix.EINVAL) && flags != 0 {
			flags = 0
			continue
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EPERM):
			return lacking(err)
		case time.Now().After(end):
			return fmt.Errorf("another program has the nftables table \"inet %s\" (nft list ruleset), or CAP_NET_ADMIN is lacking: %w", string(t), err)
		}
	}
}

// Try asks the kernel whether Own would succeed, and changes nothing.
func Try(t Table, contents ...Message) error {
	c, err := Dial()
	if err != nil {
		return lacking(err)
	}
	defer c.Close()
	err = c.Check("try table", t.with(ownerFlag, contents)...)
	if errors.Is(err, unix.EINVAL) {
		err = c.Check("try table", t.with(0, contents)...)
	}
	return lacking(err)
}

// Replace is the contents of a table that is there already: all that it says goes, and the new comes, in one transaction.
func (c *Conn) Replace(t Table, contents ...Message) error {
	replaced := func(flags uint32) []Message { return append([]Message{t.Delete()}, t.with(flags, contents)...) }
	err := c.Commit("replace table", replaced(ownerFlag)...)
	if errors.Is(err, unix.EINVAL) {
		err = c.Commit("replace table", replaced(0)...)
	}
	return lacking(err)
}

// lacking says what to do about the errors of a kernel that has no nf_tables, or not all that a table needs.
func lacking(err error) error {
	for _, e := range []unix.Errno{unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ENOENT} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrLacking, err)
		}
	}
	return err
}
