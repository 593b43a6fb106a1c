package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

func TestLabRefusals(t *testing.T) { inLab(t, onKernel(refusals), lab.Timeout(5*time.Minute)) }

// refusals: whoever must not come in does not, and the operator reads in one line why, and what to do.
func refusals(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path, Users: 9})
	for i, test := range []struct {
		name   string
		change func(*lab.ClientConfig)
		words  []string // all of them in the one line
	}{
		{"wrong pre-shared key", func(c *lab.ClientConfig) { c.IKE.PSK = "not the secret" }, []string{"pre-shared key"}},
		{"no common phase-1 proposal", func(c *lab.ClientConfig) { c.IKE.Proposals = "3des-md5-modp1024" }, []string{"propos"}},
		{"no common phase-2 proposal", func(c *lab.ClientConfig) { c.IKE.ESP = "3des-md5" }, []string{"propos"}},
		{"wrong password", func(c *lab.ClientConfig) { c.Password = "wrong horse" }, []string{"password", "user4"}},
		{"unknown user", func(c *lab.ClientConfig) { c.User = "nobody" }, []string{"nobody"}},
		{"a method not allowed", func(c *lab.ClientConfig) { c.LAC.Auth = "pap" }, []string{"authentication"}},
		{"plain L2TP", func(c *lab.ClientConfig) { c.IKE.PSK = "" }, []string{"ipsec"}},
	} {
		c := r.client(i+1, test.change, func(c *lab.ClientConfig) { c.Timeout = 10 * time.Second })
		before := len(r.Complaints())
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		err := refusal(ctx, c)
		cancel()
		if err == nil {
			t.Errorf("%s: %v", test.name, errLetIn)
		}
		l.WaitFor(3*time.Second, func() bool { return len(r.Complaints()) > before })
		c.Disconnect(t.Context()) // an error is no surprise: there may be nothing to end
		c.Kill()
		said := r.Complaints()[before:]
		if len(said) != 1 {
			t.Errorf("%s: want one line in the log, got %d:\n%s", test.name, len(said), strings.Join(said, "\n"))
			continue
		}
		for _, w := range test.words {
			if !strings.Contains(strings.ToLower(said[0]), w) {
				t.Errorf("%s: the log does not name %q: %s", test.name, w, said[0])
			}
		}
		t.Logf("%s: %s", test.name, said[0])
		// And who asks about this client alone reads it again, as the last of what it did.
		told, err := r.Show(fmt.Sprintf("/ip ipsec explain 198.51.100.%d", i+1))
		if err != nil {
			t.Errorf("%s: explain: %v", test.name, err)
			continue
		}
		lines := strings.Split(strings.TrimSpace(told), "\n")
		last := strings.ToLower(lines[len(lines)-1])
		if !strings.Contains(last, ": failed: ") {
			t.Errorf("%s: explain does not say that it failed:\n%s", test.name, told)
		}
		for _, w := range test.words {
			if !strings.Contains(strings.ToLower(told), w) {
				t.Errorf("%s: explain does not name %q:\n%s", test.name, w, told)
			}
		}
		t.Logf("explain: %s", last)
	}
	// After all that the right one still gets in.
	c := r.client(9)
	r.reaches(c, r.connect(c))
	if told, err := r.Show("/ip ipsec explain user9"); err != nil || !strings.Contains(told, ": connected: user9 is connected") {
		t.Errorf("explain: %v\n%s", err, told)
	}
	if err := c.Disconnect(t.Context()); err != nil {
		t.Error(err)
	}
	if !r.WaitFor(90*time.Second, func() bool { return r.left() == "" }) {
		t.Errorf("left behind: %s", r.left())
	}
}
