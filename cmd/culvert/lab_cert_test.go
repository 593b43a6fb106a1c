package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/board/lab"
	"culvert/ipsec/isakmp"
)

// shop makes certificates in the guest: with `culvert cert`, and with openssl.
type shop struct {
	t   *testing.T
	dir string
	now time.Time
}

func newShop(t *testing.T, kind string) *shop {
	s := &shop{t, t.TempDir(), time.Now().AddDate(0, 0, -50)}
	s.cert("ca", "-name", "Lab CA "+kind, "-key", kind)
	s.now = time.Now()
	return s
}

// cert runs `culvert cert`.
func (s *shop) cert(args ...string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	if code := runCert(s.now, append([]string{args[0], "-dir", s.dir}, args[1:]...), strings.NewReader(""), &out, &errs); code != exitDone {
		s.t.Fatalf("culvert cert %v: %s", args, errs.String())
	}
}

func (s *shop) file(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// openssl makes a root, an intermediate authority and a certificate below it, as the books say, the latter two with RSA keys
// of so many bits.
func (s *shop) openssl(name, usage string, bits int) {
	s.t.Helper()
	run := func(args ...string) {
		s.t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = s.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			s.t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	ext := filepath.Join(s.dir, "ext")
	os.WriteFile(ext, []byte("[mid]\nbasicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign,cRLSign\n[end]\nkeyUsage=digitalSignature\nextendedKeyUsage="+usage+
		"\nsubjectAltName=DNS:"+name+",IP:192.0.2.1\n"), 0o600)
	run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out", "root.crt", "-days", "30", "-subj", "/C=DE/O=Books/CN=Root", "-addext", "keyUsage=keyCertSign,cRLSign")
	for _, x := range []struct{ who, by, section, subject string }{{"mid", "root", "mid", "/C=DE/O=Books/CN=Middle"}, {name, "mid", "end", "/C=DE/O=Books/OU=Unit 7/CN=" + name}} {
		run("req", "-newkey", fmt.Sprintf("rsa:%d", bits), "-nodes", "-keyout", x.who+".key", "-out", x.who+".csr", "-subj", x.subject)
		run("x509", "-req", "-in", x.who+".csr", "-CA", x.by+".crt", "-CAkey", x.by+".key", "-CAcreateserial", "-out", x.who+".crt", "-days", "20", "-extfile", ext, "-extensions", x.section)
	}
}

// certs are a client's for strongSwan.
func (s *shop) certs(name string, authorities ...string) *lab.Certs {
	c := &lab.Certs{Certificate: s.file(name + ".crt"), Key: s.file(name + ".key")}
	for _, a := range authorities {
		c.Authorities = append(c.Authorities, s.file(a+".crt"))
	}
	return c
}

// deliver puts files on a node, under /etc/culvert/pki.
func (s *shop) deliver(n *lab.Node, prefix string, names ...string) {
	for _, name := range names {
		n.WriteFile("/etc/culvert/pki/"+prefix+name, s.file(name))
	}
}

// pieces counts those of IKE messages, to the server and from it.
func pieces(packets []lab.Packet) (to, from int) {
	for _, p := range packets {
		b := p.Payload
		if (p.Src.Port() == 4500 || p.Dst.Port() == 4500) && len(b) > 4 {
			b = b[4:]
		}
		switch {
		case len(b) < 17 || b[16] != byte(isakmp.PayloadFragment):
		case p.Dst.Addr() == labServer:
			to++
		default:
			from++
		}
	}
	return to, from
}

// TestLabCertificates: strongSwan as the client with certificates of `culvert cert` and of openssl, RSA and ECDSA, beside one
// with a pre-shared key; and those that must not get in, each with one line that says why and what to do.
func TestLabCertificates(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		s, ec, wrong := newShop(t, "rsa2048"), newShop(t, "p256"), newShop(t, "p384")
		s.cert("server", "vpn.example.com", "192.0.2.1")
		s.cert("client", "alice", "alice@example.com")
		s.cert("client", "mallory")
		s.cert("revoke", "mallory")
		s.now = time.Now().AddDate(0, 0, -40)
		s.cert("client", "late", "-days", "30")
		s.now = time.Now()
		s.openssl("branch7", "clientAuth", 4096)
		wrong.cert("ca", "-name", "Lab CA rsa2048", "-force") // another authority of the same name
		wrong.cert("client", "alice")
		ec.cert("server", "vpn.example.com")
		ec.cert("client", "erna")

		identity := func(name, prefix string, ca string, more string) string {
			return fmt.Sprintf("\n[ipsec.identity.%s]\nauth-method = \"digital-signature\"\ncertificate = \"/etc/culvert/pki/%[2]svpn.example.com.crt\"\nkey = \"/etc/culvert/pki/%[2]svpn.example.com.key\"\n"+
				"ca = [%[3]s]\ncrl = [\"/etc/culvert/pki/%[2]scrl.pem\"]\n%[4]s", name, prefix, ca, more)
		}
		const rsaCA = `"/etc/culvert/pki/ca.crt", "/etc/culvert/pki/root.crt"`
		r := newRig(t, l, rigConfig{Users: 20, Extra: "\n[ipsec]\nfragment-size = 576\n" + identity("l2tp-in", "", rsaCA, "") +
			"\n[ipsec.peer.ec]\naddress = \"198.51.100.4\"\n" + identity("ec", "ec-", `"/etc/culvert/pki/ec-ca.crt"`, "") +
			"\n[ipsec.peer.strict]\naddress = \"198.51.100.9\"\n" + identity("strict", "", rsaCA, "remote-id = \"fqdn:carol\"\n"),
			Prepare: func(n *lab.Node) {
				s.deliver(n, "", "ca.crt", "root.crt", "vpn.example.com.crt", "vpn.example.com.key", "crl.pem")
				ec.deliver(n, "ec-", "ca.crt", "vpn.example.com.crt", "vpn.example.com.key", "crl.pem")
			}})

		with := func(c *lab.Certs) func(*lab.ClientConfig) {
			return func(x *lab.ClientConfig) { x.IKE.PSK, x.IKE.Certs, x.Timeout = "", c, 20*time.Second }
		}
		chain := s.certs("branch7", "root", "mid", "ca")
		clients := map[string]*lab.Client{
			"alice":    r.client(1, with(s.certs("alice", "ca"))),
			"chain":    r.client(2, with(chain), func(c *lab.ClientConfig) { c.IKE.Fragments = 600 }),
			"erna":     r.client(4, with(ec.certs("erna", "ca"))),
			"hidden":   r.hidden(5, with(s.certs("alice", "ca"))),
			"with key": r.client(6),
		}
		// A narrow line that loses fragments of IP: the long messages have to be cut by IKE itself.
		r.internet.IP("link set client2 mtu 1200")
		clients["chain"].IP("link set eth0 mtu 1200")
		r.internet.NFT("table ip lab-fragments { chain forward { type filter hook forward priority 0; ip frag-off & 0x1fff != 0 drop; }; }")
		wire := r.internet.Capture("client2", func(p lab.Packet) bool { return p.IKE() })
		for _, name := range []string{"alice", "chain", "erna", "hidden", "with key"} {
			c := clients[name]
			r.reaches(c, r.connect(c))
		}
		to, from := pieces(wire.Stop())
		t.Logf("%d pieces of messages to the server, %d from it", to, from)
		if to < 5 || from < 3 {
			t.Errorf("the certificates did not come in pieces: %d to the server, %d from it", to, from)
		}
		for _, words := range []string{"aes-256/sha256/modp2048/rsa-signature", "aes-256/sha256/modp2048/ecdsa-256", "CN=alice", "CN=branch7,OU=Unit 7,O=Books,C=DE", "CN=erna"} {
			if !strings.Contains(r.Log(), words) {
				t.Errorf("the log does not say %q", words)
			}
		}
		// A list that revokes ends what it revokes, and nothing else.
		s.cert("revoke", "alice")
		s.deliver(r.server, "", "crl.pem")
		before := len(r.Complaints())
		r.Signal(syscall.SIGHUP)
		if !l.WaitFor(15*time.Second, func() bool { return len(r.Rows("/ppp active print")) == 3 }) {
			t.Errorf("%d sessions after alice has been revoked", len(r.Rows("/ppp active print")))
		}
		said := func() string { return strings.Join(r.Complaints()[before:], "\n") }
		if !l.WaitFor(5*time.Second, func() bool { // the log's lines come by another way than the console's
			return strings.Count(said(), "no longer accepted: certificate of CN=alice: it was revoked on") == 2
		}) {
			t.Errorf("the log says: %s", said())
		}
		for _, name := range []string{"alice", "hidden"} {
			clients[name].Kill()
		}
		for _, name := range []string{"chain", "erna", "with key"} {
			if err := clients[name].Disconnect(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}

		for i, x := range []struct {
			name   string
			node   int
			certs  *lab.Certs
			answer string // in strongSwan's words
			words  []string
		}{
			{"revoked", 10, s.certs("mallory", "ca"), "INVALID_CERT", []string{"certificate of CN=mallory: it was revoked on", "make its owner a new one"}},
			{"expired", 11, s.certs("late", "ca"), "INVALID_CERT", []string{"certificate of CN=late: it expired on", "the clock says", "renew it"}},
			{"another authority of the same name", 12, wrong.certs("alice", "ca"), "INVALID_CERT", []string{"CN=alice", "has the name of CN=Lab CA rsa2048, but not its key"}},
			{"another identity", 9, s.certs("branch7", "root", "mid", "ca"), "INVALID_CERT", []string{`it does not stand for "carol"`, "branch7"}},
			{"another kind of key", 13, ec.certs("erna", "ca"), "NO_PROP", []string{"in IKEv1 both are RSA, or both ECDSA"}},
		} {
			x.certs.Authorities = append(x.certs.Authorities, s.file("ca.crt"))
			c := r.client(x.node, with(x.certs), func(c *lab.ClientConfig) { c.Timeout = 10 * time.Second })
			before := len(r.Complaints())
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
			err := refusal(ctx, c)
			cancel()
			if err == nil {
				t.Errorf("%s: %v", x.name, errLetIn)
			}
			if c.Charon == nil {
				t.Fatal(err)
			}
			l.WaitFor(3*time.Second, func() bool { return len(r.Complaints()) > before })
			heard := l.WaitFor(5*time.Second, func() bool { return len(c.Charon.Lines("received", x.answer)) > 0 })
			log := c.Charon.Log()
			c.Kill()
			if !heard {
				t.Errorf("%s: strongSwan has not heard %s:\n%s", x.name, x.answer, log)
			}
			said := r.Complaints()[before:]
			if len(said) != 1 {
				t.Errorf("%d %s: want one line in the log, got %d:\n%s\n%s", i, x.name, len(said), strings.Join(said, "\n"), log)
				continue
			}
			for _, w := range x.words {
				if !strings.Contains(said[0], w) {
					t.Errorf("%s: the log does not say %q: %s", x.name, w, said[0])
				}
			}
			t.Logf("%s: %s", x.name, said[0])
		}
	}, lab.Timeout(5*time.Minute))
}

// TestLabClientCertificates: culvert calls strongSwan with certificates; a server that is another one is refused.
func TestLabClientCertificates(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		s := newShop(t, "rsa2048")
		s.cert("client", "router7")
		s.openssl("vpn.example.com", "serverAuth", 2048)
		s.cert("server", "other.example.com")
		identity := func(more string) string {
			return "[ipsec.identity.l2tp-out1]\nauth-method = \"digital-signature\"\ncertificate = \"/etc/culvert/pki/router7.crt\"\nkey = \"/etc/culvert/pki/router7.key\"\n" +
				"ca = [\"/etc/culvert/pki/ca.crt\", \"/etc/culvert/pki/root.crt\"]\n" + more
		}
		c := callConfig{Plain: true, Absent: true, Extra: "use-ipsec = true\n", Tables: identity("remote-id = \"fqdn:bank.example.com\"\n"),
			Prepare: func(r *callRig) { s.deliver(r.near, "", "ca.crt", "root.crt", "router7.crt", "router7.key") }}
		r := newCallRig(t, l, c)
		ike := callIKE
		ike.PSK, ike.Certs = "", s.certs("vpn.example.com", "root", "mid", "ca")
		r.server = lab.ReferenceServer(r.far, ike, callLNS(77))

		// By name it is the wrong server; by what connect-to says, its address, the right one.
		r.fails("l2tp-out1", `it does not stand for "bank.example.com"; it has vpn.example.com, 192.0.2.1`)
		c.Tables = identity("")
		r.configure(c.toml())
		r.up()
		if !strings.Contains(r.Log(), "C=DE") {
			t.Error("the log does not show the server's subject")
		}
		r.server.Stop()
		// The same address with a certificate of another name.
		ike.Certs = s.certs("other.example.com", "ca")
		r.server = lab.ReferenceServer(r.far, ike, callLNS(77))
		r.fails("l2tp-out1", `it does not stand for "192.0.2.1"; it has other.example.com`)
		r.Signal(syscall.SIGTERM)
		if err := r.Wait(30 * time.Second); err != nil {
			t.Errorf("culvert: %v", err)
		}
		r.clean()
	}, lab.Timeout(5*time.Minute))
}
