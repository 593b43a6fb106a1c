package config

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/ipsec/ikev1"
	"culvert/ipsec/pki"
)

// certFiles makes an authority and what it issues; the names stand for the files.
func certFiles(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"none": filepath.Join(dir, "none")}
	put := func(name string, b []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		files[name] = filepath.Join(dir, name)
		if err := os.WriteFile(files[name], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair := func(name string, p *pki.Pair, err error) *pki.Pair {
		if err != nil {
			t.Fatal(err)
		}
		key, err := p.KeyPEM()
		put(name+".crt", p.CertPEM(), nil)
		put(name+".key", key, err)
		return p
	}
	now := time.Now()
	newCA := func(name string) *pki.Pair {
		p, err := pki.NewCA(now, name, pki.P256, pki.CAValidity)
		return pair(name, p, err)
	}
	ca := newCA("ca")
	other := newCA("other")
	issue := func(name string, at time.Time, days int) {
		p, err := ca.Issue(at, pki.Request{Names: []string{name}, Server: true, Kind: pki.P256, Validity: time.Duration(days) * 24 * time.Hour})
		pair(name, p, err)
	}
	issue("server", now, 100)
	issue("late", now.AddDate(0, 0, -1), 1)
	list, err := ca.Revoke(now, nil, big.NewInt(1))
	put("crl", list, err)
	list, err = ca.Revoke(now.AddDate(0, 0, -370), nil, big.NewInt(1))
	put("old-crl", list, err)
	list, err = other.Revoke(now, nil, big.NewInt(1))
	put("other-crl", list, err)
	put("junk", []byte("hello"), nil)
	put("open.key", nil, nil)
	b, _ := os.ReadFile(files["server.key"])
	put("open.key", b, nil)
	os.Chmod(files["open.key"], 0o644)
	return files
}

const signedIdentity = "[l2tp.server]\n[ipsec.identity.l2tp-in]\nauth-method = \"digital-signature\"\n"

func TestCertificateProblems(t *testing.T) {
	files := certFiles(t)
	for _, x := range []struct{ name, cert, key, ca, more, want string }{
		{name: "good", cert: "server.crt", key: "server.key", ca: `["ca.crt"]`},
		{name: "one text for a list", cert: "server.crt", key: "server.key", ca: `"ca.crt"`, more: "crl = [\"crl\"]\nremote-id = \"fqdn:alice\"\n"},
		{name: "with a secret too", cert: "server.crt", key: "server.key", ca: `["ca.crt"]`, more: "secret = \"long enough\"\n"},
		{name: "key of another", cert: "server.crt", key: "other.key", ca: `["ca.crt"]`, want: "c.toml:5: ipsec.identity.l2tp-in.key: other.key: the key does not belong to the certificate server.crt: name the one that was made with it"},
		{name: "no such certificate", cert: "none", key: "server.key", ca: `["ca.crt"]`, want: "c.toml:4: ipsec.identity.l2tp-in.certificate: open none: no such file or directory"},
		{name: "no such key", cert: "server.crt", key: "none", ca: `["ca.crt"]`, want: "c.toml:5: ipsec.identity.l2tp-in.key: open none: no such file or directory"},
		{name: "key for a certificate", cert: "server.key", key: "server.key", ca: `["ca.crt"]`, want: "c.toml:4: ipsec.identity.l2tp-in.certificate: server.key holds no certificate"},
		{name: "open key", cert: "server.crt", key: "open.key", ca: `["ca.crt"]`, want: "c.toml:5: ipsec.identity.l2tp-in.key: a private key in a file that everyone may read (mode 0644): chmod 600 open.key"},
		{name: "no authority", cert: "server.crt", key: "server.key", ca: `[]`, want: "c.toml:6: ipsec.identity.l2tp-in.ca: is missing: name the PEM files of the authorities that issue the peers' certificates"},
		{name: "junk for an authority", cert: "server.crt", key: "server.key", ca: "[\n\"ca.crt\",\n\"junk\"]", want: "c.toml:8: ipsec.identity.l2tp-in.ca: junk is neither PEM nor DER"},
		{name: "list of another authority", cert: "server.crt", key: "server.key", ca: `["ca.crt", "other.crt"]`, more: "crl = [\"crl\", \"other-crl\"]\n"},
		{name: "expired", cert: "late.crt", key: "late.key", ca: `["ca.crt"]`, want: "c.toml:4: ipsec.identity.l2tp-in.certificate: warning: peers will refuse it: certificate of CN=late: it expired on "},
		{name: "old list", cert: "server.crt", key: "server.key", ca: `["ca.crt"]`, more: "crl = [\"old-crl\"]\n", want: "c.toml:7: ipsec.identity.l2tp-in.crl: warning: the revocation list of CN=ca should have been renewed by "},
		{name: "a server for an authority", cert: "server.crt", key: "server.key", ca: `["ca.crt", "server.crt"]`, want: "c.toml:6: ipsec.identity.l2tp-in.ca: warning: server.crt: the certificate of CN=server is no authority's: only itself will be accepted"},
		{name: "relative", cert: "server.crt", key: "server.key", ca: `["../ca.pem"]`, want: `c.toml:6: ipsec.identity.l2tp-in.ca: "../ca.pem" is not an absolute path`},
		{name: "key id", cert: "server.crt", key: "server.key", ca: `["ca.crt"]`, more: "remote-id = \"key-id:x\"\n", want: "c.toml:7: ipsec.identity.l2tp-in.remote-id: no certificate stands for a key-id: write fqdn:, user-fqdn: or address:"},
		{name: "short keys", cert: "server.crt", key: "server.key", ca: `["ca.crt"]`, more: "minimum-rsa-bits = 1024\n", want: "c.toml:7: ipsec.identity.l2tp-in.minimum-rsa-bits: warning: RSA keys below 2048 bits are weak"},
		{name: "shorter keys", cert: "server.crt", key: "server.key", ca: `["ca.crt"]`, more: "minimum-rsa-bits = 512\n", want: "c.toml:7: ipsec.identity.l2tp-in.minimum-rsa-bits: 512 is not within 1024..8192"},
	} {
		t.Run(x.name, func(t *testing.T) {
			text := signedIdentity + fmt.Sprintf("certificate = %q\nkey = %q\nca = %s\n", x.cert, x.key, x.ca) + x.more
			want := x.want
			for name, path := range files {
				text = strings.ReplaceAll(text, `"`+name+`"`, `"`+path+`"`)
			}
			dir := filepath.Dir(files["crl"])
			fatal, other := problems(t, text)
			got := strings.ReplaceAll(strings.Join(append(fatal, other...), "\n"), dir+"/", "")
			if len(fatal)+len(other) > 1 || (got == "") != (want == "") || !strings.HasPrefix(got, want) {
				t.Fatalf("\n got %s\nwant %s", got, want)
			}
			if strings.Contains(want, ": warning: ") || want == "" {
				c := mustParse(t, text)
				p := c.IPsec.Peers[0]
				if p.Credentials == nil || len(p.Credentials.Chain) == 0 || (len(p.Secret) > 0) != strings.Contains(x.more, "secret") {
					t.Errorf("%+v", p)
				}
				// SIGHUP on unchanged files changes nothing.
				if !reflect.DeepEqual(c.IPsec, mustParse(t, text).IPsec) {
					t.Error("reading the same files again makes a difference")
				}
			}
		})
	}
}

func TestCertificateOfClient(t *testing.T) {
	files := certFiles(t)
	identity := fmt.Sprintf("[ipsec.identity.out]\nauth-method = \"digital-signature\"\ncertificate = %q\nkey = %q\nca = %q\n", files["server.crt"], files["server.key"], files["ca.crt"])
	client := "[l2tp.client.out]\nconnect-to = \"vpn.example.com\"\n"
	c := mustParse(t, client+"use-ipsec = true\n"+identity)
	if c.Clients[0].Peer.Credentials == nil || len(c.IPsec.Peers) != 0 {
		t.Errorf("%+v", c.Clients[0])
	}
	if !reflect.DeepEqual(c.Clients, mustParse(t, client+"use-ipsec = true\n"+identity).Clients) {
		t.Error("reading the same files again makes a difference")
	}
	for _, x := range []struct{ text, want string }{
		{client + identity, "c.toml:3: ipsec.identity.out: warning: not used: l2tp.client.out.use-ipsec is off"},
		{client + "use-ipsec = true\nipsec-secret = \"x\"\n" + identity, "c.toml:4: l2tp.client.out.ipsec-secret: warning: not used: the identity of this name has a certificate"},
		{strings.ReplaceAll(identity, "out", "outt") + client, `c.toml:1: ipsec.identity.outt: belongs to no peer`},
		{strings.Replace(signedIdentity, "digital-signature", "pre-shared-key", 1) + "certificate = \"/x\"\nsecret = \"long enough\"\n", `c.toml:4: ipsec.identity.l2tp-in.certificate: warning: not used: set auth-method = "digital-signature"`},
	} {
		fatal, other := problems(t, x.text)
		if all := append(fatal, other...); len(all) != 1 || !strings.HasPrefix(all[0], x.want) {
			t.Errorf("\n got %q\nwant %q", all, x.want)
		}
	}
	if m, err := ikev1.MethodOf(c.Clients[0].Peer.Credentials.Key.Public()); err != nil || m != ikev1.ECDSA256 {
		t.Error(m, err)
	}
}
