package console

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/crypt"
	"culvert/l2tp"
)

// objects are the menus of the configuration, in the order in which `export` writes them: what is named comes before
// what names it. A table of the configuration that is in none of them gets a menu of its own, by its TOML name.
var objects []*object

func ourObjects() []*object {
	return []*object{
		{menu: "system identity", about: "the name of this router", path: "system", only: []string{"identity"}, names: map[string]string{"identity": "name"}},
		{menu: "system settings", about: "data path, crypto engine", path: "system", without: []string{"identity"}},
		{menu: "user", about: "who may use the console", path: "user", columns: []string{"name", "group"}, without: []string{"password-hash"},
			ignored: []string{"address", "inactivity-timeout", "inactivity-policy"}, hooks: map[string]func(*change, string) error{
				"password": func(ch *change, value string) error {
					hash, err := crypt.Hash(value)
					if err != nil {
						return err
					}
					return ch.e.doc.Set(ch.path, "password-hash", hash)
				},
				"password-hash": func(ch *change, value string) error { return ch.e.doc.Set(ch.path, "password-hash", value) },
			}},
		{menu: "system logging action", about: "where the log goes", path: "log", without: []string{"topics"},
			alias: map[string]string{"memory-lines": "ring"}},
		{menu: "ip pool", about: "addresses for users", path: "ip.pool", columns: []string{"name", "ranges", "used", "next-pool"},
			values: map[string]string{"next-pool=none": ""}, extra: poolExtra},
		{menu: "ppp profile", about: "what users get", path: "ppp.profile",
			values: map[string]string{"change-tcp-mss=default": "yes", "use-ipv6=default": "yes", "use-ipv6=required": "yes", "only-one=default": "no"},
			ignored: []string{"address-list", "bridge-horizon", "bridge-learning", "bridge-path-cost", "bridge-port-priority", "incoming-filter",
				"insert-queue-before", "interface-list", "outgoing-filter", "parent-queue", "queue-type", "use-compression", "use-mpls", "use-upnp",
				"use-vj-compression", "dhcpv6-pd-pool"}},
		{menu: "ppp secret", about: "users who may log in", path: "ppp.secret",
			columns: []string{"name", "service", "caller-id", "password", "profile", "remote-address"},
			added:   map[string]string{"password": ""},
			ignored: []string{"limit-bytes-in", "limit-bytes-out", "ipv6-routes", "remote-ipv6-prefix"}},
		{menu: "ppp aaa", about: "who decides, and who is told", path: "ppp.aaa"},
		{menu: "radius", about: "RADIUS servers", path: "radius", prefix: "radius", columns: []string{"name", "service", "address", "secret"},
			ignored: []string{"accounting-backup", "called-id", "domain", "protocol", "realm", "src-address", "certificate"}},
		{menu: "interface l2tp-server server", about: "settings of the L2TP server", path: "l2tp.server",
			alias:   map[string]string{"profile": "default-profile"},
			values:  map[string]string{"l2tpv3-cookie-length=4-bytes": "4", "l2tpv3-cookie-length=8-bytes": "8", "use-ipsec=require": "required"},
			ignored: []string{"l2tpv3-ether-interface-list"},
			hooks:   map[string]func(*change, string) error{"port": serverPort}, after: serverAfter},
		{menu: "ip ipsec profile", about: "phase 1", path: "ipsec.profile", ignored: []string{"prf-algorithm", "proposal-check", "lifebytes"}},
		{menu: "ip ipsec proposal", about: "phase 2", path: "ipsec.proposal", ignored: []string{"disabled"}, values: map[string]string{
			"enc-algorithms=aes-128": "aes-128-cbc", "enc-algorithms=aes-192": "aes-192-cbc", "enc-algorithms=aes-256": "aes-256-cbc"}},
		{menu: "ip ipsec peer", about: "who may negotiate", path: "ipsec.peer", prefix: "peer", dynamic: dynamicPeer,
			columns: []string{"name", "address", "profile", "exchange-mode"}, after: peerAfter,
			ignored: []string{"passive", "local-address", "port", "generate-policy", "policy-template-group", "my-id", "responder", "proposal-check", "disabled"},
			hooks:   peerHooks()},
		{menu: "ip ipsec identity", about: "how peers are authenticated", path: "ipsec.identity", id: "peer", dynamic: dynamicPeer,
			columns: []string{"peer", "auth-method", "secret"},
			ignored: []string{"generate-policy", "my-id", "remote-id", "match-by", "mode-config", "notrack-chain", "policy-template-group", "remote-certificate", "disabled"}},
		{menu: "ip ipsec policy", about: "what is encrypted: made by use-ipsec and by peers", path: "ipsec.peer", id: "peer", only: []string{"proposal"},
			dynamic: dynamicPeer, columns: []string{"peer", "src-address", "dst-address", "protocol", "level", "proposal"}, extra: policyExtra, flags: "T - template",
			noAdd: "policies are made by use-ipsec and by /ip ipsec peer: UDP of L2TP, in transport mode, level require; there is nothing to add"},
		{menu: "ip ipsec settings", about: "bounds of the key exchange", path: "ipsec"},
		{menu: "interface l2tp-server", about: "interfaces of users who dialled in", path: "l2tp.binding", prefix: "l2tp-in", list: interfaceRows,
			hooks: map[string]func(*change, string) error{"password": bindingUser("password"), "profile": bindingUser("profile")}},
		{menu: "interface l2tp-client", about: "tunnels that this router dials", path: "l2tp.client", prefix: "l2tp-out", flags: "R - running",
			added: map[string]string{"disabled": "yes"}, extra: clientExtra,
			values:  map[string]string{"l2tpv3-cookie-length=4-bytes": "4", "l2tpv3-cookie-length=8-bytes": "8"},
			ignored: []string{"random-source-port"}},
		{menu: "interface l2tp-ether", about: "Ethernet over L2TPv3", path: "l2tp.ether", prefix: "l2tp-ether", flags: "",
			added: map[string]string{"disabled": "yes"}, values: map[string]string{"cookie-length=4-bytes": "4", "cookie-length=8-bytes": "8"}},
		{menu: "ip firewall settings", about: "what culvert does in the firewall", path: "ip.firewall"},
	}
}

// plantObjects gives every table of the configuration its menu.
func plantObjects() {
	objects = ourObjects()
	seen := map[string]bool{}
	for _, o := range objects {
		seen[o.path] = true
	}
	v := config.Schema()
	for _, t := range v.Singles {
		if path := strings.Join(t.Path, "."); !seen[path] {
			objects = append(objects, &object{menu: strings.Join(t.Path, " "), about: "settings", path: path})
		}
	}
	for _, c := range v.Collections {
		if path := strings.Join(c.Path, "."); !seen[path] {
			objects = append(objects, &object{menu: strings.Join(c.Path, " "), about: "one entry per " + c.Kind, path: path})
		}
	}
	for _, o := range objects {
		m := root.make(o.menu)
		if m.about == "" {
			m.about = o.about
		}
		m.object = o
		for _, cmd := range o.commands() {
			if !slices.ContainsFunc(m.commands, func(c *command) bool { return c.name == cmd.name }) {
				m.commands = append(m.commands, cmd)
			}
		}
	}
}

func poolExtra(src Source, _ *config.Config, name string) []field {
	used := 0
	if src != nil {
		for _, u := range src.PoolsUsed() {
			if u.Pool == name {
				used++
			}
		}
	}
	return []field{{key: "used", value: fmt.Sprint(used), json: used}}
}

// dynamicPeer is the peer that use-ipsec makes.
func dynamicPeer(cfg *config.Config) []string {
	if cfg.Server.Enabled && cfg.Server.UseIPsec != l2tp.ProtectionNone {
		return []string{config.DynamicPeer}
	}
	return nil
}

// policyExtra are the selectors of a peer's policy.
func policyExtra(_ Source, cfg *config.Config, name string) []field {
	dst := "0.0.0.0/0,::/0"
	if cfg != nil {
		for _, p := range cfg.IPsec.Peers {
			if p.Name == name {
				dst = strings.Join(names(p.Remote), ",")
			}
		}
	}
	return []field{flagField("template", 'T', true), textField("src-address", "0.0.0.0/0,::/0"), textField("dst-address", dst), textField("protocol", "udp"),
		textField("action", "encrypt"), textField("level", "require"), textField("ipsec-protocols", "esp"), flagless("tunnel", "no")}
}

func flagless(key, value string) field { return field{key: key, value: value, json: value} }

func clientExtra(src Source, cfg *config.Config, name string) []field {
	status := ""
	if src != nil && cfg != nil {
		disabled := slices.ContainsFunc(cfg.Clients, func(x config.Client) bool { return x.Name == name && x.Disabled })
		status = stateOf(src.Clients(), name, disabled).Status
	}
	return []field{flagField("running", 'R', status == "connected"), textField("status", status)}
}

func interfaceRows(src Source) []row {
	var rows []row
	for i, r := range interfaces(src) {
		fs := fields(r)
		for j := range fs {
			if fs[j].key == "name" {
				fs[j].json = r.Name
			}
		}
		rows = append(rows, row{i, fs, r})
	}
	return rows
}

// serverPort moves the server to another port, on the addresses that it has.
func serverPort(ch *change, value string) error {
	var list []string
	if t := ch.table(); t != nil {
		list, _ = t.Key("listen").Effective().([]string)
	}
	var out []string
	for _, s := range list {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return err
		}
		to, err := netip.ParseAddrPort(netip.AddrPortFrom(a.Addr(), 0).String())
		if err != nil {
			return err
		}
		host := strings.TrimSuffix(to.String(), "0") + value
		if p, err := netip.ParseAddrPort(host); err != nil || p.Port() == 0 {
			return usagef("port: %s is not a port", quote(value))
		}
		out = append(out, host)
	}
	return ch.e.doc.Set(ch.path, "listen", out)
}

// serverAfter keeps to RouterOS's default where nothing is said about IPsec: with a secret it is used, without one not.
func serverAfter(ch *change) error {
	t := ch.table()
	if t == nil || t.Key("enabled").Effective() != true {
		return nil
	}
	// An empty table is an enabled server, which is said in so many words.
	if t.Key("enabled").Value == nil {
		if err := ch.e.doc.Set(ch.path, "enabled", ch.said["enabled"] == "yes"); err != nil || ch.said["enabled"] != "yes" {
			return err
		}
	}
	if t.Key("use-ipsec").Value == nil && t.Key("ipsec-secret").Effective() == "" {
		if id := ch.e.inv.Collection("ipsec.identity").Find(config.DynamicPeer); id != nil {
			return nil
		}
		ch.note("use-ipsec=no, as RouterOS has it: without IPsec nothing is encrypted. set use-ipsec=required ipsec-secret=...")
		return ch.e.doc.Set(ch.path, "use-ipsec", "no")
	}
	return nil
}

// bindingUser writes what belongs to the user of a static interface, and makes the user where there is none.
func bindingUser(key string) func(*change, string) error {
	return func(ch *change, value string) error {
		user := ch.said["user"]
		if user == "" {
			if t := ch.table(); t != nil {
				user = keyText(t.Key("user").Effective())
			}
		}
		if user == "" {
			return usagef("%s is the user's: say user=...", key)
		}
		path := []string{"ppp", "secret", user}
		if !ch.e.doc.Has(path) {
			if err := ch.e.doc.Add(path); err != nil {
				return err
			}
			if err := ch.e.doc.Set(path, "password", ""); err != nil {
				return err
			}
			ch.note("user %s is new: see /ppp secret", valueText(user))
		}
		return ch.e.doc.Set(path, key, value)
	}
}

// peerAfter keeps to RouterOS's default: a peer without an address is anybody.
func peerAfter(ch *change) error {
	if _, said := ch.said["address"]; said || !ch.isNew || ch.path[len(ch.path)-1] == config.DynamicPeer {
		return nil
	}
	return ch.e.doc.Set(ch.path, "address", []string{"0.0.0.0/0"})
}

// peerHooks are the arguments that RouterOS before 6.44 had at the peer: the secret is the identity's today, and the
// algorithms are a profile's.
func peerHooks() map[string]func(*change, string) error {
	out := map[string]func(*change, string) error{}
	for _, key := range []string{"secret", "auth-method", "certificate", "key"} {
		out[key] = func(ch *change, value string) error {
			if key == "certificate" && !strings.HasPrefix(value, "/") {
				return &NotOursError{What: "certificate=" + valueText(value), Why: "certificates are PEM files: name them in /ip ipsec identity, certificate=/etc/... key=/etc/... ca=/etc/..."}
			}
			path := []string{"ipsec", "identity", ch.path[len(ch.path)-1]}
			if key == "certificate" {
				if err := ch.e.doc.Set(path, "auth-method", "digital-signature"); err != nil {
					return err
				}
			}
			return ch.e.doc.Set(path, key, value)
		}
	}
	for _, key := range []string{"hash-algorithm", "enc-algorithm", "dh-group", "lifetime", "nat-traversal", "dpd-interval", "dpd-maximum-failures"} {
		out[key] = func(ch *change, value string) error {
			profiles := objectAt("ip ipsec profile")
			_, k, _, err := profiles.argument(key)
			if err != nil {
				return err
			}
			v, err := profiles.value(k, value)
			if err != nil {
				return err
			}
			name := ch.path[len(ch.path)-1]
			if err := ch.e.doc.Set([]string{"ipsec", "profile", name}, key, v); err != nil {
				return err
			}
			return ch.e.doc.Set(ch.path, "profile", name)
		}
	}
	return out
}

func objectAt(menu string) *object {
	i := slices.IndexFunc(objects, func(o *object) bool { return o.menu == menu })
	return objects[i]
}
