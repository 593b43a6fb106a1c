package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/logring"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fake is a daemon with two users, one of whom tries to speak to the terminal.
type fake struct {
	cfg  *config.Config
	log  *logring.Log
	acts []Action
	disk []byte // what the file holds
	bare bool   // nobody is connected

	traffic Traffic
	seconds int // that have gone by
}

func newFake(t testing.TB) *fake {
	t.Helper()
	cfg, err := config.Parse("c.toml", []byte(`
[system]
identity = "office"
[ip.pool.vpn-pool]
ranges = ["192.168.99.2-192.168.99.100", "192.168.98.7"]
[ppp.profile.l2tp-profile]
local-address = "192.168.99.1"
remote-address = "vpn-pool"
dns-server = ["192.168.1.1", "8.8.8.8"]
session-timeout = "1d"
[ppp.secret.user1]
password = "SecurePass123!"
service = "l2tp"
profile = "l2tp-profile"
[ppp.secret.Home]
password = "hunter2"
profile = "l2tp-profile"
remote-address = "172.16.1.2"
routes = ["10.1.202.0/24 172.16.1.2 1"]
disabled = true
comment = "the \"other\" office"
[l2tp.server]
use-ipsec = "required"
ipsec-secret = "my secret key"
default-profile = "l2tp-profile"
max-sessions = 20
[l2tp.client.l2tp-out1]
connect-to = "vpn.example.com@red"
user = "me"
password = "hunter2"
[ipsec.peer.site]
address = ["198.51.100.0/24"]
exchange-mode = "main"
[ipsec.identity.site]
secret = "hunter2"
`))
	if err != nil {
		t.Fatal(err)
	}
	l, err := logring.New(logring.DefaultConfig(), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{cfg: cfg, log: l, disk: cfg.Text}
	f.say("system", slog.LevelInfo, "culvert is up")
	f.say("ipsec", slog.LevelInfo, "phase 1 is up", "peer", "203.0.113.7")
	f.say("ppp", slog.LevelWarn, "login failed", "user", "x\x1b[31m y")
	return f
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func (f *fake) say(topic string, level slog.Level, msg string, args ...any) {
	r := slog.NewRecord(noon, level, msg, 0)
	r.Add(args...)
	f.log.Logger(topic).Handler().Handle(context.Background(), r)
}

func (f *fake) Config() *config.Config { return f.cfg }
func (f *fake) Log() *logring.Ring     { return f.log.Ring() }

func (f *fake) ReadFile() ([]byte, error) { return f.disk, nil }

func (f *fake) Change(_ context.Context, base, text []byte) error {
	if !bytes.Equal(base, f.disk) {
		return errors.New("the file has changed meanwhile: try again")
	}
	cfg, err := config.Parse("c.toml", text)
	if err != nil {
		return err
	}
	f.disk, f.cfg = text, cfg
	return nil
}

func (f *fake) Traffic(name string) (Traffic, error) {
	if name != "l2tp-user1" {
		return Traffic{}, errors.New("no such interface: " + name)
	}
	f.traffic.RxBytes += 125_000_000
	f.traffic.RxPackets += 1000
	f.traffic.TxBytes += 100
	return f.traffic, nil
}

func (f *fake) Active() []ActiveRow {
	if f.bare {
		return nil
	}
	evil := ActiveRow{Name: "ev\x1b]0;il\a \u202euser\"", Service: "l2tp", CallerID: "198.51.100.9", Address: netip.MustParseAddr("192.168.99.3"),
		Uptime: Span(61 * time.Second), Session: 0x81000002, Since: noon, Host: "\u009b2J", RADIUS: true}
	user := ActiveRow{Name: "user1", Service: "l2tp", CallerID: "203.0.113.7", Address: netip.MustParseAddr("192.168.99.2"),
		Uptime: Span(26*time.Hour + 3*time.Second + 400*time.Millisecond), Encoding: "esp aes-256-cbc/sha256", Session: 0x81000001,
		Since: noon.Add(-26 * time.Hour), Local: netip.MustParseAddr("192.168.99.1"), IPv6: netip.MustParseAddr("fe80::1"), Profile: "l2tp-profile",
		Auth: "mschap2", Iface: "l2tp-user1", MTU: 1400, MRU: 1400, RxBytes: 1234567, TxBytes: 7654321, RxPkts: 1000, TxPkts: 2000,
		Remote: "203.0.113.7:4500", IKEPeer: "l2tp-in", IKEID: "10.0.0.5", Mark: 0x10000, Host: "DESKTOP-1", Tunnel: 7, RTunnel: 1, LSession: 8, RSession: 1}
	return []ActiveRow{evil, user}
}

func (f *fake) Interfaces() []InterfaceRow {
	return []InterfaceRow{
		{Dynamic: true, Running: true, Name: "l2tp-user1", User: "user1", MTU: 1400, MRU: 1400, Client: "203.0.113.7", Uptime: Span(26 * time.Hour), Encoding: "esp aes-256-cbc/sha256"},
		{Name: "l2tp-home", User: "Home"},
	}
}

func (f *fake) Clients() []ClientState {
	if f.bare {
		return nil
	}
	return []ClientState{{Name: "l2tp-out1", Status: "connected", Uptime: Span(time.Hour), Encoding: "esp aes-256-cbc/sha1", MTU: 1404, MRU: 1404,
		Local: netip.MustParseAddr("10.8.0.2"), Remote: netip.MustParseAddr("10.8.0.1"), Server: "198.51.100.7:1701", Attempts: 2,
		LastReason: "the server refuses the user or the password"}}
}

func (f *fake) Tunnels() []TunnelRow {
	return []TunnelRow{{Tunnel: 7, RTunnel: 1, State: "established", Remote: "203.0.113.7:1701", Host: "DESKTOP-1", Sessions: 1, Uptime: Span(time.Minute), Window: 8}}
}

func (f *fake) IKEPeers() []IKEPeerRow {
	return []IKEPeerRow{{Responder: true, NATT: true, ID: "10.0.0.5", State: "established", Uptime: Span(26 * time.Hour), PH2Total: 1, Remote: "203.0.113.7:4500",
		Local: "198.51.100.1:4500", Peer: "l2tp-in", Cookies: "0102030405060708:1112131415161718", Suite: "aes-256/sha1/modp2048", Expires: Span(time.Hour), Mark: 0x10000}}
}

func (f *fake) SAs() []SARow {
	sa := SARow{ESP: true, SPI: 0xc0ffee, Dir: "in", Src: "203.0.113.7:4500", Dst: "198.51.100.1:4500", State: "mature", AuthAlg: "sha256", EncAlg: "aes-cbc", KeySize: 256,
		AddTime: "2026-11-21 11:00:00", Expires: Span(10 * time.Minute), Lifetime: "24m/30m", Bytes: 12345, Packets: 67, Replay: 128, Mark: 0x10000}
	out := sa
	out.Dir, out.SPI, out.Src, out.Dst = "out", 0xdecade, sa.Dst, sa.Src
	return []SARow{out, sa}
}

func (f *fake) PoolsUsed() []PoolUsedRow {
	return []PoolUsedRow{{"vpn-pool", netip.MustParseAddr("192.168.99.10"), "l2tp", "b"}, {"vpn-pool", netip.MustParseAddr("192.168.99.2"), "l2tp", "user1"}}
}

func (f *fake) Bans() []BanRow {
	return []BanRow{
		{"2001:db8:1:2::/64", "2026-11-21 12:00:01", Span(time.Hour), "culvert", netip.MustParsePrefix("2001:db8:1:2::/64")},
		{"198.51.100.9", "2026-11-21 12:00:00", Span(59 * time.Second), "kernel", netip.MustParsePrefix("198.51.100.9/32")},
	}
}

func (f *fake) IPsecStatistics() []Counter {
	return []Counter{{"in-errors", 0}, {"in-state-protocol-errors", 18446744073709551615}, {"in-no-states", 3}}
}

func (f *fake) Resource() Resource {
	f.seconds++
	return Resource{Now: noon.Add(time.Duration(f.seconds) * time.Second), Uptime: Span(2*7*24*time.Hour + time.Second), Version: "0.1", FreeMemory: 12 << 20, TotalMemory: 64 << 20, CPU: "MIPS 24Kc", CPUCount: 1,
		Architecture: "mips", Board: "RB951G", Platform: "Culvert", DataPath: "xfrm+kernel+kernel"}
}

func (f *fake) Routerboard() Routerboard {
	return Routerboard{Routerboard: true, BoardName: "hEX", Model: "RB750Gr3", Serial: "8AFF08EXAMPL", Firmware: "3.41", Upgrade: "6.45.9",
		MAC: "64:d1:54:00:00:01", System: "MediaTek MT7621 ver:1 eco:3", SoC: "MediaTek MT7621A", Engine: "EIP93", SerialPort: "no"}
}

func (f *fake) Act(_ context.Context, a Action) error {
	if a.User == "user1" && len(f.acts) > 5 {
		return errors.New("gone already")
	}
	f.acts = append(f.acts, a)
	return nil
}

func run(t testing.TB, f *fake, command string, asJSON bool) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := New(f)
	c.Pause = 0
	err := c.Execute(context.Background(), &Request{Command: command, JSON: asJSON}, &out)
	return out.String(), err
}

var commands = []string{
	"/ppp active print",
	"/ppp active print detail",
	"/ppp active print where service=l2tp name=user1",
	"/ppp active print where radius",
	"/ppp active print detail where rx-byte>1000",
	"/ppp active print count-only",
	"/ppp/active/print where name~\"^us\" and !radius",
	"/ppp secret print",
	"/ppp secret print detail",
	"/ppp profile print",
	"/ppp aaa print",
	"/interface l2tp-server print",
	"/interface l2tp-server print where running",
	"/interface l2tp-server server print",
	"/interface l2tp-server tunnel print",
	"/interface l2tp-client print",
	"/interface l2tp-client monitor l2tp-out1",
	"/interface monitor-traffic l2tp-user1 once",
	"/ip ipsec policy print",
	"/user print",
	"/radius print",
	"/system logging print",
	"/system logging action print",
	"/system settings print",
	"/ppp secret print terse",
	"/ppp secret print where disabled or (service=l2tp and !disabled)",
	"/ip pool print",
	"/ip pool used print",
	"/ip firewall ban print",
	"/ip ipsec active-peers print",
	"/ip ipsec installed-sa print",
	"/ip ipsec installed-sa print where direction=in",
	"/ip ipsec statistics print",
	"/ip ipsec peer print",
	"/ip ipsec identity print",
	"/ip ipsec profile print",
	"/ip ipsec proposal print",
	"/log print",
	"/log print where topics~\"ipsec\"",
	"/log print count-only",
	"/system resource print",
	"/system routerboard print",
	"/system identity print",
	"/ip ip act pr", // abbreviated
	"?",
	"/ppp ?",
	"/ppp active print ?",
	"/help",
}

// The golden file holds what each command shows; go test -update writes it.
func TestGolden(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var got bytes.Buffer
		for _, command := range commands {
			out, err := run(t, newFake(t), command, asJSON)
			got.WriteString("[admin@office] > " + command + "\n" + out)
			if err != nil {
				t.Errorf("%s: %v", command, err)
			}
			if strings.ContainsFunc(out, func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == 0x202e }) {
				t.Errorf("%s lets control characters through: %q", command, out)
			}
			for _, secret := range []string{"hunter2", "SecurePass", "my secret"} {
				if strings.Contains(out, secret) {
					t.Errorf("%s shows a secret", command)
				}
			}
			if !strings.HasSuffix(out, "\n") {
				t.Errorf("%s does not end its last line", command)
			}
			if asJSON && strings.Contains(command, "print") && !strings.Contains(command, "count-only") && !strings.Contains(command, "?") {
				var rows []map[string]any
				if err := json.Unmarshal([]byte(out), &rows); err != nil || rows == nil {
					t.Errorf("%s: not an array of objects: %v", command, err)
				}
			}
		}
		name := filepath.Join("testdata", "print.txt")
		if asJSON {
			name = filepath.Join("testdata", "print.json.txt")
		}
		if *update {
			if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("output differs from %s; go test -update writes it anew:\n%s", name, got.String())
		}
	}
}

func TestNobodyThere(t *testing.T) {
	f := newFake(t)
	f.bare = true
	if out, err := run(t, f, "/ppp active print", false); out != "Flags: R - radius\n #   NAME SERVICE CALLER-ID ADDRESS UPTIME ENCODING\n" || err != nil {
		t.Errorf("%q %v", out, err)
	}
	if out, err := run(t, f, "/ppp active print", true); out != "[]\n" || err != nil {
		t.Errorf("%q %v", out, err)
	}
	if _, err := run(t, f, "/ppp active print where nam=x", false); err == nil {
		t.Error("an unknown property is silently empty")
	}
}

func TestMistakes(t *testing.T) {
	for command, want := range map[string]string{
		"/ppp activ print":                    "", // an abbreviation
		"/ppp actvie print":                   `there is no "actvie" in /ppp: did you mean active?`,
		"/pp a print":                         `"a" is ambiguous in /ppp: active, aaa`,
		"active print":                        `there is no "active" in /: did you mean /ppp active?`,
		"/ip ipsec wibble":                    `there is no "wibble" in /ip ipsec: there are active-peers, installed-sa, statistics, profile, proposal, peer, identity, policy, settings`,
		"/ppp active print detial":            `"detial" is not expected here: did you mean detail?`,
		"/ppp active print where nme=x":       `there is no property "nme": did you mean name?`,
		"/ppp active print name=x":            `"name=x": conditions follow the word where`,
		`/ppp active print where name~"("`:    "\"(\" is not a pattern: a parenthesis is not closed",
		`/log print where topics~"x`:          "a quote is not closed",
		`/log print where time~"\q"`:          `unknown escape "\\q"`,
		"/system identity print where name=x": "there is only one, so there is nothing to choose with where",
		"/ppp active remove":                  "say whom: remove NAME, remove 0,1 or remove [find address=192.0.2.7]",
		"/ppp active remove [find]":           "[find] alone is everything: name what to find, as in [find name=user1]",
		"/ppp active remove [find name=x":     "the bracket of [find ...] is not closed",
		"/ppp active remove [find name=x]":    "no such user is connected",
		"/ppp active remove usre1":            `no user "usre1" is connected: did you mean user1?`,
		"/ppp active remove 2":                "there is no number 2: 2 users are connected",
		"/ppp secret remove x":                `there is no user "x"`,
		"/log print ]":                        `unexpected "]"`,
		"\xff":                                "the command is not UTF-8",
	} {
		_, err := run(t, newFake(t), command, false)
		if got := errText(err); got != want {
			t.Errorf("%s\n got %s\nwant %s", command, got, want)
		}
		var u *UsageError
		if errors.As(err, &u) && u.ExitCode() != 2 {
			t.Errorf("%s: exit %d", command, u.ExitCode())
		}
	}
	if _, err := run(t, newFake(t), strings.Repeat("x", maxCommand+1), false); err == nil {
		t.Error("a command of any length is taken")
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestRemove(t *testing.T) {
	for command, want := range map[string][]uint32{
		"/ppp active remove user1":                                  {0x81000001},
		"/ppp active remove 0":                                      {0x81000001},
		"/ppp active remove 1,0":                                    {0x81000002, 0x81000001},
		"/ppp active remove 0 user1":                                {0x81000001},
		"/ppp active remove [find service=l2tp]":                    {0x81000001, 0x81000002},
		"/ppp active remove [ find name~\"^ev\" ]":                  {0x81000002},
		"/ppp active remove where address=192.168.99.3":             {0x81000002},
		`/ppp active remove "ev\1B]0;il\07 ` + "\u202e" + `user\""`: {0x81000002},
	} {
		f := newFake(t)
		if _, err := run(t, f, command, false); err != nil {
			t.Errorf("%s: %v", command, err)
		}
		var got []uint32
		for _, a := range f.acts {
			if a.Verb != Disconnect {
				t.Errorf("%s: %v", command, a)
			}
			got = append(got, a.SessionID)
		}
		if len(got) != len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("%s: %x, want %x", command, got, want)
		}
	}
}

func TestRemoveBan(t *testing.T) {
	for command, want := range map[string]string{
		"/ip firewall ban remove 198.51.100.9":             "198.51.100.9/32",
		"/ip firewall ban remove 1":                        "2001:db8:1:2::/64",
		"/ip firewall ban remove [find where=culvert]":     "2001:db8:1:2::/64",
		"/ip firewall ban; remove [find address~\"^198\"]": "198.51.100.9/32",
	} {
		f := newFake(t)
		if _, err := run(t, f, command, false); err != nil || len(f.acts) != 1 || f.acts[0].Verb != Pardon || f.acts[0].Source.String() != want {
			t.Errorf("%s: %v, %v", command, f.acts, err)
		}
	}
	for command, want := range map[string]string{
		"/ip firewall ban remove":           "say whom: remove ADDRESS",
		"/ip firewall ban remove [find]":    "[find] alone is everything",
		"/ip firewall ban remove 192.0.2.1": `"192.0.2.1" is not banned`,
		"/ip firewall ban remove 2":         "there is no number 2: 2 are banned",
	} {
		f := newFake(t)
		if _, err := run(t, f, command, false); err == nil || !strings.Contains(err.Error(), want) || len(f.acts) > 0 {
			t.Errorf("%s: %v, %v", command, f.acts, err)
		}
	}
}

// writer hands on what is written, so that a test can wait for it.
type writer chan string

func (w writer) Write(p []byte) (int, error) { w <- string(p); return len(p), nil }

func TestLogFollow(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		f := newFake(t)
		ctx, cancel := context.WithCancel(context.Background())
		out := make(writer)
		done := make(chan error, 1)
		go func() {
			done <- New(f).Execute(ctx, &Request{Command: `/log print follow where topics~"ipsec"`, JSON: asJSON}, out)
		}()
		first := <-out
		f.say("ppp", slog.LevelInfo, "not about this")
		f.say("ipsec", slog.LevelInfo, "second")
		second := <-out
		if !strings.Contains(first, "phase 1 is up") || !strings.Contains(second, "second") || json.Valid([]byte(second)) != asJSON || strings.Count(second, "\n") != 1 {
			t.Errorf("%q %q", first, second)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestLexer(t *testing.T) {
	for line, want := range map[string][]token{
		`a "b c" d=e`:               {{text: "a"}, {text: "b c", quoted: true}, {kind: tokCond, text: "d", op: "=", value: "e"}},
		`a!="x y"z`:                 {{kind: tokCond, text: "a", op: "!=", value: "x yz", quoted: true}},
		`a~"=~" b!~c d<1 e>2`:       {{kind: tokCond, text: "a", op: "~", value: "=~", quoted: true}, {kind: tokCond, text: "b", op: "!~", value: "c"}, {kind: tokCond, text: "d", op: "<", value: "1"}, {kind: tokCond, text: "e", op: ">", value: "2"}},
		`[find a=b]`:                {{kind: tokOpen, text: "["}, {text: "find"}, {kind: tokCond, text: "a", op: "=", value: "b"}, {kind: tokClose, text: "]"}},
		`"\"\\\n\t\_\$\?\41"`:       {{text: "\"\\\n\t $?A", quoted: true}},
		`"a=b"`:                     {{text: "a=b", quoted: true}},
		` ; `:                       nil,
		`!x`:                        {{text: "!x"}},
		"a \\\n  b=c\\\r\n d":       {{text: "a"}, {kind: tokCond, text: "b", op: "=", value: "c"}, {text: "d"}},
		"a \\ \\... b":              {{text: "a"}, {text: "b"}},
		"\"a\\\n    b\"":            {{text: "ab", quoted: true}},
		"# x\n a # b":               {{text: "a"}, {text: "#"}, {text: "b"}},
		"[admin@MikroTik] > /ppp":   {{text: "/ppp"}},
		"[a@b] /ppp secret> add":    {{text: "/ppp"}, {text: "secret"}, {text: "add"}},
		"[a@b c] ppp profile>print": {{text: "/ppp"}, {text: "profile"}, {text: "print"}},
	} {
		st, err := lex(line)
		var got []token
		if len(st) > 0 {
			got = st[0].toks
		}
		if err != nil || len(got) != len(want) || len(st) > 1 {
			t.Errorf("%s: %+v %v", line, st, err)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: %+v, want %+v", line, got[i], want[i])
			}
		}
	}
	for _, bad := range []string{`"`, `"\`, `"\z"`, `"\4"`, `"\4x"`, `"\ff"`} {
		if toks, err := lex(bad); err == nil {
			t.Errorf("%s: %+v", bad, toks)
		}
	}
	st, err := lex("a; b\n\n# c\n[find\nx] d\n\"e\nf\" g\nh")
	if err != nil || len(st) != 5 || st[1].line != 1 || st[2].line != 4 || len(st[2].toks) != 5 || st[3].line != 6 || st[4].line != 8 {
		t.Errorf("%+v %v", st, err)
	}
}

func FuzzExecute(f *testing.F) {
	for _, c := range commands {
		f.Add(c, false)
	}
	f.Add(`/ppp active remove [find name~"x" and !radius] "\41" where`, true)
	src := newFake(f)
	text, cfg := src.disk, src.cfg
	f.Fuzz(func(t *testing.T, command string, asJSON bool) {
		if strings.Contains(command, "fo") { // follow has no end
			return
		}
		src.acts = nil
		src.disk, src.cfg = text, cfg
		c := New(src)
		c.Pause = 0
		c.Every = func(_ context.Context, show func(time.Time) error) error { return errors.Join(show(noon), show(noon)) }
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond) // of :delay
		defer cancel()
		c.Execute(ctx, &Request{Command: command, JSON: asJSON}, io.Discard)
		if _, err := config.Parse("c.toml", src.disk); err != nil {
			t.Errorf("a broken configuration is in force: %v", err)
		}
	})
}
