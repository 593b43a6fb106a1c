package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// teller logs as the daemon does, through a Book to a text log that shows what was logged.
type teller struct {
	*slog.Logger
	book *Book
	text *bytes.Buffer
}

func newTeller(level slog.Level) *teller {
	t := &teller{book: New(), text: &bytes.Buffer{}}
	t.Logger = slog.New(t.book.Handler(slog.NewTextHandler(t.text, &slog.HandlerOptions{Level: level})))
	return t
}

// peer prints itself as L2TP's do.
type peer string

func (p peer) String() string { return string(p) }

var (
	remote  = netip.MustParseAddrPort("203.0.113.9:4500")
	windows = []any{"remote", remote, "client", "Windows 8/10/11", "nat", "local", "mark", "0x10000"}
)

func TestCauses(t *testing.T) {
	for _, test := range []struct {
		name  string
		tell  func(ike, l2tp, ppp *slog.Logger)
		state State
		words []string
		log   string // what the log gains
	}{
		{"wrong key of many", func(ike, _, _ *slog.Logger) {
			ike.Warn("pre-shared key differs: message 5 decrypts with none of the enrolled keys: set ...", "remote", remote, "keys", 3)
		}, Failed, []string{"pre-shared key differs: message 5 decrypts with none of 3 keys", "set the same"}, ""},
		{"wrong key", func(ike, _, _ *slog.Logger) {
			ike.Warn("message 5 does not decrypt: the pre-shared keys differ: set the same secret on both sides", "remote", remote)
		}, Failed, []string{"pre-shared key differs", "set the same secret"}, ""},
		{"proposal", func(ike, _, _ *slog.Logger) {
			ike.Warn("no common phase 1 proposal: add one", "remote", remote, "offered", "3des/md5/modp768", "accepted", "aes")
		}, Failed, []string{"peer offers only 3des/md5/modp768", "add one"}, ""},
		{"Windows and a server behind a NAT", func(ike, _, _ *slog.Logger) {
			ike.Info(phase1Unfinished, append(windows, "state", "ke-sent")...)
		}, Failed, []string{"AssumeUDPEncapsulationContextOnSendRule", "to 2"}, "AssumeUDPEncapsulationContextOnSendRule"},
		{"the same, a little later", func(ike, _, _ *slog.Logger) {
			ike.Info(phase1Up, windows...)
			ike.Info(ipsecClosed, "mark", "0x10000", "remote", remote, "reason", "phase 1 deleted")
		}, Failed, []string{"AssumeUDPEncapsulationContextOnSendRule"}, "AssumeUDPEncapsulationContextOnSendRule"},
		{"somebody else stops", func(ike, _, _ *slog.Logger) {
			ike.Info(phase1Unfinished, "remote", remote, "client", "RouterOS", "nat", "none", "state", "ke-sent")
		}, Failed, []string{"stopped in the middle of phase 1 (ke-sent)", "UDP 4500"}, "stopped in the middle"},
		{"no L2TP", func(ike, _, _ *slog.Logger) {
			ike.Info(phase1Up, "remote", remote, "mark", "0x10000", "client", "strongSwan", "nat", "peer")
			ike.Info(pairUp, "remote", remote, "mark", "0x10000")
			ike.Info(ipsecClosed, "remote", remote, "mark", "0x10000", "reason", "no L2TP tunnel inside")
		}, Failed, []string{"no L2TP came through", "no L2TP tunnel inside"}, "no L2TP came through"},
		{"wrong password", func(ike, l2tp, ppp *slog.Logger) {
			ike.Info(phase1Up, "remote", remote, "mark", "0x10000")
			ike.Info(pairUp, "remote", remote, "mark", "0x10000")
			l2tp.Info(tunnelUp, "tunnel", 7, "peer", peer("203.0.113.9:1701 via 0x10000"))
			ppp.With("remote", remote).Warn("login refused", "user", "bob", "cause", "wrong password: it differs")
			ike.Info(ipsecClosed, "remote", remote, "mark", "0x10000", "reason", "deleted by the peer")
		}, Failed, []string{"login refused: wrong password"}, ""},
		{"connected", func(ike, l2tp, ppp *slog.Logger) {
			ike.Warn("message 5 does not decrypt: ...", "remote", remote)
			ike.Info(phase1Up, "remote", remote, "mark", "0x10000")
			ike.Info(pairUp, "remote", remote, "mark", "0x10000")
			l2tp.Info(tunnelUp, "tunnel", 7, "peer", peer("203.0.113.9:1701 via 0x10000"))
			ppp.With("remote", remote).Info(loggedIn, "user", "bob", "address", "192.168.99.2")
		}, Connected, []string{"bob is connected with 192.168.99.2"}, ""},
		{"gone", func(ike, l2tp, ppp *slog.Logger) {
			l2tp.Info(tunnelUp, "tunnel", 7, "peer", peer("203.0.113.9:1701"))
			ppp.With("remote", remote).Info(loggedIn, "user", "bob", "address", "192.168.99.2")
			ppp.With("remote", remote).Info(linkDown, "user", "bob", "reason", "the peer hung up")
		}, Gone, []string{"bob was connected", "the peer hung up"}, ""},
		{"back after a failure", func(ike, l2tp, ppp *slog.Logger) {
			ike.Info(phase1Up, "remote", remote, "mark", "0x10000")
			ike.Info(ipsecClosed, "remote", remote, "mark", "0x10000", "reason", "deleted by the peer")
			ike.Info(phase1Up, "remote", remote, "mark", "0x20000")
		}, Trying, []string{"phase 1 up"}, "no SAs followed"},
		{"by its mark alone", func(ike, _, _ *slog.Logger) {
			ike.Info(phase1Up, "remote", remote, "mark", "0x10000")
			ike.Error("data plane refuses the inbound SA", "mark", "0x10000", "error", "no such algorithm")
		}, Failed, []string{"data plane refuses the inbound SA: no such algorithm"}, ""},
	} {
		w := newTeller(slog.LevelInfo)
		test.tell(w.With("topic", "ipsec"), w.With("topic", "l2tp"), w.With("topic", "ppp"))
		found := w.book.find("203.0.113.9")
		if len(found) != 1 {
			t.Errorf("%s: %d clients", test.name, len(found))
			continue
		}
		state, cause := judge(found[0].events)
		if state != test.state {
			t.Errorf("%s: %s: %s", test.name, state, cause)
		}
		for _, word := range test.words {
			if !strings.Contains(cause, word) {
				t.Errorf("%s: %q is not in: %s", test.name, word, cause)
			}
		}
		if said := strings.Contains(w.text.String(), "a client did not get in"); said != (test.log != "") || !strings.Contains(w.text.String(), test.log) {
			t.Errorf("%s: the log:\n%s", test.name, w.text)
		}
	}
}

// TestQuietLog: what the log does not want is in the timeline all the same, but for what is below info.
func TestQuietLog(t *testing.T) {
	w := newTeller(slog.LevelError)
	w.With("topic", "ipsec").Info(phase1Up, "remote", remote)
	w.With("topic", "ipsec").Debug("message ignored", "remote", remote)
	if w.text.Len() != 0 {
		t.Errorf("logged: %s", w.text)
	}
	if h := w.book.find("203.0.113.9"); len(h) != 1 || len(h[0].events) != 1 {
		t.Errorf("%+v", h)
	}
}

// TestBounds: strangers do not push out who has authenticated, and nobody takes more than his share.
func TestBounds(t *testing.T) {
	w := newTeller(slog.LevelError)
	w.Info(phase1Up, "remote", remote)
	for i := range 5000 {
		w.Warn("no common phase 1 proposal", "remote", netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 500), "offered", strings.Repeat("\xffx", 5000))
	}
	for i := range 500 {
		w.Info("something", "remote", remote, "n", i)
	}
	if n := len(w.book.clients); n != maxClients || w.book.order.Len() != n {
		t.Errorf("%d clients", n)
	}
	h := w.book.find(remote.String())
	if len(h) != 1 || len(h[0].events) != maxEvents || h[0].events[maxEvents-1].Get("n") != "499" {
		t.Fatalf("%d histories", len(h))
	}
	for el := w.book.order.Front(); el != nil; el = el.Next() {
		for _, e := range el.Value.(*history).events {
			if len(e.Get("offered")) > maxText {
				t.Fatalf("%d octets kept of one value", len(e.Get("offered")))
			}
		}
	}
}

func TestPrint(t *testing.T) {
	w := newTeller(slog.LevelInfo)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	say := func(level slog.Level, message string, args ...any) {
		r := slog.NewRecord(at, level, message, 0)
		r.Add(args...)
		w.book.Handler(slog.DiscardHandler).WithAttrs([]slog.Attr{slog.String("topic", "ppp"), slog.Any("remote", remote)}).Handle(context.Background(), r)
	}
	say(slog.LevelInfo, loggedIn, "user", `CORP\bob`, "address", "192.168.99.2")
	say(slog.LevelWarn, "odd", "name", "a \x1b[2J b")
	for _, who := range []string{"203.0.113.9", "203.0.113.9:4500", "bob", `CORP\bob`} {
		var out bytes.Buffer
		if err := w.book.Print(&out, who, false, func(s string) string { return strings.ReplaceAll(s, "\x1b", "?") }); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("2026-01-02 03:04:05   ppp    login remote=203.0.113.9:4500 user=CORP\\bob address=192.168.99.2\n" +
			"2026-01-02 03:04:05 ! ppp    odd remote=203.0.113.9:4500 name=\"a \\x1b[2J b\"\n" +
			"203.0.113.9: connected: CORP\\bob is connected with 192.168.99.2 since 03:04:05\n")
		if out.String() != want {
			t.Errorf("%s:\n%s\nwant\n%s", who, out.String(), want)
		}
	}
	var out bytes.Buffer
	if err := w.book.Print(&out, "bob", true, nil); err != nil {
		t.Fatal(err)
	}
	var got []struct {
		Address, State, Cause string
		Events                []struct {
			Topic  string
			Fields map[string]string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got) != 1 || got[0].State != "connected" || len(got[0].Events) != 2 ||
		got[0].Events[0].Topic != "ppp" || got[0].Events[0].Fields["address"] != "192.168.99.2" {
		t.Errorf("%v, %+v", err, got)
	}
	var none *NoClient
	if err := w.book.Print(&out, "nobody", false, nil); !errors.As(err, &none) || none.Who != "nobody" {
		t.Errorf("%v", err)
	}
}
