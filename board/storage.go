package board

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// WriteFile replaces a file so that whoever reads it, even after the power failed at any moment, finds the old content or
// the new one, whole. It writes nothing when the content and the permissions are there already, because flash wears: changed
// tells. A symbolic link stays one; what it leads to is replaced. The owner stays where the process may set it.
func WriteFile(name string, data []byte, perm fs.FileMode) (changed bool, err error) {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	old, err := os.Stat(name)
	if err == nil {
		if !old.Mode().IsRegular() {
			return false, &fs.PathError{Op: "replace", Path: name, Err: errors.New("not a regular file")}
		}
		if old.Mode().Perm() == perm && old.Size() == int64(len(data)) {
			if b, err := os.ReadFile(name); err == nil && bytes.Equal(b, data) {
				return false, nil
			}
		}
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return false, err
	}
	defer dir.Close()
	// Two that write at once, in whatever processes, do it one after the other.
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil && !errors.Is(err, syscall.ENOLCK) {
		return false, &fs.PathError{Op: "lock", Path: dir.Name(), Err: err}
	}
	// One name for all attempts: a power cut leaves at most one file behind, which the next write takes away.
	tmp := filepath.Join(dir.Name(), "."+filepath.Base(name)+".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(tmp)
		}
	}()
	if err = f.Chmod(perm); err != nil { // the umask took from what was asked for
		return false, err
	}
	if old != nil {
		if st, ok := old.Sys().(*syscall.Stat_t); ok {
			f.Chown(int(st.Uid), int(st.Gid))
		}
	}
	if _, err = f.Write(data); err != nil {
		return false, err
	}
	if err = f.Sync(); err != nil {
		return false, err
	}
	if err = f.Close(); err != nil {
		return false, err
	}
	if err = os.Rename(tmp, name); err != nil {
		return false, err
	}
	// A file system that cannot make a rename last has nothing to lose.
	if err = dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return true, fmt.Errorf("%s is written, but may be the old one after a power cut: %w", name, err)
	}
	return true, nil
}
