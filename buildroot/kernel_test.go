package buildroot

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the package and the fragment ask a kernel for is what the kernel has that the boards' tests run on.
func TestKernelOptions(t *testing.T) {
	options := func(file, pattern string) (found []string) {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(b), -1) {
			found = append(found, strings.Fields(strings.ReplaceAll(m[1], "\\", " "))...)
		}
		if len(found) == 0 {
			t.Fatalf("%s names no option", file)
		}
		return found
	}
	const set = `(?m)^CONFIG_(\w+)=y$`
	tested := options("../rootfs/kernel/malta-be.fragment", set)
	fragment := options("board/vpn.fragment", set)
	required := options("package/culvert/culvert.mk", `(?s)\nCULVERT_LINUX_CONFIG_OPTIONS = (.*?)\n\n`)
	// malta_defconfig, which malta-be.fragment stands on, and every other configuration here has these.
	implied := []string{"NET", "INET", "NET_L3_MASTER_DEV", "CRYPTO"}
	for _, o := range fragment {
		if !slices.Contains(tested, o) && !slices.Contains(implied, o) {
			t.Errorf("CONFIG_%s of board/vpn.fragment is not in rootfs/kernel/malta-be.fragment: no test runs with it", o)
		}
	}
	for _, o := range required {
		if !slices.Contains(fragment, o) && !slices.Contains(implied, o) {
			t.Errorf("CONFIG_%s that the package asks for is not in board/vpn.fragment", o)
		}
	}
}
