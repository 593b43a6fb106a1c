package aaa

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testConfig() Config {
	return Config{
		Pools: map[string]Pool{
			"vpn":   {Ranges: []Range{rng("192.168.99.1", "192.168.99.4")}},
			"one":   {Ranges: []Range{rng("10.9.0.1", "10.9.0.1")}, Next: "two"},
			"two":   {Ranges: []Range{rng("10.9.1.1", "10.9.1.1")}, Next: "one"},
			"local": {Ranges: []Range{rng("10.8.0.1", "10.8.0.9")}},
		},
		Profiles: map[string]Profile{
			"default": {Local: Source{Addr: ip("192.168.99.1")}, Remote: Source{Pool: "vpn"}, RateLimit: "10M/10M",
				DNS: []netip.Addr{ip("8.8.8.8")}, Encrypt: EncryptRequired, SessionTimeout: time.Hour, OnUp: "/up"},
			"single": {Local: Source{Addr: ip("192.168.99.1")}, Remote: Source{Pool: "one"}, OnlyOne: true},
			"chain":  {Local: Source{Pool: "local"}, Remote: Source{Pool: "one"}},
			"lost":   {Local: Source{Addr: ip("192.168.99.1")}, Remote: Source{Pool: "nowhere"}},
		},
		Secrets: map[string]Secret{
			"bob":          {Password: "pw", Routes: []Route{{Dst: netip.MustParsePrefix("10.1.0.0/24"), Metric: 1}}},
			"alice":        {Password: "pw", Remote: Source{Addr: ip("192.168.99.2")}, RateLimit: "1M/1M"},
			"thief":        {Password: "pw", Remote: Source{Addr: ip("192.168.99.2")}},
			"mirror":       {Password: "pw", Remote: Source{Addr: ip("192.168.99.1")}},
			"off":          {Password: "pw", Disabled: true},
			"pppoe":        {Password: "pw", Service: "pppoe"},
			"l2tp":         {Password: "pw", Service: "l2tp"},
			"any":          {Password: "pw", Service: "any"},
			"home":         {Password: "pw", CallerID: "2001:db8:0::1"},
			"single":       {Password: "pw", Profile: "single"},
			"chain":        {Password: "pw", Profile: "chain"},
			"lost":         {Password: "pw", Profile: "lost"},
			"ghost":        {Password: "pw", Profile: "no-such-profile"},
			"bare":         {Password: "pw", Profile: "default-encryption"},
			`CORP\carol`:   {Password: "corp"},
			"carol":        {Password: "plain"},
			"blank":        {},
			"half":         {Password: "pw", Profile: "default-encryption", Local: Source{Addr: ip("10.7.0.1")}},
			"no such user": {Password: decoy, Disabled: true},
		},
		Bindings: map[string]string{"bob": "l2tp-bob"},
	}
}

func login1(t testing.TB, l *Local, req Request) (*Grant, *Reject) {
	t.Helper()
	var g *Grant
	var r *Reject
	calls := 0
	l.Authenticate(req, func(a *Grant, b *Reject) { g, r = a, b; calls++ })
	if calls != 1 || (g == nil) == (r == nil) {
		t.Fatalf("%q: done called %d times with %v, %v", req.User, calls, g, r)
	}
	if g != nil && g.Release == nil {
		t.Fatal("no Release")
	}
	return g, r
}

func papRequest(user, password string) Request {
	return Request{User: user, Method: PAP, Response: []byte(password), Service: "l2tp", CallerID: "192.0.2.7"}
}

// requests makes one request per method that proves password.
func requests(t testing.TB, user, password string) []Request {
	t.Helper()
	c8, c16 := []byte("8octets."), []byte("sixteen octets!!")
	v1, err := MSCHAP1Response(c8, password)
	if err != nil {
		t.Fatal(err)
	}
	v2, err := MSCHAP2Response(c16, []byte("!!stetco neetxis"), user, password)
	if err != nil {
		t.Fatal(err)
	}
	return []Request{
		papRequest(user, password),
		{User: user, Method: CHAP, ID: 3, Challenge: c16, Response: CHAPResponse(3, password, c16), Service: "l2tp"},
		{User: user, Method: MSCHAP1, Challenge: c8, Response: v1, Service: "l2tp"},
		{User: user, Method: MSCHAP2, Challenge: c16, Response: v2, Service: "l2tp"},
	}
}

func TestMethods(t *testing.T) {
	l := NewLocal(testConfig(), nil)
	for _, user := range []string{"bob", `ANY\bob`} {
		for _, req := range requests(t, user, "pw") {
			g, r := login1(t, l, req)
			if r != nil {
				t.Fatalf("%v: %v", req.Method, r)
			}
			if g.User != "bob" || g.Interface != "l2tp-bob" {
				t.Errorf("%v: user %q, interface %q", req.Method, g.User, g.Interface)
			}
			ms := req.Method == MSCHAP1 || req.Method == MSCHAP2
			if (len(g.MPPESend) == 16) != ms || (len(g.MPPERecv) == 16) != ms {
				t.Errorf("%v: keys %x, %x", req.Method, g.MPPESend, g.MPPERecv)
			}
			if req.Method == MSCHAP2 != VerifyMSCHAP2Success(g.AuthenticatorResponse, req.Challenge, req.Response, user, "pw") {
				t.Errorf("%v: authenticator response %q", req.Method, g.AuthenticatorResponse)
			}
			g.Release()
		}
	}
	// The answer to an unknown user and to a wrong password is the same but for the text.
	wrong, unknown := requests(t, "bob", "pW"), requests(t, "nobody", "pw")
	for i := range wrong {
		_, a := login1(t, l, wrong[i])
		_, b := login1(t, l, unknown[i])
		if a == nil || b == nil || a.Code != AuthFailure || a.Code != b.Code || !a.Retry || !b.Retry {
			t.Errorf("%v: wrong password %+v, unknown user %+v", wrong[i].Method, a, b)
		} else if !strings.Contains(a.Text, "wrong password") || !strings.Contains(b.Text, "no such user") {
			t.Errorf("%v: texts %q, %q", wrong[i].Method, a.Text, b.Text)
		}
	}
	for _, req := range append(requests(t, "bob", "pw")[1:], Request{User: "bob", Method: 9}) {
		for n := range req.Response {
			req := req
			req.Response = req.Response[:n]
			if _, r := login1(t, l, req); r == nil || r.Retry || r.Code != AuthFailure {
				t.Errorf("%v cut to %d octets: %+v", req.Method, n, r)
			}
		}
		req.Response = append(req.Response, 0)
		if _, r := login1(t, l, req); r == nil || r.Code != AuthFailure {
			t.Errorf("%v with an octet too many: %+v", req.Method, r)
		}
	}
	if n := len(l.Snapshot().Active); n != 0 {
		t.Errorf("%d sessions left", n)
	}
}

func TestGrant(t *testing.T) {
	l := NewLocal(testConfig(), nil)
	g, r := login1(t, l, papRequest("bob", "pw"))
	if r != nil {
		t.Fatal(r)
	}
	// .1 is the local end and .2 belongs to alice.
	if g.Local != ip("192.168.99.1") || g.Remote != ip("192.168.99.3") {
		t.Errorf("addresses %v, %v", g.Local, g.Remote)
	}
	if g.Profile != "default" || g.RateLimit != "10M/10M" || g.Encrypt != EncryptRequired || g.SessionTimeout != time.Hour ||
		g.OnUp != "/up" || len(g.DNS) != 1 || len(g.Routes) != 1 {
		t.Errorf("grant %+v", g)
	}
	second, r := login1(t, l, papRequest("bob", "pw"))
	if r != nil || second.Remote != ip("192.168.99.4") || second.Interface != "" {
		t.Fatalf("second session: %+v, %v", second, r)
	}
	alice, r := login1(t, l, papRequest("alice", "pw"))
	if r != nil || alice.Remote != ip("192.168.99.2") || alice.RateLimit != "1M/1M" {
		t.Fatalf("alice: %+v, %v", alice, r)
	}
	s := l.Snapshot()
	want := []Lease{{"", ip("192.168.99.2"), "alice", false}, {"vpn", ip("192.168.99.3"), "bob", false}, {"vpn", ip("192.168.99.4"), "bob", false}}
	if !reflect.DeepEqual(s.Leases, want) {
		t.Errorf("leases %+v", s.Leases)
	}
	if len(s.Active) != 3 || s.Active[0].User != "bob" || s.Active[0].Interface != "l2tp-bob" || s.Active[2].User != "alice" {
		t.Errorf("active %+v", s.Active)
	}
	for _, p := range s.Pools {
		if p.Name == "vpn" && (p.Size != 4 || p.Used != 3) {
			t.Errorf("pool %+v", p)
		}
	}
	// Released twice, the second must not take the successor's address away.
	g.Release()
	g.Release()
	again, r := login1(t, l, papRequest("bob", "pw"))
	if r != nil {
		t.Fatal(r)
	}
	g.Release()
	if n := len(l.Snapshot().Active); n != 3 {
		t.Errorf("%d sessions after a second release", n)
	}
	again.Release()
	second.Release()
	alice.Release()
	if s := l.Snapshot(); len(s.Leases)+len(s.Active) != 0 {
		t.Errorf("left over: %+v", s)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name     string
		first    []string // logged in before
		user, pw string
		caller   string
		code     Code
		retry    bool
		text     []string
	}{
		{"disabled", nil, "off", "pw", "", AccountDisabled, false, []string{`"off"`, "disabled", "enable"}},
		{"disabled, wrong password", nil, "off", "x", "", AuthFailure, true, []string{"wrong password"}},
		{"service", nil, "pppoe", "pw", "", AuthFailure, false, []string{"service pppoe only", "by l2tp", "set"}},
		{"caller", nil, "home", "pw", "2001:db8::2", AuthFailure, false, []string{"caller-id", "2001:db8::2", "correct"}},
		{"only one", []string{"single"}, "single", "pw", "", AuthFailure, false, []string{"already connected", "203.0.113.5", "10.9.0.1", "only-one"}},
		{"exhausted", []string{"chain", "chain"}, "chain", "pw", "", AuthFailure, false, []string{"pool one, then two has no address left", "widen"}},
		{"static in use", []string{"alice"}, "thief", "pw", "", AuthFailure, false, []string{"192.168.99.2", `"alice"`, "in use"}},
		{"static is local", nil, "mirror", "pw", "", AuthFailure, false, []string{"192.168.99.1", "our own end"}},
		{"no profile", nil, "ghost", "pw", "", AuthFailure, false, []string{"no-such-profile", "does not exist", "add it"}},
		{"no pool", nil, "lost", "pw", "", AuthFailure, false, []string{`"nowhere"`, "does not exist", "add it"}},
		{"no local", nil, "bare", "pw", "", AuthFailure, false, []string{"no local-address", "profile default-encryption"}},
		{"no remote", nil, "half", "pw", "", AuthFailure, false, []string{"no remote-address", "profile default-encryption"}},
		{"domain first", nil, `CORP\carol`, "plain", "", AuthFailure, true, []string{"wrong password"}},
		{"unknown domain user", nil, `CORP\nobody`, "plain", "", AuthFailure, true, []string{"no such user"}},
		{"blank", nil, "blank", "x", "", AuthFailure, true, []string{"wrong password"}},
		{"decoy", nil, "nobody", string(decoy), "", AuthFailure, true, []string{"no such user"}},
		{"hostile name", nil, "x\ny" + strings.Repeat("z", 300), "", "", AuthFailure, true, []string{`"x\ny`, "no such user"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := NewLocal(testConfig(), nil)
			for _, u := range c.first {
				req := papRequest(u, "pw")
				req.CallerID = "203.0.113.5"
				if _, r := login1(t, l, req); r != nil {
					t.Fatal(r)
				}
			}
			before := l.Snapshot()
			req := papRequest(c.user, c.pw)
			req.CallerID = c.caller
			g, r := login1(t, l, req)
			if g != nil {
				t.Fatalf("accepted: %+v", g)
			}
			if r.Code != c.code || r.Retry != c.retry {
				t.Errorf("code %d, retry %v", r.Code, r.Retry)
			}
			for _, s := range c.text {
				if !strings.Contains(r.Text, s) {
					t.Errorf("text %q lacks %q", r.Text, s)
				}
			}
			if strings.ContainsAny(r.Text, "\n") || len(r.Text) > 250 {
				t.Errorf("text %q", r.Text)
			}
			if !reflect.DeepEqual(before, l.Snapshot()) {
				t.Errorf("a refusal left something behind: %+v", l.Snapshot())
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	for _, c := range []struct{ user, pw, caller, grant string }{
		{"l2tp", "pw", "", "l2tp"},
		{"any", "pw", "", "any"},
		{"home", "pw", "2001:db8::1", "home"},
		{`CORP\carol`, "corp", "", `CORP\carol`},
		{`OTHER\carol`, "plain", "", "carol"},
		{"carol", "plain", "", "carol"},
		{"blank", "", "", "blank"},
	} {
		l := NewLocal(testConfig(), nil)
		req := papRequest(c.user, c.pw)
		req.CallerID = c.caller
		if g, r := login1(t, l, req); r != nil || g.User != c.grant {
			t.Errorf("%s: %v, %v", c.user, g, r)
		}
	}
	// The default profile is the configured one.
	cfg := testConfig()
	cfg.DefaultProfile = "chain"
	if g, r := login1(t, NewLocal(cfg, nil), papRequest("bob", "pw")); r != nil || g.Profile != "chain" || g.Local != ip("10.8.0.1") {
		t.Errorf("%+v, %v", g, r)
	}
}

func TestReconfigureKeepsLeases(t *testing.T) {
	l := NewLocal(testConfig(), nil)
	var grants []*Grant
	for range 2 {
		g, r := login1(t, l, papRequest("bob", "pw"))
		if r != nil {
			t.Fatal(r)
		}
		grants = append(grants, g)
	}
	cfg := testConfig()
	delete(cfg.Secrets, "bob")
	cfg.Profiles["default"] = Profile{Local: Source{Addr: ip("10.7.0.1")}, Remote: Source{Pool: "vpn"}, OnlyOne: true}
	l.Reconfigure(cfg)
	if s := l.Snapshot(); len(s.Leases) != 2 || len(s.Active) != 2 {
		t.Fatalf("after Reconfigure: %+v", s)
	}
	// .1 is still bob's other end, .2 alice's, .3 and .4 bob's own.
	if g, r := login1(t, l, papRequest("any", "pw")); r == nil {
		t.Fatalf("got %v", g.Remote)
	}
	grants[0].Release()
	g, r := login1(t, l, papRequest("any", "pw"))
	if r != nil || g.Remote != grants[0].Remote {
		t.Fatalf("%+v, %v", g, r)
	}
	grants[1].Release()
	g.Release()
	// Now nothing is left of the old local address.
	if g, r := login1(t, l, papRequest("l2tp", "pw")); r != nil || g.Remote != ip("192.168.99.3") && g.Remote != ip("192.168.99.1") {
		t.Fatalf("%+v, %v", g, r)
	}
	// A live lease that becomes our own address refuses instead of duplicating it.
	p := cfg.Profiles["chain"]
	p.Local = Source{Addr: l.Snapshot().Active[0].Remote}
	cfg.Profiles["chain"] = p
	l.Reconfigure(cfg)
	if _, r := login1(t, l, papRequest("chain", "pw")); r == nil || !strings.Contains(r.Text, `in use by user "l2tp"`) {
		t.Errorf("%v", r)
	}
}

func TestValidate(t *testing.T) {
	cfg := testConfig()
	cfg.DefaultProfile = "nope"
	cfg.Pools["bad"] = Pool{Ranges: []Range{{ip("10.0.0.2"), ip("10.0.0.1")}, {ip("10.0.0.1"), ip("::1")}, {}}, Next: "void"}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`default-profile names the profile "nope"`, `"void"`, "pool bad: the range 10.0.0.2-10.0.0.1", "10.0.0.1-::1",
		`"nowhere"`, `"no-such-profile"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	NewLocal(Config{}, nil).Snapshot()
}

func TestPasswordNeverShows(t *testing.T) {
	var b strings.Builder
	log := slog.New(slog.NewTextHandler(&b, nil))
	log.Info("x", "secret", Secret{Password: "hunter2"}, "p", Password("hunter2"))
	fmt.Fprintf(&b, "%v %+v %#v %s %q", Secret{Password: "hunter2"}, Secret{Password: "hunter2"}, Secret{Password: "hunter2"}, Password("hunter2"), Password("hunter2"))
	if strings.Contains(b.String(), "hunter2") {
		t.Error(b.String())
	}
}

// Any response at all is an answer, never a panic, and never a login without the password.
func FuzzAuthenticate(f *testing.F) {
	for _, req := range requests(f, "bob", "wrong") {
		f.Add(req.User, uint8(req.Method), req.ID, req.Challenge, req.Response)
	}
	f.Fuzz(func(t *testing.T, user string, method, id uint8, challenge, response []byte) {
		l := NewLocal(Config{Secrets: map[string]Secret{"bob": {Password: "a password that is not guessed"}}}, nil)
		if g, r := login1(t, l, Request{User: user, Method: Method(method), ID: id, Challenge: challenge, Response: response}); g != nil || r.Text == "" {
			t.Fatalf("%+v, %+v", g, r)
		}
	})
}
