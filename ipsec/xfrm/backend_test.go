package xfrm

import (
	"bytes"
	"testing"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
)

func TestBackendConforms(t *testing.T) {
	needKernel(t)
	for name, o := range map[string]Options{"open": {}, "guarded": {Require: true, PeerPort: true}} {
		t.Run(name, func(t *testing.T) {
			ipsectest.Conform(t, func(t *testing.T) ipsec.Backend {
				ownNamespace(t)
				b := open(t, o)
				t.Cleanup(func() { expectEmpty(t, b) })
				return b
			})
		})
	}
}

// expectEmpty closes b and checks that the namespace, which had nothing else, is as before.
func expectEmpty(t *testing.T, b *Backend) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if states, policies := tables(t); len(states)+len(policies) != 0 {
		t.Errorf("left after close: SAs %+v, policies %v", states, policies)
	}
}

// tables reads everything in the calling thread's namespace.
func tables(t *testing.T) (states []*state, policies []policy) {
	t.Helper()
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.dump("list SAs", msgGetSA, func(m []byte) error {
		s, err := parseState(host, bytes.Clone(m), host.lenUserSA())
		states = append(states, s)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.dump("list policies", msgGetPolicy, func(m []byte) error {
		p, err := parsePolicy(host, m)
		policies = append(policies, p)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return states, policies
}

func TestProbeAndSuites(t *testing.T) {
	ownNamespace(t)
	if err := Probe(); err != nil {
		t.Error(err)
	}
	suites, err := Suites()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d suites: %v", len(suites), suites)
	if len(suites) < 10 {
		t.Errorf("only %d suites", len(suites))
	}
}
