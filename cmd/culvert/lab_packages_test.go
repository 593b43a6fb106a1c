package main

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

// kernelPackages talk to parts of the kernel that a development machine may not have: their own tests skip there, with
// the reason, and run here.
var kernelPackages = []string{"culvert/board/dgram", "culvert/ipsec/natt", "culvert/l2tp/sock", "culvert/l2tp/kernel", "culvert/ppp/kernel", "culvert/ppp/netif"}

func TestLabPackages(t *testing.T) {
	opts := []lab.Option{lab.Timeout(3 * time.Minute)}
	for _, p := range kernelPackages {
		opts = append(opts, lab.BuildTests(p))
	}
	lab.Run(t, func(t *testing.T, l *lab.L) {
		for _, p := range kernelPackages {
			t.Run(strings.TrimPrefix(p, "culvert/"), func(t *testing.T) {
				cmd := exec.CommandContext(t.Context(), l.TestBinary(p), "-test.v", "-test.timeout=2m")
				cmd.Dir = t.TempDir()
				out, err := cmd.CombinedOutput()
				passed := 0
				for line := range strings.Lines(string(out)) {
					if strings.HasPrefix(line, "--- PASS") {
						passed++
					}
					if strings.HasPrefix(line, "--- SKIP") {
						t.Logf("%s", line)
					}
				}
				if err != nil || passed == 0 {
					t.Fatalf("%v, %d tests passed\n%s", err, passed, out)
				}
				t.Logf("%d tests passed", passed)
			})
		}
	}, opts...)
}
