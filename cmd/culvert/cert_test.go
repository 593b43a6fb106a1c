package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/cmd/culvert/internal/config"
)

func certRun(t *testing.T, dir string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), append([]string{"cert", args[0], "-dir", dir}, args[1:]...), strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

func certDone(t *testing.T, dir string, args ...string) string {
	t.Helper()
	code, out, err := certRun(t, dir, "", args...)
	if code != exitDone {
		t.Fatalf("culvert cert %v: %d %s", args, code, err)
	}
	return out
}

func TestCert(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if code, _, err := certRun(t, dir, "", "server", "vpn.example.com"); code != exitFailed || !strings.Contains(err, "make one with culvert cert ca") {
		t.Errorf("%d %s", code, err)
	}
	certDone(t, dir, "ca", "-name", "Office CA", "-key", "p256")
	if code, _, err := certRun(t, dir, "", "ca"); code != exitFailed || !strings.Contains(err, "ca.crt exists") {
		t.Errorf("%d %s", code, err)
	}
	server := certDone(t, dir, "server", "vpn.example.com", "192.0.2.1", "-days", "90")
	alice := certDone(t, dir, "client", "alice", "alice@example.com")
	_, password, ok := strings.Cut(alice, "shown only now: ")
	if password = strings.TrimSpace(password); !ok || len(password) != 16 {
		t.Errorf("password %q", password)
	}
	if code, out, err := certRun(t, dir, "open sesame\n", "client", "-password", "-", "Bob Smith"); code != exitDone || strings.Contains(out, "sesame") {
		t.Errorf("%d %s %s", code, out, err)
	}
	if openssl, err := exec.LookPath("openssl"); err == nil {
		for file, word := range map[string]string{"alice.p12": password, "Bob_Smith.p12": "open sesame"} {
			if out, err := exec.Command(openssl, "pkcs12", "-in", filepath.Join(dir, file), "-passin", "pass:"+word, "-noout").CombinedOutput(); err != nil {
				t.Errorf("%s: %s", file, out)
			}
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		info, _ := f.Info()
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", f.Name(), info.Mode().Perm())
		}
		names = append(names, f.Name())
	}
	if got, want := strings.Join(names, " "), "Bob_Smith.crt Bob_Smith.key Bob_Smith.p12 alice.crt alice.key alice.p12 ca.crt ca.key crl.pem vpn.example.com.crt vpn.example.com.key"; got != want {
		t.Errorf("files %s", got)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("directory %o", info.Mode().Perm())
	}

	// What is printed for the configuration is one.
	_, table, _ := strings.Cut(server, "In culvert.toml of this server:\n")
	text := "[l2tp.server]\nuse-ipsec = \"required\"\n" + table + fmt.Sprintf(`
[l2tp.client.out]
connect-to = "vpn.example.com"
use-ipsec = true
[ipsec.identity.out]
auth-method = "digital-signature"
certificate = %q
key = %q
ca = %q
`, filepath.Join(dir, "alice.crt"), filepath.Join(dir, "alice.key"), filepath.Join(dir, "ca.crt"))
	cfg, err := config.Parse("c.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 || cfg.IPsec.Peers[0].Credentials == nil || cfg.Clients[0].Peer.Credentials == nil || len(cfg.IPsec.Peers[0].Secret) > 0 {
		t.Errorf("%v %+v", cfg.Warnings, cfg.IPsec.Peers)
	}

	if code, _, err := certRun(t, dir, "", "revoke", "carol"); code != exitFailed || !strings.Contains(err, "no such file") {
		t.Errorf("%d %s", code, err)
	}
	if code, _, err := certRun(t, dir, "", "revoke", "ca"); code != exitFailed || !strings.Contains(err, "was not issued by") {
		t.Errorf("%d %s", code, err)
	}
	if out := certDone(t, dir, "revoke", "alice"); !strings.Contains(out, "revoked: CN=alice") {
		t.Error(out)
	}
	certDone(t, dir, "revoke") // renews
	show := certDone(t, dir, "show")
	for _, want := range []string{"alice.crt: CN=alice", "state          revoked on " + time.Now().UTC().Format(time.DateOnly), "CN=Office CA", "names          vpn.example.com, 192.0.2.1",
		"is for         server, client, IKE intermediate", "is for         issuing certificates", "key            ECDSA, P-256", "state          good"} {
		if !strings.Contains(show, want) {
			t.Errorf("no %q in\n%s", want, show)
		}
	}
	if n := strings.Count(show, "revoked on"); n != 1 {
		t.Errorf("%d revoked", n)
	}
	// The same name again.
	if code, _, err := certRun(t, dir, "", "client", "alice"); code != exitFailed || !strings.Contains(err, "alice.crt exists: -force replaces it, and culvert cert revoke alice first") {
		t.Errorf("%d %s", code, err)
	}
	certDone(t, dir, "client", "alice", "-force")
	if out := certDone(t, dir, "show", "alice"); !strings.Contains(out, "state          good") {
		t.Error(out)
	}
}

func TestCertUsage(t *testing.T) {
	for _, x := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"cert"}, exitUsage, "usage: culvert cert COMMAND"},
		{[]string{"cert", "help"}, exitDone, ""},
		{[]string{"cert", "sign"}, exitUsage, `no command "sign"`},
		{[]string{"cert", "ca", "-dir", "/nonexistent/x", "-days", "0"}, exitFailed, "not within"},
		{[]string{"cert", "ca", "-key", "dsa"}, exitFailed, `"dsa" is not one of rsa2048`},
		{[]string{"cert", "ca", "x"}, exitFailed, "goes with -name"},
		{[]string{"cert", "client", "-x"}, exitUsage, "not defined"},
		{[]string{"cert", "client"}, exitFailed, "needs a name"},
		{[]string{"cert", "show", "-dir", "/nonexistent"}, exitFailed, "holds no certificates"},
	} {
		var out, err bytes.Buffer
		if code := run(t.Context(), x.args, strings.NewReader(""), &out, &err); code != x.code || !strings.Contains(err.String(), x.stderr) {
			t.Errorf("%v: %d %s", x.args, code, err.String())
		}
	}
}

// TestCertClock: a machine without a clock makes no certificates.
func TestCertClock(t *testing.T) {
	var out, err bytes.Buffer
	if code := runCert(time.Unix(60, 0), []string{"ca", "-dir", t.TempDir(), "-key", "p256"}, strings.NewReader(""), &out, &err); code != exitFailed || !strings.Contains(err.String(), "the clock of this machine is not set") {
		t.Errorf("%d %s", code, err.String())
	}
}
