package lab

import (
	"crypto/rand"
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The quickest board shows that tests run on one: its own kernel, modules, entropy, exit status.
func TestBoardBoot(t *testing.T) {
	RunOn(t, "qemu-arm64", func(t *testing.T) {
		if arch := boardArch(); arch != "aarch64" {
			t.Errorf("the machine is %q", arch)
		}
		if _, err := os.Stat("/sys/module/xfrm_user"); err != nil {
			t.Errorf("a module that was asked for: %v", err)
		}
		if _, err := os.Stat("/sys/module/xfrm_algo"); err != nil {
			t.Errorf("a module that xfrm_user needs: %v", err)
		}
		s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM)
		if err != nil {
			t.Errorf("the kernel's XFRM: %v", err)
		}
		unix.Close(s)
		var b [8]byte
		rand.Read(b[:]) // does not return before the kernel has entropy
		if binary.NativeEndian.Uint64(b[:]) == 0 {
			t.Error("random octets are all zero")
		}
	}, Modules("xfrm_user", "esp4", "no_such_module?"))
}
