package openwrt

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

const vpnInterface = `{"server":"vpn.example.com","username":"me","password":"it's \"x\"","ipsec_secret":"a key","keepalive":"45","mtu":1400,"auth":["mschap2","chap"],"ipv6":true}`

func networkRoot(t *testing.T) *root {
	r := newRoot(t)
	r.write("/etc/config/network", "config interface 'vpn'\n\toption proto 'culvert'\n", 0o644)
	return r
}

func TestProtocol(t *testing.T) {
	r := networkRoot(t)
	calls, err := r.handler("dump", "", "")
	if err != nil || !slices.Contains(calls, "dump|culvert|available=1|no_device=1|no_proto_task=0") || !slices.Contains(calls, "proto_config_add_string|ipsec_secret") {
		t.Errorf("dump: %v %q", err, calls)
	}

	calls, err = r.handler("setup", "vpn", vpnInterface)
	if err != nil {
		t.Errorf("setup: %v", err)
	}
	want := []string{"resolveip|-t|5|vpn.example.com", "proto_add_host_dependency|vpn|192.0.2.1", "proto_add_host_dependency|vpn|192.0.2.9"}
	if len(calls) < 3 || !slices.Equal(calls[:3], want) {
		t.Errorf("asked for %q", calls)
	}
	if i, j := slices.Index(calls, "procd_set_param|reload_signal|HUP"), slices.Index(calls, "proto_run_command|vpn|/lib/netifd/culvert-watch|vpn|l2tp-vpn"); i < 0 || j < i {
		t.Errorf("asked for %q", calls)
	}
	var got struct {
		PPP  struct{ Profile map[string]any }
		L2TP struct{ Client map[string]any }
	}
	if _, err := toml.Decode(r.read("/var/run/culvert/culvert.toml"), &got); err != nil {
		t.Fatal(err)
	}
	if want := (map[string]any{"profile": "l2tp-vpn", "connect-to": "vpn.example.com", "user": "me", "password": `it's "x"`, "use-ipsec": true,
		"ipsec-secret": "a key", "allow": []any{"mschap2", "chap"}, "keepalive-timeout": "45s", "max-mtu": int64(1400), "max-mru": int64(1400)}); !reflect.DeepEqual(got.L2TP.Client["l2tp-vpn"], want) {
		t.Errorf("client: %#v\nwant %#v", got.L2TP.Client["l2tp-vpn"], want)
	}
	if want := (map[string]any{"use-ipv6": true, "on-up": "/lib/netifd/culvert-up", "on-down": "/lib/netifd/culvert-down"}); !reflect.DeepEqual(got.PPP.Profile["l2tp-vpn"], want) {
		t.Errorf("profile: %#v", got.PPP.Profile)
	}
	for _, f := range []string{"/var/run/culvert/netifd/vpn.toml", "/var/run/culvert/culvert.toml"} {
		if info, err := os.Stat(filepath.Join(r.dir, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, info, err)
		}
	}

	// A second one beside it, without IPsec and without a list.
	if _, err := r.handler("setup", "b", `{"server":"vpn2.example.com","username":"me","use_ipsec":false,"auth":"pap"}`); err != nil {
		t.Errorf("setup of a second one: %v", err)
	}
	if text := r.read("/var/run/culvert/culvert.toml"); strings.Count(text, "[l2tp.client.") != 2 || !strings.Contains(text, `allow = ["pap"]`) || !strings.Contains(text, "use-ipsec = false") {
		t.Errorf("two interfaces:\n%s", text)
	}

	calls, err = r.handler("teardown", "vpn", vpnInterface)
	if err != nil || !slices.Contains(calls, "proto_kill_command|vpn") || r.exists("/var/run/culvert/netifd/vpn.hosts") {
		t.Errorf("teardown: %v %q", err, calls)
	}
	if text := r.read("/var/run/culvert/culvert.toml"); strings.Contains(text, "[l2tp.client.l2tp-vpn]") || !strings.Contains(text, "[l2tp.client.l2tp-b]") {
		t.Errorf("after the first is down:\n%s", text)
	}
	if calls, _ = r.handler("teardown", "b", "{}"); slices.Contains(calls, "procd_open_instance") {
		t.Errorf("a daemon with nothing to do: %q", calls)
	}
}

func TestProtocolRefuses(t *testing.T) {
	r := networkRoot(t)
	for _, c := range []struct{ name, interface_, config, code string }{
		{"no server", "vpn", `{"username":"me","ipsec_secret":"k"}`, "NO_SERVER"},
		{"no user", "vpn", `{"server":"vpn.example.com","ipsec_secret":"k"}`, "NO_USERNAME"},
		{"no key", "vpn", `{"server":"vpn.example.com","username":"me"}`, "NO_IPSEC_SECRET"},
		{"long name", "elevenchars", `{"server":"vpn.example.com","username":"me","ipsec_secret":"k"}`, "NAME_TOO_LONG"},
		{"mistake", "vpn", `{"server":"vpn.example.com","username":"me","ipsec_secret":"k","auth":["rot13"]}`, "BAD_CONFIGURATION"},
		{"two lines", "vpn", `{"server":"vpn.example.com\"\n[user.x]","username":"me","ipsec_secret":"k"}`, "BAD_CONFIGURATION"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			calls, err := r.handler("setup", c.interface_, c.config)
			for _, want := range []string{"proto_notify_error|" + c.interface_ + "|" + c.code, "proto_block_restart|" + c.interface_} {
				if !slices.Contains(calls, want) {
					t.Errorf("no %s in %q", want, calls)
				}
			}
			if err == nil || slices.ContainsFunc(calls, func(s string) bool { return strings.HasPrefix(s, "proto_run_command") }) {
				t.Errorf("goes on: %v %q", err, calls)
			}
			if r.exists("/var/run/culvert/netifd/" + c.interface_ + ".toml") {
				t.Error("leaves its part of the configuration behind")
			}
		})
	}
}

// The scripts that the daemon runs, with the environment that it gives them.
func TestLink(t *testing.T) {
	r := newRoot(t)
	r.write("/var/run/culvert/netifd/vpn.hosts", "192.0.2.1\n", 0o600)
	up := func(env ...string) []string {
		t.Helper()
		cmd := r.command("/lib/netifd/culvert-up")
		cmd.Env = append(cmd.Env, append([]string{"INTERFACE=l2tp-vpn", "LOCAL_ADDRESS=10.8.0.2", "REMOTE_ADDRESS=10.8.0.1", "REMOTE_ENDPOINT=192.0.2.9:1701",
			"DNS_SERVERS=10.8.0.1 9.9.9.9"}, env...)...)
		_, calls, err := r.run(cmd)
		if err != nil {
			t.Fatal(err)
		}
		return calls
	}
	want := []string{"proto_add_host_dependency|vpn|192.0.2.9", "proto_init_update|l2tp-vpn|1|1", "proto_set_keep|1",
		"proto_add_ipv4_address|10.8.0.2|32||10.8.0.1", "proto_add_ipv4_route|0.0.0.0|0|10.8.0.1",
		"proto_add_dns_server|10.8.0.1", "proto_add_dns_server|9.9.9.9", "proto_send_update|vpn"}
	if calls := up(); !slices.Equal(calls, want) {
		t.Errorf("up: %q\nwant %q", calls, want)
	}
	if calls := up(); !slices.Equal(calls, want[1:]) {
		t.Errorf("up again: %q\nwant %q", calls, want[1:])
	}
	// A gateway that is the server itself would not be reached through the tunnel.
	calls := up("REMOTE_ADDRESS=2001:db8::1", "REMOTE_ENDPOINT=[2001:db8::1]:1701", "DNS_SERVERS=")
	if calls[0] != "proto_add_host_dependency|vpn|2001:db8::1" || !slices.Contains(calls, "proto_add_ipv4_route|0.0.0.0|0|") {
		t.Errorf("up with the server as the other end: %q", calls)
	}
	cmd := r.command("/lib/netifd/culvert-down")
	cmd.Env = append(cmd.Env, "INTERFACE=l2tp-vpn")
	if _, calls, err := r.run(cmd); err != nil || !slices.Equal(calls, []string{"proto_init_update|l2tp-vpn|0", "proto_send_update|vpn"}) {
		t.Errorf("down: %v %q", err, calls)
	}
}

// The task tells why there is no link, once for each reason, and that a daemon is gone which can say nothing any more.
func TestWatch(t *testing.T) {
	r := newRoot(t)
	golden, err := os.ReadFile("../../cmd/culvert/internal/console/testdata/print.json.txt")
	if err != nil {
		t.Fatal(err)
	}
	const command = "[admin@office] > /interface l2tp-client monitor l2tp-out1\n"
	_, answer, ok := strings.Cut(string(golden), command)
	if !ok || !strings.Contains(answer, `"status": "connected"`) {
		t.Fatal("the console's own tests have no such answer any more")
	}
	connected := command + answer
	down := strings.Replace(connected, `"status": "connected"`, `"status": "dialing"`, 1)
	r.write("/console", down, 0o644)

	cmd := r.command("/lib/netifd/culvert-watch", "vpn", "l2tp-out1")
	cmd.Env = append(cmd.Env, "CULVERT_TEST_WAIT=0.05")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	defer cmd.Process.Kill()
	netifd := func() (calls []string) {
		for _, c := range r.calls() {
			if strings.HasPrefix(c, "proto_") {
				calls = append(calls, c)
			}
		}
		return calls
	}
	var want []string
	expect := func(more ...string) {
		t.Helper()
		want = append(want, more...)
		for deadline := time.Now().Add(20 * time.Second); !slices.Equal(netifd(), want); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("netifd is told %q\nwant %q", netifd(), want)
			}
		}
		// What is asked three times more tells nothing more.
		asked := len(r.calls())
		for deadline := time.Now().Add(20 * time.Second); len(r.calls()) < asked+3 && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
		if !slices.Equal(netifd(), want) {
			t.Fatalf("netifd is told %q\nwant %q", netifd(), want)
		}
	}
	const refused = "proto_notify_error|vpn|AUTH_FAILED|the server refuses the user or the password"
	expect(refused)
	r.write("/console", connected, 0o644)
	expect()
	r.write("/console", down, 0o644)
	expect(refused)
	os.Remove(filepath.Join(r.dir, "console"))
	expect("proto_init_update|l2tp-out1|0", "proto_send_update|vpn", "proto_notify_error|vpn|DAEMON_GONE")
	r.write("/console", connected, 0o644)
	expect()

	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("netifd's SIGTERM does not end it")
	}
}
