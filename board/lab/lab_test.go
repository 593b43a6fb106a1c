package lab

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestBoot(t *testing.T) {
	const probe = "/etc/culvert-lab-was-here"
	Run(t, func(t *testing.T, l *L) {
		if l.Kernel() == "" || os.Getuid() != 0 {
			t.Fatalf("kernel %q, uid %d", l.Kernel(), os.Getuid())
		}
		b, err := os.ReadFile("/proc/version")
		if err != nil || !strings.Contains(string(b), "Linux version "+l.Kernel()) {
			t.Errorf("%s: %v", b, err)
		}
		if year := time.Now().Year(); year < 2025 {
			t.Errorf("the guest's clock says %d", year)
		}
		for _, f := range []string{"/dev/ppp", "/dev/net/tun", "/dev/urandom", "/proc/net/dev", "/sys/class/net/lo"} {
			if _, err := os.Stat(f); err != nil {
				t.Error(err)
			}
		}
		if err := os.WriteFile(probe, nil, 0o644); err != nil {
			t.Errorf("the guest's root is its own and writable: %v", err)
		}
	})
	if !InGuest() {
		if _, err := os.Stat(probe); err == nil {
			os.Remove(probe)
			t.Error("the guest wrote to the host's files")
		}
	}
}
