package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"culvert/board/lab"
	"culvert/hwcrypto"
)

// The daemon steers the kernel's ciphers before the first SA and puts them back; `culvert crypto` says what there is.
// Debian's 6.1 has a second AES, aes-fixed-time, which is slower and has the higher priority.
func TestLabCrypto(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		const (
			own    = "echainiv(authenc(hmac(sha256-generic),cbc(aes-fixed-time)))"
			pinned = "echainiv(authenc(hmac(sha256-generic),cbc(aes-generic)))"
			name   = "echainiv(authenc(hmac(sha256),cbc(aes)))"
			config = "/etc/culvert/culvert.toml"
		)
		culvert := l.Binary(lab.CulvertCommand)
		report := func(n *lab.Node, flags ...string) (r cryptoReport, c cryptoSuite) {
			t.Helper()
			if err := json.Unmarshal([]byte(n.Run(append([]string{culvert, "crypto", "--json"}, flags...)...)), &r); err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(r.InKernel, func(s cryptoSuite) bool { return s.Algorithm == "authenc(hmac(sha256),cbc(aes))" })
			if i < 0 || len(r.InUserspace) != 6 {
				t.Fatalf("%+v", r)
			}
			return r, r.InKernel[i]
		}
		passed := func(rows []cryptoRow) {
			t.Helper()
			for _, row := range rows {
				if row.SelfTest != "passed" || len(row.MBps) != 3 || row.MBps[0] <= 0 || row.MBps[2] <= 0 || row.Async || row.On != "cpu" {
					t.Errorf("%+v", row)
				}
			}
		}
		best := func() hwcrypto.Algorithm {
			t.Helper()
			algs, err := hwcrypto.Discover()
			l.Must(err, "list ciphers")
			return hwcrypto.Best(algs, name)
		}

		bare := l.Namespace("bare")
		bare.Run("modprobe", "aes_ti")
		// One chain of its kind for each suite: measured for the table, nothing else.
		r, s := report(bare)
		if len(r.Notes) != 1 || s.Choice != own || len(s.Rows) != 1 || best().Driver != own {
			t.Errorf("%+v", r)
		}
		for _, s := range r.InKernel {
			passed(s.Rows)
		}
		for _, s := range r.InUserspace {
			if row := s.Rows[len(s.Rows)-1]; row.Driver != "software" || row.SelfTest != "passed" || len(s.Rows) < 2 {
				t.Errorf("%+v", s)
			}
		}

		toml := strings.Replace(rigConfig{}.toml(), "[system]", "[system]\ncrypto-engine = \"aes-generic\"", 1)
		bare.WriteFile(config, toml)
		r, s = report(bare)
		if len(r.Notes) != 0 || s.Choice != pinned || len(s.Rows) != 2 || s.Rows[0].Driver != own || s.Rows[0].SelfTest != "not run" {
			t.Errorf("%+v", s)
		}
		passed(s.Rows[1:])
		for _, s := range r.InUserspace {
			if aes := strings.Contains(s.Choice, "aes-generic"); !aes {
				t.Errorf("%+v", s)
			}
		}
		if got := best(); got.Driver != own {
			t.Errorf("culvert crypto has left %+v", got)
		}
		t.Logf("\n%s", bare.Run(culvert, "crypto"))

		// A daemon that may choose, and one that is told.
		rig := newRig(t, l, rigConfig{})
		if got := best(); got.Driver != own {
			t.Errorf("a daemon with nothing to choose has chosen %+v", got)
		}
		l.Must(rig.Culvert.Stop(), "stop")
		rig.Configure(toml)
		rig.Start()
		chosen := best()
		if chosen.Driver != pinned {
			t.Fatalf("the kernel would take %+v\n%s", chosen, rig.Log())
		}
		c := rig.client(1)
		rig.reaches(c, rig.connect(c))
		if used := best(); used.Driver != pinned || used.Users <= chosen.Users {
			t.Errorf("the client's SAs do not use it: %+v", used)
		}
		if _, s = report(rig.server); s.Choice != pinned || !strings.Contains(s.Reason, "running daemon") {
			t.Errorf("beside the daemon: %+v", s)
		}
		if got := best(); got.Driver != pinned {
			t.Errorf("culvert crypto has taken it from the daemon: %+v", got)
		}
		l.Must(c.Disconnect(t.Context()), "disconnect")
		c.Kill()
		l.Must(rig.Culvert.Stop(), "stop")
		if got := best(); got.Driver != own {
			t.Errorf("the daemon has left %+v", got)
		}
	}, lab.Kernels("6.1"))
}
