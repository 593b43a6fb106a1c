package openwrt

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

const usualUCI = `
config culvert 'main'
	option enabled '1'
	option identity 'office'
	list log 'info'
	list log '!ppp'
	list interface 'wan'

config server 'server'
	option enabled '1'
	option use_ipsec 'required'
	option ipsec_secret 'a "long" key \ with # $HOME and ` + "`id`" + `'
	list authentication 'mschap2'
	list authentication 'chap'
	option keepalive_timeout '30'
	option max_sessions 'unlimited'
	option max_mtu '1400'
	option one_session_per_host 'on'
	list allowed_address '0.0.0.0/0'

config pool
	option name 'vpn'
	list range '192.168.99.2-192.168.99.49'
	list range '192.168.99.60-192.168.99.99'

config profile
	option name 'default-encryption'
	option local_address '192.168.99.1'
	option remote_address 'vpn'
	list dns_server '192.168.99.1'
	list dns_server '9.9.9.9'
	option idle_timeout '1h'
	option change_tcp_mss '0'

config user 'alice'
	option password 'it'\''s a secret'
	list route '10.1.0.0/24'
	list route '10.2.0.0/24 192.168.99.9 1'

config user
	option name 'bob smith'
	option password 'x'
	option disabled '1'
	option comment "says \"no\""

config binding 'home'
	option name 'l2tp-home'
	option user 'alice'

config client 'branch'
	option connect_to 'vpn.example.com'
	option user 'me'
	option password 'y'
	option use_ipsec '1'
	option ipsec_secret 'k'
	option default_route_distance '5'
`

func TestServer(t *testing.T) {
	r := newRoot(t)
	r.write("/etc/config/network", "config interface 'lan'\n\toption proto 'static'\n", 0o644)
	r.write("/etc/config/culvert", usualUCI, 0o600)
	want := []string{
		"procd_open_service", "procd_open_instance",
		"procd_set_param|command|/usr/sbin/culvert|run|-c|/var/run/culvert/culvert.toml",
		"procd_set_param|file|/var/run/culvert/culvert.toml",
		"procd_set_param|reload_signal|HUP",
		"procd_set_param|respawn|3600|5|0",
		"procd_set_param|term_timeout|15",
		"procd_set_param|stdout|1", "procd_set_param|stderr|1",
		"procd_close_instance",
		"procd_add_reload_trigger|culvert",
		"procd_add_interface_trigger|interface.*.up|wan|/etc/init.d/culvert|reload",
		"procd_close_service",
	}
	if calls := r.service("start"); !slices.Equal(calls, want) {
		t.Errorf("procd is asked for\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(want, "\n"))
	}
	text := r.read("/var/run/culvert/culvert.toml")
	var got map[string]any
	if _, err := toml.Decode(text, &got); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	type m = map[string]any
	type l = []any
	for key, want := range (m{
		"system": m{"identity": "office"},
		"log":    m{"topics": l{"info", "!ppp"}},
		"ip":     m{"pool": m{"vpn": m{"ranges": l{"192.168.99.2-192.168.99.49", "192.168.99.60-192.168.99.99"}}}},
		"ppp": m{
			"profile": m{"default-encryption": m{"local-address": "192.168.99.1", "remote-address": "vpn", "dns-server": l{"192.168.99.1", "9.9.9.9"},
				"idle-timeout": "1h", "change-tcp-mss": false}},
			"secret": m{
				"alice":     m{"password": "it's a secret", "routes": l{"10.1.0.0/24", "10.2.0.0/24 192.168.99.9 1"}},
				"bob smith": m{"password": "x", "disabled": true, "comment": `says "no"`},
			}},
		"l2tp": m{
			"server": m{"enabled": true, "use-ipsec": "required", "ipsec-secret": "a \"long\" key \\ with # $HOME and `id`",
				"authentication": l{"mschap2", "chap"}, "keepalive-timeout": "30s", "max-sessions": "unlimited", "max-mtu": int64(1400),
				"one-session-per-host": true, "allowed-address": l{"0.0.0.0/0"}},
			"binding": m{"l2tp-home": m{"user": "alice"}},
			"client": m{"branch": m{"connect-to": "vpn.example.com", "user": "me", "password": "y", "use-ipsec": true, "ipsec-secret": "k",
				"default-route-distance": int64(5)}},
		},
	}) {
		if !reflect.DeepEqual(got[key], want) {
			t.Errorf("%s = %#v\nwant %#v", key, got[key], want)
		}
	}
	if len(got) != 5 {
		t.Errorf("there is more in\n%s", text)
	}
	if out, _, err := r.run(r.command("/bin/sh", "-c", "ls -l /var/run/culvert/culvert.toml")); err == nil && !strings.HasPrefix(out, "-rw-------") {
		t.Errorf("others may read it: %s", out)
	}
}

// What the package comes with is good, and serves nobody before somebody says so.
func TestShipped(t *testing.T) {
	r := newRoot(t)
	calls := r.service("start")
	if i := slices.IndexFunc(calls, func(s string) bool {
		return strings.HasPrefix(s, "logger") || strings.HasPrefix(s, "procd_open_instance")
	}); i >= 0 {
		t.Errorf("asked for %q", calls)
	}
	if !strings.Contains(r.read("/var/run/culvert/culvert.toml"), "[l2tp.server]") {
		t.Error("no configuration was made")
	}
	uci := strings.Replace(r.read("/etc/config/culvert"), "config server 'server'\n\toption enabled '0'", "config server 'server'\n\toption enabled '1'", 1)
	uci = strings.Replace(uci, "option ipsec_secret ''", "option ipsec_secret 'made at first boot'", 1)
	r.write("/etc/config/culvert", uci, 0o600)
	if calls := r.service("reload"); !slices.Contains(calls, "procd_open_instance") {
		t.Errorf("switched on, asked for %q", calls)
	}
	r.write("/etc/config/culvert", strings.Replace(uci, "option enabled '1'", "option enabled '0'", 1), 0o600)
	if calls := r.service("reload"); slices.Contains(calls, "procd_open_instance") || r.exists("/var/run/culvert/culvert.toml") {
		t.Errorf("switched off, asked for %q", calls)
	}
}

// A mistake is told, and the daemon goes on with what it had.
func TestMistake(t *testing.T) {
	r := newRoot(t)
	r.write("/etc/config/culvert", strings.Replace(usualUCI, "192.168.99.49", "192.168.98.49", 1), 0o600)
	calls := r.service("start")
	if slices.Contains(calls, "procd_open_instance") {
		t.Errorf("run with a mistake in it: %q", calls)
	}
	if s := strings.Join(calls, "\n"); !strings.Contains(s, "logger|-t|culvert|-p|daemon.err|/etc/config/culvert: /var/run/culvert/culvert.toml.new:") {
		t.Errorf("not told: %s", s)
	}
	r.write("/etc/config/culvert", usualUCI, 0o600)
	r.service("start")
	good := r.read("/var/run/culvert/culvert.toml")
	r.write("/etc/config/culvert", strings.Replace(usualUCI, "'mschap2'", "'mschap7'", 1), 0o600)
	calls = r.service("reload")
	if !slices.Contains(calls, "procd_set_param|file|/var/run/culvert/culvert.toml") || r.read("/var/run/culvert/culvert.toml") != good {
		t.Errorf("a mistake costs the daemon its configuration: %q", calls)
	}
	if s := strings.Join(calls, "\n"); !strings.Contains(s, "mschap7") {
		t.Errorf("not told: %s", s)
	}
	// A user without a name is left out, and said so.
	r.write("/etc/config/culvert", usualUCI+"\nconfig user\n\toption password 'z'\n", 0o600)
	if s := strings.Join(r.service("reload"), "\n"); !strings.Contains(s, "type 'secret' has no option name") {
		t.Errorf("not told: %s", s)
	}
}

// A file of one's own is run as it is, until netifd has an interface to add.
func TestOwnFile(t *testing.T) {
	r := newRoot(t)
	const own = "# mine\n[l2tp.server]\nipsec-secret = \"a long pre-shared key\"\n"
	r.write("/etc/culvert/culvert.toml", own, 0o600)
	r.write("/etc/config/network", "config interface 'lan'\n\toption proto 'static'\n", 0o644)
	r.write("/etc/config/culvert", "config culvert 'main'\n\toption config '/etc/culvert/culvert.toml'\n", 0o600)
	const run = "procd_set_param|command|/usr/sbin/culvert|run|-c|"
	if calls := r.service("start"); !slices.Contains(calls, run+"/etc/culvert/culvert.toml") {
		t.Errorf("asked for %q", calls)
	}
	if calls := r.service("reload"); slices.Contains(calls, "procd_kill|culvert") {
		t.Errorf("stopped to be reloaded: %q", calls)
	}
	r.write("/etc/config/network", "config interface 'vpn'\n\toption proto 'culvert'\n", 0o644)
	calls := r.service("reload")
	if i := slices.Index(calls, "procd_kill|culvert"); i < 0 || !slices.Contains(calls[i:], run+"/var/run/culvert/culvert.toml") {
		t.Errorf("another file, but: %q", calls)
	}
	if text := r.read("/var/run/culvert/culvert.toml"); !strings.HasSuffix(text, own) {
		t.Errorf("made of it:\n%s", text)
	}
	r.write("/etc/culvert/culvert.toml", own+"nonsense = 1\n", 0o600)
	if s := strings.Join(r.service("reload"), "\n"); !strings.Contains(s, "nonsense") {
		t.Errorf("not told: %s", s)
	}
}
