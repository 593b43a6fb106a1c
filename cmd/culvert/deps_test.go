package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed lists, per package of this module, what it may import besides the standard library. A trailing slash allows
// everything below. cmd/culvert itself knows everybody and is not listed.
var allowed = map[string][]string{
	"culvert/ipsec":                   {},
	"culvert/ipsec/isakmp":            {},
	"culvert/ipsec/ikev1":             {"culvert/ipsec", "culvert/ipsec/isakmp", "filippo.io/bigmod"},
	"culvert/board/dgram":             {"golang.org/x/sys/"},
	"culvert/ipsec/pki":               {"culvert/ipsec/isakmp"},
	"culvert/ipsec/natt":              {"culvert/board/dgram", "culvert/ipsec", "golang.org/x/sys/"},
	"culvert/ipsec/xfrm":              {"culvert/board/netlink", "culvert/ipsec", "golang.org/x/sys/"},
	"culvert/ipsec/ipsectest":         {"culvert/ipsec", "github.com/vishvananda/netlink"},
	"culvert/l2tp":                    {},
	"culvert/l2tp/sock":               {"culvert/board/dgram", "golang.org/x/sys/"},
	"culvert/l2tp/kernel":             {"culvert/l2tp", "golang.org/x/sys/"},
	"culvert/ppp":                     {"culvert/ppp/aaa", "golang.org/x/crypto/"},
	"culvert/ppp/aaa":                 {"golang.org/x/crypto/"},
	"culvert/ppp/kernel":              {"culvert/ppp", "culvert/ppp/netif", "golang.org/x/sys/"},
	"culvert/ppp/netif":               {"culvert/board/nft", "culvert/board/rtnl", "golang.org/x/sys/"},
	"culvert/hwcrypto":                {"culvert/board/netlink", "golang.org/x/crypto/", "golang.org/x/sys/"},
	"culvert/hwcrypto/engine":         {"culvert/hwcrypto", "golang.org/x/sys/"},
	"culvert/ipsec/esp":               {"culvert/board/dgram", "culvert/ipsec", "culvert/hwcrypto", "golang.org/x/sys/"},
	"culvert/ipsec/portmap":           {"culvert/board/nft", "golang.org/x/sys/"},
	"culvert/l2tp/user":               {"culvert/l2tp"},
	"culvert/ppp/user":                {"culvert/ppp", "culvert/ppp/netif", "golang.org/x/sys/"},
	"culvert/board":                   {"golang.org/x/sys/"},
	"culvert/board/netlink":           {"golang.org/x/sys/"},
	"culvert/board/nft":               {"culvert/board/netlink", "golang.org/x/sys/"},
	"culvert/board/rtnl":              {"culvert/board/netlink", "golang.org/x/sys/"},
	"culvert/board/firewall":          {"culvert/board/nft", "golang.org/x/sys/"},
	"culvert/ipsec/isakmp/isakmptest": {"culvert/ipsec/isakmp"},
	"culvert/cmd/culvert/internal/config": {"culvert/cmd/culvert/internal/crypt", "culvert/cmd/culvert/internal/logring", "culvert/ipsec", "culvert/ipsec/ikev1", "culvert/ipsec/pki",
		"culvert/l2tp", "culvert/ppp", "culvert/ppp/aaa", "github.com/BurntSushi/toml"},
	"culvert/cmd/culvert/internal/console": {"culvert/cmd/culvert/internal/config", "culvert/cmd/culvert/internal/logring",
		"culvert/cmd/culvert/internal/control", "culvert/cmd/culvert/internal/crypt", "culvert/l2tp"},
	"culvert/cmd/culvert/internal/crypt":    {},
	"culvert/cmd/culvert/internal/terminal": {"culvert/cmd/culvert/internal/control", "golang.org/x/sys/", "golang.org/x/term"},
	"culvert/cmd/culvert/internal/control":  {"golang.org/x/sys/"},
	"culvert/cmd/culvert/internal/demo":     {"culvert/board/rtnl", "culvert/cmd/culvert/internal/control", "golang.org/x/sys/"},
	"culvert/cmd/culvert/internal/explain":  {},
	"culvert/cmd/culvert/internal/logring":  {},
	"culvert/board/lab":                     {"golang.org/x/sys/"},
	"culvert/board/lab/demo":                {"culvert/board/lab"},
	"culvert/buildroot":                     {},
	"culvert/buildroot/openwrt":             {},
	"culvert/rootfs/mkimage":                {"culvert/board/lab"},
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "culvert/...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		pkg := words[0]
		if pkg == "culvert/cmd/culvert" {
			continue
		}
		may, known := allowed[pkg]
		if !known {
			t.Errorf("%s is not in the table of allowed imports: decide what it may know and add it", pkg)
			continue
		}
		for _, imp := range words[1:] {
			if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") && first != "culvert" {
				continue // standard library
			}
			ok := slices.ContainsFunc(may, func(a string) bool {
				return imp == a || strings.HasSuffix(a, "/") && strings.HasPrefix(imp, a)
			})
			if !ok {
				t.Errorf("%s imports %s, which the house does not allow", pkg, imp)
			}
		}
	}
}
