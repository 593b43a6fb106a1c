package lab

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// An Initramfs is the root file system that a kernel unpacks into its memory: a cpio archive in the "newc" form of the
// kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Everything in it belongs to root and is dated
// 1970, so the same content makes the same file, and making device nodes needs no privilege.
type Initramfs struct {
	entries map[string]entry
	err     error // the first; Bytes reports it
}

type entry struct {
	mode         uint32 // as in stat(2)
	data         []byte
	major, minor uint32
}

const (
	modeDir, modeFile, modeLink, modeChar = 0o040000, 0o100000, 0o120000, 0o020000

	cpioTrailer = "TRAILER!!!"
)

// NewInitramfs returns an archive that has what every first process needs: /dev/console.
func NewInitramfs() *Initramfs {
	r := &Initramfs{entries: make(map[string]entry)}
	r.Node("dev/console", 0o600, 5, 1)
	r.Node("dev/null", 0o666, 1, 3)
	return r
}

// put adds an entry and the directories above it; what comes later replaces what was there.
func (r *Initramfs) put(name string, e entry) {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" {
		return
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := r.entries[dir]; !ok {
			r.entries[dir] = entry{mode: modeDir | 0o755}
		}
	}
	r.entries[name] = e
}

// Dir adds a directory.
func (r *Initramfs) Dir(name string, perm uint32) { r.put(name, entry{mode: modeDir | perm}) }

// Data adds a file of that content.
func (r *Initramfs) Data(name string, perm uint32, data []byte) {
	r.put(name, entry{mode: modeFile | perm, data: data})
}

// Link adds a symbolic link.
func (r *Initramfs) Link(name, target string) {
	r.put(name, entry{mode: modeLink | 0o777, data: []byte(target)})
}

// Node adds a character device.
func (r *Initramfs) Node(name string, perm, major, minor uint32) {
	r.put(name, entry{mode: modeChar | perm, major: major, minor: minor})
}

// File adds a file of this machine, executable if it is here.
func (r *Initramfs) File(name, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		r.fail(err)
		return
	}
	perm := uint32(0o644)
	if fi, err := os.Stat(file); err == nil && fi.Mode()&0o111 != 0 {
		perm = 0o755
	}
	r.Data(name, perm, b)
}

// Tree adds a directory of this machine and everything below it under the archive's root.
func (r *Initramfs) Tree(dir string) {
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			r.Dir(name, uint32(fi.Mode().Perm()))
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			r.Link(name, target)
		case d.Type().IsRegular():
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			r.Data(name, uint32(fi.Mode().Perm()), b)
		}
		return nil
	})
	if err != nil {
		r.fail(err)
	}
}

func (r *Initramfs) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Bytes returns the archive, not compressed.
func (r *Initramfs) Bytes() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	var names []string
	for name := range r.entries {
		names = append(names, name)
	}
	slices.Sort(names) // a directory sorts before what is in it
	var b bytes.Buffer
	for i, name := range names {
		b.Write(cpioEntry(uint32(i+1), name, r.entries[name]))
	}
	b.Write(cpioEntry(0, cpioTrailer, entry{}))
	return b.Bytes(), nil
}

// cpioEntry is one entry: thirteen fields of eight hex digits behind the magic number, name and data padded to four octets.
func cpioEntry(ino uint32, name string, e entry) []byte {
	links := uint32(1)
	if e.mode&0o170000 == modeDir {
		links = 2
	}
	b := []byte("070701")
	for _, v := range []uint32{ino, e.mode, 0, 0, links, 0, uint32(len(e.data)), 0, 0, e.major, e.minor, uint32(len(name) + 1), 0} {
		b = fmt.Appendf(b, "%08X", v)
	}
	b = append(append(b, name...), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	b = append(b, e.data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Write writes the archive to w, compressed by gzip at that level of compress/gzip.
func (r *Initramfs) Write(w io.Writer, level int) error {
	b, err := r.Bytes()
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(w, level)
	if err != nil {
		return err
	}
	if _, err := z.Write(b); err != nil {
		return err
	}
	return z.Close()
}
