package logring

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// at is when all records of these tests are made.
var at = time.Date(2026, 11, 21, 2, 0, 0, 0, time.Local)

// record sends one record through a handler with a fixed time.
func record(h slog.Handler, level slog.Level, msg string, attrs ...slog.Attr) {
	if !h.Enabled(context.Background(), level) {
		return
	}
	r := slog.NewRecord(at, level, msg, 0)
	r.AddAttrs(attrs...)
	h.Handle(context.Background(), r)
}

func newLog(t *testing.T, w io.Writer, topics ...string) *Log {
	t.Helper()
	if topics == nil {
		topics = []string{"info"}
	}
	l, err := New(Config{Topics: topics, Ring: 10}, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

func texts(entries []Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.String())
	}
	return out
}

type password string

func (password) LogValue() slog.Value { return slog.StringValue("***") }

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func TestLines(t *testing.T) {
	var out bytes.Buffer
	l := newLog(t, &out)
	h := l.Logger("ipsec").With("peer", netip.MustParseAddr("192.0.2.7")).Handler()
	record(h, slog.LevelInfo, "phase 1 is up", slog.Int("sas", 2), slog.Duration("took", 1500*time.Millisecond))
	record(h, slog.LevelDebug, "not seen")
	record(h, slog.LevelWarn, "odd", slog.String("id", "a b"), slog.String("empty", ""), slog.Any("secret", password("hunter2")), slog.Any("raw", []byte{1, 0xff}))
	record(l.Handler(), slog.LevelError, "no topic", slog.Any("err", errors.New("broken = \"pipe\"")), slog.Bool("ok", false))
	record(l.Handler(), slog.LevelInfo, "own topic", slog.String("topic", "l2tp,ppp"), slog.Group("g", slog.Int("a", 1), slog.Group("h", slog.String("b", "x"))))
	record(l.Handler().WithGroup("w").WithAttrs([]slog.Attr{slog.Time("t", at.UTC())}), slog.LevelInfo, "group", slog.Int("k", 1))
	record(l.Handler(), slog.LevelInfo, "nil", slog.Any("err", (*nilError)(nil)))
	want := []string{
		`2026-11-21 02:00:00 ipsec,info phase 1 is up peer=192.0.2.7 sas=2 took=1.5s`,
		`2026-11-21 02:00:00 ipsec,warning odd peer=192.0.2.7 id="a b" empty="" secret=*** raw=01ff`,
		`2026-11-21 02:00:00 system,error no topic err="broken = \"pipe\"" ok=false`,
		`2026-11-21 02:00:00 l2tp,ppp,info own topic g.a=1 g.h.b=x`,
		`2026-11-21 02:00:00 system,info group w.t=` + at.UTC().Format(time.RFC3339) + ` w.k=1`,
		`2026-11-21 02:00:00 system,info nil err="!*logring.nilError does not print"`,
	}
	if got := texts(l.Ring().Lines(nil, 0)); !slices.Equal(got, want) {
		t.Errorf("ring\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != strings.Join(want, "\n")+"\n" {
		t.Errorf("writer\n%s", got)
	}
}

func TestFilter(t *testing.T) {
	type rec struct {
		topics string
		level  slog.Level
	}
	for _, tt := range []struct {
		rules string // separated by blanks
		yes   []rec
		no    []rec
	}{
		{"info", []rec{{"ppp", slog.LevelInfo}, {"ipsec", slog.LevelError}}, []rec{{"ppp", slog.LevelDebug}}},
		{"info ipsec,debug", []rec{{"ipsec", slog.LevelDebug}, {"ppp", slog.LevelInfo}}, []rec{{"ppp", slog.LevelDebug}, {"ipsec", LevelPacket}}},
		{"l2tp,packet", []rec{{"l2tp", LevelPacket}, {"l2tp,ppp", slog.LevelInfo}}, []rec{{"ppp", slog.LevelError}}},
		{"ipsec", []rec{{"ipsec", LevelPacket}}, []rec{{"ppp", slog.LevelError}}},
		{"!ppp", []rec{{"ipsec", slog.LevelInfo}}, []rec{{"ppp", slog.LevelError}, {"ipsec", slog.LevelDebug}}},
		{"debug !ppp", []rec{{"ipsec", slog.LevelDebug}}, []rec{{"ppp", slog.LevelError}, {"l2tp,ppp", slog.LevelError}}},
		{"l2tp,ppp", []rec{{"l2tp,ppp", slog.LevelInfo}}, []rec{{"l2tp", slog.LevelError}}},
		{"ppp,!debug", []rec{{"ppp", slog.LevelInfo}}, []rec{{"ppp", slog.LevelDebug}, {"ppp", LevelPacket}}},
		{"l2tp,!ppp", []rec{{"l2tp", slog.LevelInfo}}, []rec{{"l2tp,ppp", slog.LevelInfo}}},
		{"packet !debug", []rec{{"ppp", slog.LevelInfo}}, []rec{{"ppp", slog.LevelDebug}}},
		{"error", []rec{{"ppp", slog.LevelError}}, []rec{{"ppp", slog.LevelWarn}}},
		{"", nil, []rec{{"ppp", slog.LevelError}}},
	} {
		f, err := ParseFilter(strings.Fields(tt.rules))
		if err != nil {
			t.Errorf("%q: %v", tt.rules, err)
			continue
		}
		for want, list := range map[bool][]rec{true: tt.yes, false: tt.no} {
			for _, r := range list {
				if f.Match(strings.Split(r.topics, ","), r.level) != want {
					t.Errorf("%q: %v is not %v", tt.rules, r, want)
				}
			}
		}
	}
	for _, bad := range []string{"ipsek", "", "info,", "!"} {
		if _, err := ParseFilter([]string{bad}); err == nil {
			t.Errorf("%q is a filter", bad)
		}
	}
}

// A user name is what an attacker writes into the log.
func TestNothingSpeaksToTheTerminal(t *testing.T) {
	for _, evil := range []string{"\x1b]0;x\a", "a\r\nforged line", "\u009b31m", "\u202egnp.exe", "\x7f", "\xff\xfe", "a\u2028b", "tab\there"} {
		l := newLog(t, nil)
		record(l.Logger("ppp").With(evil, evil).Handler(), slog.LevelInfo, evil, slog.String("user", evil), slog.String(evil, "x"))
		record(l.Handler(), slog.LevelInfo, "m", slog.String("topic", evil))
		for _, s := range texts(l.Ring().Lines(nil, 0)) {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0x2028 }) {
				t.Errorf("%q lets through %q", evil, s)
			}
		}
	}
}

func TestLongLinesAreCut(t *testing.T) {
	l := newLog(t, nil)
	record(l.Handler(), slog.LevelInfo, strings.Repeat("ä", 3000), slog.String("k", strings.Repeat("ö", 3000)))
	record(l.Handler(), slog.LevelInfo, "m", slog.String("k", strings.Repeat("ö", 3000)))
	for _, e := range l.Ring().Lines(nil, 0) {
		if len(e.Text) > maxMessage+3 || !utf8.ValidString(e.Text) {
			t.Errorf("%d octets", len(e.Text))
		}
	}
}

func TestDisabledDoesNotAllocate(t *testing.T) {
	l := newLog(t, nil, "info", "ipsec,debug", "!radius")
	log, ctx := l.Logger("ppp"), context.Background()
	if n := testing.AllocsPerRun(100, func() { log.LogAttrs(ctx, slog.LevelDebug, "m", slog.String("k", "v"), slog.Int("n", 7)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRing(t *testing.T) {
	r := newRing(3, 1000)
	add := func(text string) { r.add(Entry{Time: at, Topics: "ppp", Text: text}) }
	seqs := func() (out []uint64) {
		for _, e := range r.Lines(nil, 0) {
			out = append(out, e.Seq)
		}
		return out
	}
	for _, s := range []string{"a", "b", "c", "d"} {
		add(s)
	}
	if got := seqs(); !slices.Equal(got, []uint64{2, 3, 4}) {
		t.Errorf("%v", got)
	}
	if got := r.Lines(func(e Entry) bool { return e.Text != "c" }, 2); len(got) != 1 || got[0].Text != "d" {
		t.Errorf("%v", got)
	}
	add(strings.Repeat("x", 800)) // leaves no room for the others
	if got := seqs(); !slices.Equal(got, []uint64{4, 5}) {
		t.Errorf("%v", got)
	}
	r.resize(10)
	add("f")
	if got := seqs(); !slices.Equal(got, []uint64{5, 6}) {
		t.Errorf("%v", got)
	}
	r.resize(1)
	if got := seqs(); !slices.Equal(got, []uint64{6}) {
		t.Errorf("%v", got)
	}
	r.resize(0)
	add("g")
	if got := seqs(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	r.resize(-1)
	add("h")
	r.resize(1)
	add("i")
	if got := seqs(); !slices.Equal(got, []uint64{9}) {
		t.Errorf("%v", got)
	}
}

func TestFollow(t *testing.T) {
	r := newRing(3, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	ch := r.Follow(ctx)
	for range followQueue + 5 { // nobody reads yet: the first are kept, and nothing blocks
		r.add(Entry{Text: "x"})
	}
	if e := <-ch; e.Seq != 1 {
		t.Errorf("first is %d", e.Seq)
	}
	cancel()
	n := 0
	for range ch {
		n++
	}
	if n != followQueue-1 {
		t.Errorf("%d more", n)
	}
	r.add(Entry{Text: "after"}) // must not write to a closed channel
}

// stuck is a terminal that somebody has stopped.
type stuck struct {
	release chan struct{}
	mu      sync.Mutex
	got     bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(p)
}

func TestSlowSinkDoesNotBlock(t *testing.T) {
	w := &stuck{release: make(chan struct{})}
	l, err := New(Config{Topics: []string{"info"}, Ring: 5}, w)
	if err != nil {
		t.Fatal(err)
	}
	const more = 10
	for range sinkQueue + 1 + more {
		record(l.Handler(), slog.LevelInfo, "line")
	}
	// One line may or may not have been taken out by the writer when the queue filled.
	lost := l.Dropped()
	if lost != more && lost != more+1 {
		t.Errorf("dropped %d", lost)
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Close(done); !errors.Is(err, context.Canceled) {
		t.Errorf("closing a stuck sink: %v", err)
	}
	close(w.release)
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := w.got.String(); !strings.Contains(got, "system,warning log lines were lost, this output is too slow lost=1") ||
		strings.Count(got, "info line") != sinkQueue+1+more-int(lost) {
		t.Errorf("%d lines, %s", strings.Count(got, "info line"), got[:min(len(got), 300)])
	}
	record(l.Handler(), slog.LevelInfo, "after Close") // reaches the ring
	if e := l.Ring().Lines(nil, 0); e[len(e)-1].Text != "after Close" {
		t.Errorf("%v", e)
	}
}

func TestSyslog(t *testing.T) {
	e := Entry{Time: time.Date(2026, 11, 21, 2, 0, 0, 5000, time.UTC), Level: slog.LevelError, Topics: "ppp", Text: `login failed user="a b"`}
	want := `<27>1 2026-11-21T02:00:00.000005Z my_office culvert 77 ppp - login failed user="a b"`
	if got := string(appendSyslog(nil, e, "my office", 77)); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	e.Level = LevelPacket
	if got := string(appendSyslog(nil, e, "", 77)); !strings.HasPrefix(got, "<31>1 2026-11-21T02:00:00.000005Z - culvert 77 ppp - ") {
		t.Error(got)
	}

	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l := newLog(t, nil)
	if err := l.Reconfigure(Config{Topics: []string{"info"}, Ring: 5, Remote: conn.LocalAddr().String(), Identity: "office"}); err != nil {
		t.Fatal(err)
	}
	record(l.Logger("l2tp").Handler(), slog.LevelInfo, "tunnel is up")
	buf := make([]byte, 2048)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := conn.ReadFrom(buf)
	if err != nil || !strings.HasSuffix(string(buf[:n]), " l2tp - tunnel is up") || !strings.Contains(string(buf[:n]), "Z office culvert ") {
		t.Errorf("%q %v", buf[:n], err)
	}
	if err := l.Reconfigure(Config{Topics: []string{"nonsense"}}); err == nil {
		t.Error("a bad filter was taken")
	}
	if err := l.Reconfigure(Config{Topics: []string{"error"}, Ring: 5}); err != nil || l.remote.Load() != nil {
		t.Errorf("%v", err)
	}
	record(l.Handler(), slog.LevelInfo, "filtered now")
	if got := l.Ring().Lines(nil, 0); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a\x1b[31m", "b")
	f.Fuzz(func(t *testing.T, msg, value string) {
		l, err := New(Config{Topics: []string{"info"}, Ring: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		record(l.Logger("ppp").Handler(), slog.LevelInfo, msg, slog.String("k", value))
		s := l.Ring().Lines(nil, 0)[0].String()
		if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
			t.Fatalf("%q", s)
		}
	})
}
