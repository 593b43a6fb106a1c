package board

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "culvert.toml")
	inode := func() uint64 {
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return fi.Sys().(*syscall.Stat_t).Ino
	}
	write := func(content string, perm fs.FileMode, want bool) {
		t.Helper()
		changed, err := WriteFile(name, []byte(content), perm)
		if err != nil || changed != want {
			t.Errorf("changed %v, %v; want %v", changed, err, want)
		}
		b, err := os.ReadFile(name)
		fi, serr := os.Stat(name)
		if err != nil || serr != nil || string(b) != content || fi.Mode().Perm() != perm {
			t.Errorf("%q, %v, %v, %v", b, fi.Mode(), err, serr)
		}
	}
	defer syscall.Umask(syscall.Umask(0o077))
	write("one", 0o644, true) // whatever the umask
	before := inode()
	write("one", 0o644, false)
	if inode() != before {
		t.Error("the same content was written to flash again")
	}
	write("one", 0o600, true)
	write("two", 0o600, true)
	// What a power cut left behind does not stand in the way.
	if err := os.WriteFile(filepath.Join(dir, ".culvert.toml.new"), []byte("half a fi"), 0o400); err != nil {
		t.Fatal(err)
	}
	write("three", 0o600, true)

	link := filepath.Join(dir, "link")
	if err := os.Symlink("culvert.toml", link); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteFile(link, []byte("four"), 0o600); err != nil {
		t.Error(err)
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", fi.Mode(), err)
	}
	write("four", 0o600, false)

	if _, err := WriteFile(dir, nil, 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if _, err := WriteFile(filepath.Join(dir, "none", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// Several that write at once leave one of their contents, whole.
func TestWriteFileTogether(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 5 {
				if _, err := WriteFile(name, bytes.Repeat([]byte(strconv.Itoa(i)), 1000+i), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	b, err := os.ReadFile(name)
	if err != nil || len(b) < 1000 || !bytes.Equal(b, bytes.Repeat(b[:1], 1000+int(b[0]-'0'))) {
		t.Errorf("%d octets, %v", len(b), err)
	}
}
