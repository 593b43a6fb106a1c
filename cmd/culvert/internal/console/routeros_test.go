package console

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"culvert/cmd/culvert/internal/config"
)

// routerOS are commands as how-tos for RouterOS have them, in their order and as they stand there. Each works, or says in
// one line whose business it is.
var routerOS = []struct {
	command string
	want    string // what the answer holds; "" for no answer at all
	not     bool   // it is not culvert's
	check   func(c *config.Config) bool
}{
	// A server with IPsec.
	{command: `/interface l2tp-server server set enabled=yes use-ipsec=yes ipsec-secret="YourStrongPSK123!" default-profile=default-encryption authentication=mschap2`,
		check: func(c *config.Config) bool {
			return c.Server.Enabled && string(c.IPsec.Peers[0].Secret) == "YourStrongPSK123!"
		}},
	{command: `/ip pool add name=l2tp-pool ranges=192.168.100.2-192.168.100.50`, check: func(c *config.Config) bool { return len(c.AAA.Pools["l2tp-pool"].Ranges) == 1 }},
	{command: `/ppp profile add name=l2tp-profile local-address=192.168.100.1 remote-address=l2tp-pool dns-server=192.168.1.1,8.8.8.8 use-encryption=yes`,
		want:  "note: ppp.profile.l2tp-profile.use-encryption: not supported by this version yet: MPPE encryption",
		check: func(c *config.Config) bool { return len(c.AAA.Profiles["l2tp-profile"].DNS) == 2 }},
	{command: `/interface l2tp-server server set default-profile=l2tp-profile`, check: func(c *config.Config) bool { return c.Server.DefaultProfile == "l2tp-profile" }},
	{command: `/ip ipsec policy add src-address=0.0.0.0/0 dst-address=0.0.0.0/0 protocol=udp src-port=1701 dst-port=1701 action=encrypt level=require ipsec-protocols=esp tunnel=no sa-src-address=0.0.0.0 sa-dst-address=0.0.0.0 proposal=default`,
		not: true, want: "/ip ipsec policy add: policies are made by use-ipsec"},
	{command: `/ip ipsec proposal add name=l2tp-proposal auth-algorithms=sha1 enc-algorithms=aes-256-cbc,aes-192-cbc,aes-128-cbc pfs-group=modp1024`, want: "modp1024 is weak"},
	{command: `/ip ipsec policy set [find] proposal=l2tp-proposal`, check: func(c *config.Config) bool { return c.IPsec.Peers[0].Proposal.PFS != 0 }},
	{command: `/ip firewall filter add chain=input action=accept protocol=ipsec-esp comment="Allow IPsec ESP"`, not: true, want: "/ip firewall filter: the firewall is the system's"},
	{command: `/ip firewall filter add chain=input action=accept protocol=udp dst-port=500 comment="Allow IKE"`, not: true, want: "let UDP 500 and 4500"},
	{command: `/ip firewall filter add chain=forward action=accept in-interface=l2tp-in comment="Allow L2TP client traffic"`, not: true, want: "the system's"},
	{command: `/ip firewall nat add chain=srcnat src-address=192.168.100.0/24 out-interface=ether1 action=masquerade comment="L2TP client NAT"`, not: true, want: "/ip firewall nat: the firewall"},
	{command: `/ppp secret add name=user1 password=SecurePass123! service=l2tp profile=l2tp-profile comment="L2TP User 1"`,
		check: func(c *config.Config) bool {
			s := c.AAA.Secrets["user1"]
			return s.Password == "SecurePass123!" && s.Service == "l2tp" && s.Comment == "L2TP User 1"
		}},
	{command: `/ppp secret add name=user2 password=AnotherPass456! service=l2tp profile=l2tp-profile comment="L2TP User 2"`},
	{command: `/ppp secret add name=admin password=AdminPass789! service=l2tp profile=l2tp-profile remote-address=192.168.100.10 comment="L2TP Admin"`,
		check: func(c *config.Config) bool { return c.AAA.Secrets["admin"].Remote.Addr.String() == "192.168.100.10" }},
	{command: `/certificate add name=ipsec-ca common-name="IPsec CA" key-size=4096 days-valid=3650 key-usage=crl-sign,key-cert-sign`, not: true, want: "/certificate: certificates are PEM files"},
	{command: `/certificate sign ipsec-ca`, not: true, want: "PEM files"},
	{command: `/certificate add name=ipsec-server common-name="vpn.example.com" key-size=4096 days-valid=3650 key-usage=digital-signature,key-encipherment,tls-server`, not: true, want: "PEM"},
	{command: `/certificate sign ipsec-server ca=ipsec-ca`, not: true, want: "PEM"},
	{command: `/certificate set ipsec-server trusted=yes`, not: true, want: "PEM"},
	{command: `/ip ipsec peer add address=0.0.0.0/0 certificate=ipsec-server`, not: true, want: "certificate=ipsec-server: certificates are PEM files"},
	{command: `/interface l2tp-server add name=l2tp-server2 user=user3 password=pass3 profile=l2tp-profile disabled=no`, want: "note: user user3 is new",
		check: func(c *config.Config) bool {
			return c.AAA.Bindings["user3"] == "l2tp-server2" && c.AAA.Secrets["user3"].Password == "pass3" && c.AAA.Secrets["user3"].Profile == "l2tp-profile"
		}},
	{command: `/interface l2tp-server server set authentication=mschap2,mschap1`, want: "mschap1 is weak", check: func(c *config.Config) bool { return len(c.Server.PPP.Auth) == 2 }},
	{command: `/interface l2tp-server print detail`, want: `name="l2tp-user1"`},
	{command: `/ppp active print where service=l2tp`, want: "user1"},
	{command: `/ip ipsec active-peers print`, want: "established"},
	{command: `/ip ipsec installed-sa print`, want: "spi="},
	{command: `/log print where topics~"ipsec"`, want: "phase 1 is up"},
	{command: `/log print where topics~"l2tp"`},
	{command: `/ip ipsec proposal set [find] enc-algorithms=aes-128-cbc pfs-group=none`,
		check: func(c *config.Config) bool {
			return c.IPsec.Peers[0].Proposal.PFS == 0 && len(c.IPsec.Peers[0].Proposal.Suites) == 1
		}},
	{command: `/interface monitor-traffic interface=l2tp-user1 once`, want: "rx-bits-per-second: 1.0Gbps"},
	{command: `/interface l2tp-server server set port=1702`, check: func(c *config.Config) bool {
		return len(c.Server.Listen) == 2 && c.Server.Listen[0].String() == "0.0.0.0:1702" && c.Server.Listen[1].String() == "[::]:1702"
	}},
	{command: `/ip firewall filter set [find comment="Allow L2TP"] dst-port=1702`, not: true, want: "the system's"},
	// A client, with the prompt that documents show and lines that go on.
	{command: "[admin@MikroTik] > /ppp secret add local-address=10.0.0.2 name=MT-User password=StrongPass profile=default-encryption remote-address=10.0.0.1 service=l2tp",
		check: func(c *config.Config) bool { return c.AAA.Secrets["MT-User"].Local.Addr.String() == "10.0.0.2" }},
	{command: "[admin@MikroTik] > /interface l2tp-client \\\nadd connect-to=192.168.51.3 disabled=no name=MT-User password=StrongPass user=MT-User",
		check: func(c *config.Config) bool {
			return clientNamed(c, "MT-User").ConnectTo == "192.168.51.3" && !clientNamed(c, "MT-User").Disabled
		}},
	{command: "[admin@MikroTik] > /interface l2tp-client print ", want: `name="MT-User" connect-to=192.168.51.3 user="MT-User"`},
	{command: "/interface l2tp-client\nadd connect-to=192.168.88.1@vrf1 name=l2tp-vrf user=l2tp-client)",
		check: func(c *config.Config) bool {
			return clientNamed(c, "l2tp-vrf").VRF == "vrf1" && clientNamed(c, "l2tp-vrf").Disabled
		}},
	{command: `[admin@dzeltenais_burkaans] /interface l2tp-client>add name=l2tp-hm user=l2tp-hm password=123 \ \... connect-to=10.1.101.100 disabled=no`,
		check: func(c *config.Config) bool {
			return clientNamed(c, "l2tp-hm").ConnectTo == "10.1.101.100" && clientNamed(c, "l2tp-hm").Password == "123"
		}},
	{command: `[admin@dzeltenais_burkaans] /interface l2tp-client> print detail`, want: `name="l2tp-hm"`},
	{command: `[admin@dzeltenais_burkaans] /interface l2tp-client> monitor 0 once`, want: "status: connected"},
	{command: "[admin@MikroTik] interface l2tp-server server> set enabled=yes"},
	{command: "[admin@MikroTik] interface l2tp-server server> print", want: "enabled: yes"},
	{command: "[admin@RemoteOffice] /ppp secret> add name=Laptop service=l2tp password=123 local-address=10.1.101.1 remote-address=10.1.101.100"},
	{command: "[admin@RemoteOffice] /ppp secret> print detail", want: `name="Laptop"`},
	{command: "[admin@RemoteOffice] interface ethernet> set ether2 arp=proxy-arp", not: true, want: "/interface ethernet: addresses and interfaces are the system's"},
	{command: "[admin@RemoteOffice] interface ethernet> print", not: true, want: "the system's"},
	{command: `[admin@RemoteOffice] /ppp secret> add name=Home2 service=l2tp password=123 local-address=172.16.1.1 remote-address=172.16.1.2 routes="10.1.202.0/24 172.16.1.2 1"`,
		check: func(c *config.Config) bool {
			r := c.AAA.Secrets["Home2"].Routes
			return len(r) == 1 && r[0].Metric == 1 && r[0].Gateway.String() == "172.16.1.2"
		}},
	{command: "[admin@Home] /interface l2tp-client> add user=Home password=123 connect-to=192.168.80.1 disabled=no",
		check: func(c *config.Config) bool { return clientNamed(c, "l2tp-out2").User == "Home" }},
	{command: "[admin@Home] /interface l2tp-client> print", want: `name="l2tp-out2"`},
	{command: "[admin@Home] /ip route> add dst-address=10.1.101.0/24 gateway=l2tp-out1", not: true, want: "/ip route: routes are the system's"},
	{command: "/interface l2tp-server server set enabled=yes use-ipsec=required ipsec-secret=mySecret default-profile=default", want: "there is no address to give",
		check: func(c *config.Config) bool { return string(c.IPsec.Peers[0].Secret) == "mySecret" }},
	{command: "[admin@MikroTik] /ip ipsec peer> print", want: "l2tp-in"},
	// Web pages lose the line ends of examples.
	{command: "/ip pool add name=vpn-pool2 range=192.168.89.2-192.168.89.100 /ppp profile set default local-address=192.168.89.1 remote-address=vpn-pool2 /ppp secret add name=user12 password=123 add name=user13 password=234",
		check: func(c *config.Config) bool {
			return c.AAA.Profiles["default"].Remote.Pool == "vpn-pool2" && c.AAA.Secrets["user12"].Password == "123" && c.AAA.Secrets["user13"].Password == "234"
		}},
	{command: "/ip firewall filter add chain=input protocol=udp port=1701,500,4500 add chain=input protocol=ipsec-esp", not: true, want: "the system's"},
	{command: "/ip address add address=1.1.1.1/24 interface=ether1 /ip route add gateway=1.1.1.2", not: true, want: "/ip address: addresses and interfaces are the system's"},
	{command: "/ip address add address=10.5.8.120/24 interface=ether1", not: true, want: "/ip address"},
	{command: "/interface l2tp-server server set enabled=yes profil=default /ip pool add name=l2tp-pool3 ranges=192.168.1.2-192.168.1.20 /ppp profile set default local-address=192.168.1.1 remote-address=l2tp-pool3 /ppp secret add name=l2tp-test password=test123456",
		check: func(c *config.Config) bool {
			return c.Server.DefaultProfile == "default" && c.AAA.Profiles["default"].Remote.Pool == "l2tp-pool3" && c.AAA.Secrets["l2tp-test"].Password == "test123456"
		}},
	{command: "/interface l2tp-client add connect-to=1.1.1.1 disabled=no name=l2tp-out3 password=password user=l2tp-test"},
	{command: "/ip ipsec proposal set [ find default=yes ] enc-algorithms=3des,aes-128,aes-192,aes-256 /ip ipsec peer add generate-policy=yes hash-algorithm=sha1 nat-traversal=yes secret=test123456",
		want: "3des is weak", check: func(c *config.Config) bool {
			for _, p := range c.IPsec.Peers {
				if p.Name == "peer1" {
					return string(p.Secret) == "test123456" && len(p.Profile.Hashes) == 1 && p.Profile.NATTraversal && len(p.Proposal.Suites) == 8
				}
			}
			return false
		}},
	{command: "/ip ipsec proposal set [ find default=yes ] enc-algorithms=aes-128 /ip ipsec peer add address=1.1.1.1/32 hash-algorithm=sha1 nat-traversal=yes secret=test123456 /ip ipsec policy add dst-address=1.1.1.1/32 protocol=udp sa-dst-address=1.1.1.1 \\ sa-src-address=10.5.8.120 src-address=10.5.8.120/32",
		not: true, want: "policies are made by use-ipsec", check: func(c *config.Config) bool {
			for _, p := range c.IPsec.Peers {
				if p.Name == "peer2" {
					return p.Remote[0].String() == "1.1.1.1/32" && len(p.Proposal.Suites) == 2
				}
			}
			return false
		}},
}

func clientNamed(c *config.Config, name string) config.Client {
	for _, x := range c.Clients {
		if x.Name == name {
			return x
		}
	}
	return config.Client{}
}

func TestRouterOS(t *testing.T) {
	f := newFake(t)
	f.cfg, _ = config.Parse("c.toml", []byte("# mine\n\n[ppp.secret.Home]\npassword = \"x\"\n\n[l2tp.client.l2tp-out1]\nconnect-to = \"192.0.2.1\"\n"))
	f.disk = f.cfg.Text
	for _, x := range routerOS {
		out, err := run(t, f, x.command, false)
		var notOurs *NotOursError
		if errors.As(err, &notOurs) != x.not || err != nil && !x.not {
			t.Errorf("%s\n%v", x.command, err)
			continue
		}
		if x.not {
			out += err.Error()
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: more than one line: %v", x.command, err)
			}
		}
		if !strings.Contains(out, x.want) || x.want == "" && out != "" {
			t.Errorf("%s\n got %q\nwant %q", x.command, out, x.want)
		}
		if x.check != nil && !x.check(f.cfg) {
			t.Errorf("%s: did not do it:\n%s", x.command, f.disk)
		}
	}
	if !strings.HasPrefix(string(f.disk), "# mine\n\n[ppp.secret.Home]\npassword = \"x\"\n") {
		t.Errorf("the file has not kept its shape:\n%s", f.disk)
	}
	// The same as one script, on a router that is new.
	var script strings.Builder
	for _, x := range routerOS {
		if !strings.Contains(x.command, "once") && !strings.Contains(x.command, "monitor") {
			script.WriteString(x.command + "\n")
		}
	}
	name := filepath.Join(t.TempDir(), "all.rsc")
	if err := os.WriteFile(name, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	again := newFake(t)
	again.cfg, _ = config.Parse("c.toml", []byte("# mine\n\n[ppp.secret.Home]\npassword = \"x\"\n\n[l2tp.client.l2tp-out1]\nconnect-to = \"192.0.2.1\"\n"))
	again.disk = again.cfg.Text
	out, err := run(t, again, "/import "+name, false)
	if err != nil || !strings.Contains(out, "not culvert's\n") || !strings.Contains(out, "all.rsc:8: /ip firewall filter: the firewall is the system's") {
		t.Errorf("%v\n%s", err, out)
	}
	if string(again.disk) != string(f.disk) {
		t.Errorf("imported, it is another file:\n%s\n---\n%s", again.disk, f.disk)
	}
}

// What export writes, import reads: on an empty router it makes the same configuration.
func TestExportImport(t *testing.T) {
	full, err := os.ReadFile("../config/testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	if f.cfg, err = config.Parse("c.toml", full); err != nil {
		t.Fatal(err)
	}
	f.disk = full
	hidden, err := run(t, f, "/export", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"swordfish", `two\nlines`, "radius secret", "long shared", "another secret", "relics", "saltsalt", "tunnel-secret"} {
		if strings.Contains(hidden, secret) {
			t.Errorf("export shows %q", secret)
		}
	}
	out, err := run(t, f, "/export show-sensitive", false)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "export.rsc", out)
	for _, line := range strings.Split(out, "\n") {
		if len(line) > 80 && strings.Count(line, "=") > 1 {
			t.Errorf("a line is not folded: %s", line)
		}
	}
	name := filepath.Join(t.TempDir(), "full.rsc")
	if err := os.WriteFile(name, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := newFake(t)
	empty.disk = nil
	empty.cfg, _ = config.Parse("c.toml", nil)
	if out, err := run(t, empty, "/import file-name="+name, false); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, got := *f.cfg, *empty.cfg
	for _, c := range []*config.Config{&want, &got} {
		c.Text, c.Warnings = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("imported\n%+v\nwant\n%+v\n%s", got, want, empty.disk)
	}
	again, err := run(t, empty, "/export show-sensitive", false)
	if err != nil || again[strings.Index(again, "\n"):] != out[strings.Index(out, "\n"):] {
		t.Errorf("exported again, it is another script: %v\n%s", err, again)
	}
	if part, err := run(t, f, "/ppp secret export", false); err != nil || !strings.Contains(part, "/ppp secret\nadd name=Home") || strings.Contains(part, "/ip pool") {
		t.Errorf("%v %s", err, part)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("output differs from %s; go test -update writes it anew:\n%s", name, got)
	}
}

func TestImportStops(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	f := newFake(t)
	bad := write("bad.rsc", "# a script\n/ppp secret\nadd name=a password=1\nadd name=b \\\n  profile=nowhere\nadd name=c\n")
	_, err := run(t, f, "/import "+bad, false)
	if want := bad + `:4: ppp.secret.b.profile: there is no profile "nowhere": write [ppp.profile.nowhere]` + "\nthe commands before it are in force"; errText(err) != want {
		t.Errorf("%v", err)
	}
	if _, ok := f.cfg.AAA.Secrets["a"]; !ok {
		t.Error("what stood before the mistake is not in force")
	}
	if _, ok := f.cfg.AAA.Secrets["c"]; ok || f.cfg.AAA.Secrets["b"].Name != "" {
		t.Error("what stood behind the mistake is in force")
	}
	loop := filepath.Join(dir, "loop.rsc")
	write("loop.rsc", "/import "+loop+"\n")
	if _, err := run(t, f, "/import "+loop, false); err == nil || !strings.Contains(err.Error(), "4 deep") {
		t.Errorf("a file that imports itself: %v", err)
	}
	for _, name := range []string{"/nonexistent", dir, "/dev/zero"} {
		if _, err := run(t, f, "/import "+name, false); err == nil {
			t.Errorf("%s is imported", name)
		}
	}
}

// Everything that changes something, and what the file looks like afterwards.
func TestChange(t *testing.T) {
	const secrets = "# users\n[ppp.secret.ann] # first\npassword = \"a\"\ndisabled = true\n\n[ppp.secret.bob]\npassword = \"b\"\ncomment = \"old\"\nrate-limit = \"1M/1M\"\n"
	for command, want := range map[string]string{
		"/ppp secret enable ann":                                                                   "# users\n[ppp.secret.ann] # first\npassword = \"a\"\n\n[ppp.secret.bob]\npassword = \"b\"\ncomment = \"old\"\nrate-limit = \"1M/1M\"\n",
		"/ppp secret disable [find comment=old]":                                                   secrets + "disabled = true\n",
		"/ppp secret set 0,1 service=l2tp disabled=no":                                             "# users\n[ppp.secret.ann] # first\npassword = \"a\"\ndisabled = false\nservice = \"l2tp\"\n\n[ppp.secret.bob]\npassword = \"b\"\ncomment = \"old\"\nrate-limit = \"1M/1M\"\nservice = \"l2tp\"\ndisabled = false\n",
		"/ppp secret set ann,bob comment=x disabled=yes":                                           "# users\n[ppp.secret.ann] # first\npassword = \"a\"\ndisabled = true\ncomment = \"x\"\n\n[ppp.secret.bob]\npassword = \"b\"\ncomment = \"x\"\nrate-limit = \"1M/1M\"\ndisabled = true\n",
		"/ppp secret set numbers=1 !comment !rate-limit":                                           "# users\n[ppp.secret.ann] # first\npassword = \"a\"\ndisabled = true\n\n[ppp.secret.bob]\npassword = \"b\"\n",
		"/ppp secret unset bob rate-limit":                                                         "# users\n[ppp.secret.ann] # first\npassword = \"a\"\ndisabled = true\n\n[ppp.secret.bob]\npassword = \"b\"\ncomment = \"old\"\n",
		"/ppp secret remove ann":                                                                   "# users\n\n[ppp.secret.bob]\npassword = \"b\"\ncomment = \"old\"\nrate-limit = \"1M/1M\"\n",
		"/ppp secret remove [find]":                                                                "# users\n",
		"/ppp secret remove [find name=nobody]":                                                    secrets,
		"/ppp secret comment 0 \"hello \\\"you\\\"\"":                                              "# users\n[ppp.secret.ann] # first\npassword = \"a\"\ndisabled = true\ncomment = \"hello \\\"you\\\"\"\n\n[ppp.secret.bob]\npassword = \"b\"\ncomment = \"old\"\nrate-limit = \"1M/1M\"\n",
		"/ppp secret set bob name=\"DOM\\\\bob\"":                                                  strings.Replace(secrets, "ppp.secret.bob", `ppp.secret."DOM\\bob"`, 1),
		"/ppp secret add name=c copy-from=bob pass=z":                                              secrets + "\n[ppp.secret.c]\npassword = \"z\"\nrate-limit = \"1M/1M\"\ncomment = \"old\"\n",
		"/ppp profile set default idle-timeout=00:05:00 only=yes":                                  secrets + "\n[ppp.profile.default]\nidle-timeout = \"5m\"\nonly-one = true\n",
		"/ppp aaa set interim-update=300":                                                          secrets + "\n[ppp.aaa]\ninterim-update = \"5m\"\n",
		"/system identity set name=\"the office\"":                                                 secrets + "\n[system]\nidentity = \"the office\"\n",
		"/ip pool add name=p ranges=10.0.0.1-10.0.0.9,10.0.1.0/24":                                 secrets + "\n[ip.pool.p]\nranges = [\"10.0.0.1-10.0.0.9\", \"10.0.1.0/24\"]\n",
		"/interface l2tp-client add connect-to=192.0.2.1 l2tpv3-c=x":                               "", // ambiguous
		"/interface l2tp-client add connect-to=192.0.2.1 l2tpv3-coo=4-bytes keepalive-timeout=60s": secrets + "\n[l2tp.client.l2tp-out1]\nconnect-to = \"192.0.2.1\"\nl2tpv3-cookie-length = 4\nkeepalive-timeout = \"60s\"\ndisabled = true\n",
		"/interface l2tp-server server set enabled=yes":                                            secrets + "\n[l2tp.server]\nenabled = true\nuse-ipsec = \"no\"\n",
		"/interface l2tp-server server set max-mtu=1400":                                           secrets + "\n[l2tp.server]\nmax-mtu = 1400\nenabled = false\n",
		"/interface l2tp-server server set enabled=yes ipsec-secret=longenough max-sessions=unlimited mrru=1600": secrets +
			"\n[l2tp.server]\nenabled = true\nipsec-secret = \"longenough\"\nmax-sessions = \"unlimited\"\nmrru = 1600\n",
		"/system logging add topics=ipsec,debug":    secrets + "\n[log]\ntopics = [\"info\", \"ipsec,debug\"]\n",
		"/system logging remove 0":                  secrets + "\n[log]\ntopics = []\n",
		"/system logging action set memory-lines=9": secrets + "\n[log]\nring = 9\n",
		"/ip ipsec peer add name=x comment=y":       secrets + "\n[ipsec.peer.x]\ncomment = \"y\"\naddress = [\"0.0.0.0/0\"]\n",
		// Refused, and nothing is changed.
		"/ppp secret add name=ann":                              "",
		"/ppp secret add password=x":                            "",
		"/ppp secret set ann profile=nowhere":                   "",
		"/ppp secret set ann,bob service=pptp":                  "",
		"/ppp secret set carl comment=x":                        "",
		"/ppp secret set 7 comment=x":                           "",
		"/ppp secret set ann":                                   "",
		"/ppp secret set comment=x":                             "",
		"/ppp secret set [find name=ann] wibble=1":              "",
		"/ppp secret set bob name=ann":                          "",
		"/ppp secret remove ann,carl":                           "",
		"/ppp profile remove default":                           "",
		"/ppp profile set default name=x":                       "",
		"/interface l2tp-server add user=ann name=has/slash":    "",
		"/interface l2tp-server remove l2tp-user1":              "",
		"/interface l2tp-server server set port=x":              "",
		"/interface l2tp-server server set enabled=maybe":       "",
		"/interface l2tp-server server set 0 enabled=yes":       "",
		"/ppp aaa set interim-update=soon":                      "",
		"/ppp secret add name=x \"odd\"":                        "",
		"/system logging add topics=nonsense,topic":             "",
		"/ppp secret set ann password=\"\\00\"":                 "",
		"/interface l2tp-server server set enabled=yes,no":      "",
		"/ppp secret print where name=ann or (disabled":         "",
		"/user add name=x password=" + strings.Repeat("p", 300): "",
	} {
		f := newFake(t)
		f.disk = []byte(secrets)
		f.cfg, _ = config.Parse("c.toml", f.disk)
		_, err := run(t, f, command, false)
		if want == "" {
			if err == nil || string(f.disk) != secrets {
				t.Errorf("%s: %v\n%s", command, err, f.disk)
			}
			continue
		}
		if err != nil || string(f.disk) != want {
			t.Errorf("%s: %v\n got %q\nwant %q", command, err, f.disk, want)
		}
	}
}

func TestReadOnly(t *testing.T) {
	f := newFake(t)
	for _, command := range []string{"/ppp secret add name=x", "/ppp active remove 0", "/system reboot", "/import x", "/export show-sensitive",
		"/ppp secret print show-sensitive", "/system logging add topics=x", "/ppp secret disable user1", "/ppp secret comment user1 x", ":log info x"} {
		var out bytes.Buffer
		err := New(f).Execute(context.Background(), &Request{Command: command, ReadOnly: true}, &out)
		if !errors.Is(err, errReadOnly) {
			t.Errorf("%s: %v %s", command, err, out.String())
		}
	}
	if len(f.acts) > 0 {
		t.Errorf("done all the same: %v", f.acts)
	}
	var out bytes.Buffer
	if err := New(f).Execute(context.Background(), &Request{Command: "/export", ReadOnly: true}, &out); err != nil {
		t.Error(err)
	}
}

// A session remembers its menu, is asked before the router goes down, and sees monitor's frames.
func TestSession(t *testing.T) {
	f := newFake(t)
	c := New(f)
	r := &Request{Session: true, Redraw: true}
	do := func(command string) (string, error) {
		var out bytes.Buffer
		r.Command = command
		err := c.Execute(context.Background(), r, &out)
		return out.String(), err
	}
	for _, x := range []struct{ command, at string }{
		{"/ppp", "/ppp"}, {"secret", "/ppp secret"}, {"print", "/ppp secret"}, {"..", "/ppp"}, {".. ip pool", "/ip pool"}, {"/ppp secret print", "/ip pool"},
		{"used", "/ip pool used"}, {"/", ""}, {"..", ""}, {"/ip ipsec; peer", "/ip ipsec peer"}, {"", "/ip ipsec peer"},
	} {
		if _, err := do(x.command); err != nil || r.At != x.at {
			t.Errorf("%s: at %q, want %q (%v)", x.command, r.At, x.at, err)
		}
	}
	if _, err := do("/nowhere"); err == nil || r.At != "/ip ipsec peer" {
		t.Errorf("a mistake moves: %q", r.At)
	}
	var ask *AskError
	if _, err := do("/system reboot"); !errors.As(err, &ask) || len(f.acts) != 0 {
		t.Errorf("not asked: %v", err)
	}
	r.Confirmed = true
	if _, err := do("/system reboot"); err != nil || len(f.acts) != 1 || f.acts[0].Verb != Reboot {
		t.Errorf("%v %v", err, f.acts)
	}
	c.Every = func(_ context.Context, show func(time.Time) error) error { return errors.Join(show(noon), show(noon)) }
	out, err := do("/interface l2tp-client monitor 0")
	if err != nil || strings.Count(out, "\f") != 2 || !strings.HasPrefix(out, "\f") {
		t.Errorf("%v %q", err, out)
	}
	out, err = do("/interface monitor-traffic l2tp-user1")
	if err != nil || strings.Count(out, "1.0Gbps") != 2 {
		t.Errorf("%v %q", err, out)
	}
	if out, err := do(`:put "a\1Bb"; :log info "said"; :nothing`); err != nil || out != "a\\x1bb\n" || f.acts[1].Text != "said" {
		t.Errorf("%q %v %v", out, err, f.acts)
	}
	if _, err := do(":foreach i in=x do={}"); err == nil || !strings.Contains(err.Error(), "scripting") {
		t.Error(err)
	}
}

// Somebody else changes the file meanwhile.
func TestChangedMeanwhile(t *testing.T) {
	f := newFake(t)
	f.disk = append(f.disk, "[ppp.secret.byhand]\npassword = \"x\"\n"...)
	if _, err := run(t, f, "/ppp secret set user1 comment=x", false); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.cfg.AAA.Secrets["byhand"]; !ok || f.cfg.AAA.Secrets["user1"].Comment != "x" {
		t.Error("what was written by hand is lost")
	}
	f.disk = []byte("[ppp.secret.user1]\npassword = \n")
	if _, err := run(t, f, "/ppp secret set user1 comment=y", false); err == nil || !strings.Contains(err.Error(), "not TOML") {
		t.Errorf("a broken file is written to: %v", err)
	}
}
