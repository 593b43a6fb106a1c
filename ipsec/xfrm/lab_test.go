package xfrm

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
)

// needKernel skips on a machine whose kernel cannot do IPsec; in the lab's guest that is a failure.
func needKernel(t *testing.T) {
	t.Helper()
	err := Probe()
	var lacks *ProbeError
	if err == nil || errors.As(err, &lacks) && !lacks.Fatal() {
		return
	}
	if lab.InGuest() || os.Getenv("CULVERT_LAB") == "guest" {
		t.Fatal(err)
	}
	t.Skipf("needs a kernel with IPsec, as the lab's guest has: %v", err)
}

// ownNamespace moves the calling goroutine for good to a thread with a network namespace of its own. The namespace ends
// with the last socket in it.
func ownNamespace(t *testing.T) {
	t.Helper()
	needKernel(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// open makes a Backend in the calling thread's namespace.
func open(t *testing.T, o Options) *Backend {
	t.Helper()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}
