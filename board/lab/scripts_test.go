package lab

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The root file system's scripts are read by busybox's shell, which knows less than others.
func TestScripts(t *testing.T) {
	root := filepath.Join("..", "..", "rootfs")
	seen := 0
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil || !bytes.HasPrefix(b, []byte("#!/bin/")) {
			return err
		}
		seen++
		if fi, err := d.Info(); err != nil || fi.Mode()&0o111 == 0 {
			t.Errorf("%s cannot be executed", file)
		}
		for _, check := range [][]string{{"busybox", "ash", "-n", file}, {"shellcheck", "-s", "sh", file}} {
			if _, err := exec.LookPath(check[0]); err != nil {
				t.Logf("%s is missing: its check of %s is left out (make deps-boards)", check[0], file)
				continue
			}
			if out, err := exec.Command(check[0], check[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", check[0], err, out)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Errorf("only %d scripts in %s", seen, root)
	}
}
