package openwrt

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Every script is POSIX as busybox understands it, and shellcheck finds nothing in it.
func TestScripts(t *testing.T) {
	var scripts []string
	for _, tree := range []string{"culvert/files", "testdata/root"} {
		filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && !regexp.MustCompile(`\.(json|nft)$|/etc/config/|/keep\.d/`).MatchString(path) {
				scripts = append(scripts, path)
			}
			return err
		})
	}
	if len(scripts) < 12 {
		t.Fatalf("these are not all: %q", scripts)
	}
	for _, s := range scripts {
		if out, err := exec.Command("busybox", "ash", "-n", s).CombinedOutput(); err != nil {
			t.Errorf("busybox ash -n %s: %v\n%s", s, err, out)
		}
	}
	if _, err := exec.LookPath("shellcheck"); err != nil {
		missing(t, "shellcheck is missing")
	}
	scripts = slices.DeleteFunc(scripts, func(s string) bool { return strings.HasPrefix(s, "testdata") })
	// SC2317: functions that OpenWrt calls.
	if out, err := exec.Command("shellcheck", append([]string{"-e", "SC2317"}, scripts...)...).CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

// make, with stand-ins for OpenWrt's build system, installs what the package is made of.
func TestMakefile(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		missing(t, "make is missing")
	}
	top, dest := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"rules.mk": "INCLUDE_DIR:=$(TOPDIR)/include\nPKG_BUILD_DIR=$(TOPDIR)/build\nINSTALL_DIR:=install -d -m0755\n" +
			"INSTALL_BIN:=install -m0755\nINSTALL_DATA:=install -m0644\nINSTALL_CONF:=install -m0600\nSOURCE_DATE_EPOCH:=1\n",
		"include/package.mk": "define BuildPackage\nprepare:\n\t$$(call Build/Prepare)\ninstall:\n\t$$(call Package/$(1)/install,$(DESTDIR))\n" +
			"conffiles:\n\t@:$$(info $$(Package/$(1)/conffiles))\ngo:\n\t@echo $$(GO_PKG_TARGET_VARS) $$(GO_PKG_DEFAULT_LDFLAGS)\nendef\n",
		"feeds/packages/lang/golang/golang-package.mk": "GO_ARCH_DEPENDS:=@(mips||arm)\nGO_PKG_BUILD_BIN_DIR:=$(TOPDIR)/bin\ndefine GoBinPackage\nendef\n" +
			"GO_PKG_TARGET_VARS=GOOS=\"linux\" CGO_ENABLED=1 CGO_CFLAGS=\"-Os -pipe\"\nGO_PKG_DEFAULT_LDFLAGS=-linkmode external\n",
		"bin/culvert": "binary",
	} {
		file := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// As feeds do, by a link.
	feed := filepath.Join(top, "package/feeds/culvert")
	here, err := filepath.Abs("culvert")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(feed, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(here, filepath.Join(feed, "culvert")); err != nil {
		t.Fatal(err)
	}
	run := func(target string) string {
		t.Helper()
		cmd := exec.Command("make", "-s", "-C", filepath.Join(feed, "culvert"), "TOPDIR="+top, "DESTDIR="+dest, target)
		cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
		return string(out)
	}
	run("install")
	var got []string
	filepath.WalkDir(dest, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			info, _ := e.Info()
			got = append(got, info.Mode().Perm().String()+" "+strings.TrimPrefix(path, dest))
		}
		return err
	})
	want := []string{
		"-rw------- /etc/config/culvert",
		"-rwxr-xr-x /etc/init.d/culvert",
		"-rw-r--r-- /etc/uci-defaults/90-culvert",
		"-rwxr-xr-x /lib/netifd/culvert-down",
		"-rwxr-xr-x /lib/netifd/culvert-up",
		"-rwxr-xr-x /lib/netifd/culvert-watch",
		"-rwxr-xr-x /lib/netifd/proto/culvert.sh",
		"-rw-r--r-- /lib/upgrade/keep.d/culvert",
		"-rw-r--r-- /usr/lib/culvert/config.sh",
		"-rwxr-xr-x /usr/libexec/rpcd/culvert",
		"-rwxr-xr-x /usr/sbin/culvert",
		"-rw-r--r-- /usr/share/nftables.d/chain-pre/input_wan/60-culvert.nft",
		"-rw-r--r-- /usr/share/rpcd/acl.d/culvert.json",
	}
	byName := func(a, b string) int { return strings.Compare(a[10:], b[10:]) }
	slices.SortFunc(got, byName)
	slices.SortFunc(want, byName)
	if !slices.Equal(got, want) {
		t.Errorf("installed:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if info, err := os.Stat(filepath.Join(dest, "etc/culvert")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("/etc/culvert: %v %v", info, err)
	}
	if got := run("conffiles"); got != "/etc/config/culvert\n/etc/culvert/\n" {
		t.Errorf("conffiles: %q", got)
	}
	if got := run("go"); !strings.HasPrefix(got, "GOOS=linux CGO_CFLAGS=-Os -pipe CGO_ENABLED=0 GOFLAGS=-gcflags=all=-l -gcflags=") ||
		!strings.HasSuffix(got, " -buildid 1\n") {
		t.Errorf("what go is called with: %q", got)
	}
	if err := os.Mkdir(filepath.Join(top, "build"), 0o755); err != nil {
		t.Fatal(err)
	}
	run("prepare")
	for _, file := range []string{"go.mod", "go.sum", "LICENSE", "cmd/culvert/daemon.go"} {
		if _, err := os.Stat(filepath.Join(top, "build", file)); err != nil {
			t.Errorf("not taken into the build: %v", err)
		}
	}
}

// The rules are what nft understands inside firewall4's chain.
func TestFirewall(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil || os.Getuid() != 0 {
		missing(t, "needs nft and root")
	}
	include, err := filepath.Abs("culvert/files/usr/share/nftables.d/chain-pre/input_wan/60-culvert.nft")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", nft+" -f - && "+nft+" list ruleset")
	cmd.Stdin = strings.NewReader("table inet fw4 {\n\tchain input_wan {\n\t\tinclude \"" + include + "\"\n\t}\n}\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not supported") || strings.Contains(string(out), "not permitted") {
			missing(t, "this kernel has no nf_tables: "+string(out))
		}
		t.Fatalf("%v\n%s", err, out)
	}
	for _, rule := range []string{`udp dport { 500, 4500 } counter packets 0 bytes 0 accept`, `meta l4proto esp counter`,
		`udp dport 1701 meta ipsec exists counter packets 0 bytes 0 accept`} {
		if !strings.Contains(strings.ReplaceAll(string(out), "secpath", "ipsec"), rule) { // nft has two names for it
			t.Errorf("no rule %q in\n%s", rule, out)
		}
	}
}

func TestUCIDefaults(t *testing.T) {
	r := newRoot(t)
	keys := map[string]bool{}
	for range 2 {
		_, calls, err := r.run(r.command("/bin/sh", "/etc/uci-defaults/90-culvert"))
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`uci-batch\|set culvert\.server\.ipsec_secret='([0-9a-f]{30})'`).FindStringSubmatch(strings.Join(calls, "\n"))
		if m == nil {
			t.Fatalf("no key: %q", calls)
		}
		keys[m[1]] = true
	}
	if len(keys) != 2 {
		t.Errorf("two routers have the same key: %v", keys)
	}
}

// What the plugin answers is what rpcd takes: objects, of what the console printed.
func TestUbus(t *testing.T) {
	r := newRoot(t)
	call := func(stdin string, args ...string) (map[string]any, []string) {
		t.Helper()
		cmd := r.command(append([]string{"/usr/libexec/rpcd/culvert"}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, calls, err := r.run(cmd)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return v, calls
	}
	methods, _ := call("", "list")
	if v, _ := call("{}", "call", "status"); v["running"] != false {
		t.Errorf("without a daemon: %v", v)
	}
	golden, err := os.ReadFile("../../cmd/culvert/internal/console/testdata/print.json.txt")
	if err != nil {
		t.Fatal(err)
	}
	r.write("/console", string(golden)+"\n[admin@office] > /system identity print\n[ {} ]\n[admin@office] > /interface l2tp-server server print\n[ { \"enabled\": true } ]\n"+
		"[admin@office] > /ppp active print count-only\n2\n[admin@office] > /ppp active remove \"a\\\"li\\$ce\"\n", 0o644)
	v, _ := call("{}", "call", "status")
	if v["running"] != true || v["connected"] != 2.0 {
		t.Errorf("status: %v", v)
	}
	if m, ok := v["server"].(map[string]any); !ok || m["enabled"] != true {
		t.Errorf("server: %v", v["server"])
	}
	if m, ok := v["resource"].(map[string]any); !ok || m["version"] == "" {
		t.Errorf("resource: %v", v["resource"])
	}
	for method, key := range map[string]string{"active": "active", "clients": "clients", "sa": "sa", "log": "log"} {
		if v, _ := call("{}", "call", method); v[key] == nil {
			t.Errorf("%s: %v", method, v)
		} else if rows, ok := v[key].([]any); !ok || len(rows) == 0 {
			t.Errorf("%s: %v", method, v)
		}
	}
	if v, calls := call(`{"name":"a\"li$ce"}`, "call", "disconnect"); v["done"] != true {
		t.Errorf("disconnect: %v, %q", v, calls)
	}
	if v, _ := call(`{"name":"nobody"}`, "call", "disconnect"); v["done"] != false || v["message"] == "" {
		t.Errorf("disconnect nobody: %v", v)
	}

	// Every method is somebody's to call.
	var acl struct {
		Culvert struct {
			Read, Write struct{ Ubus map[string][]string }
		}
	}
	b, err := os.ReadFile("culvert/files/usr/share/rpcd/acl.d/culvert.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &acl); err != nil {
		t.Fatal(err)
	}
	granted := append(acl.Culvert.Read.Ubus["culvert"], acl.Culvert.Write.Ubus["culvert"]...)
	for method := range methods {
		if !slices.Contains(granted, method) {
			t.Errorf("nobody may call %s", method)
		}
	}
	if len(granted) != len(methods) {
		t.Errorf("granted %q of %v", granted, methods)
	}
}
