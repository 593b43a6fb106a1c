package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// What is put into resolv.conf can be taken out again in any order, and leaves what others have written meanwhile.
func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	const was = "search lan\nnameserver 192.0.2.53\n  nameserver 192.0.2.54\noptions rotate"
	if err := os.WriteFile(path, []byte(was), 0o644); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	r := newResolvConf(link)
	reads := func(want string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%v, reads\n%s\nwant\n%s", err, got, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	const first = "# culvert begins: one\nnameserver 10.0.0.1\nnameserver fd00::1\n# culvert ends\n"
	const second = "# culvert begins: two\nnameserver 10.0.0.1\n# culvert ends\n"
	do(r.set(peerDNS{client: "one", servers: []netip.Addr{a, b}}))
	reads(first + was)
	do(r.set(peerDNS{client: "two", servers: []netip.Addr{a}, exclusive: true}))
	do(r.set(peerDNS{client: "two", servers: []netip.Addr{a}, exclusive: true}))
	const off = "search lan\n#culvert# nameserver 192.0.2.53\n#culvert#   nameserver 192.0.2.54\noptions rotate"
	reads(second + first + off)
	do(r.set(peerDNS{client: "[network]", servers: []netip.Addr{b}, own: true}))
	reads(second + first + off) // exclusively means without ours too
	do(r.unset("two"))
	reads(first + "# culvert begins: [network]\nnameserver fd00::1\n# culvert ends\n" + was)
	do(r.unset("[network]"))
	do(r.set(peerDNS{client: "two", servers: []netip.Addr{a}, exclusive: true}))
	do(r.unset("one"))
	reads(second + off)
	do(os.WriteFile(path, []byte(second+off+"\nnameserver 192.0.2.55\n"), 0o644))
	do(newResolvConf(link).unset("")) // after a crash
	reads(was + "\nnameserver 192.0.2.55\n")
	if _, err := os.Lstat(path + ".culvert"); err == nil {
		t.Error("a temporary file is left")
	}
}

// OpenWrt's file goes first, and /etc/resolv.conf is made where there is none.
func TestFindResolvConf(t *testing.T) {
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "auto"), filepath.Join(dir, "resolv.conf")}
	if r := findResolvConf(files); r.path != files[1] {
		t.Errorf("without any: %s", r.path)
	}
	for i := range files {
		f := files[len(files)-1-i]
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if r := findResolvConf(files); r.path != f {
			t.Errorf("%s, want %s", r.path, f)
		}
	}
}
