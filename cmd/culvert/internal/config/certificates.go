package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"culvert/ipsec/ikev1"
	"culvert/ipsec/pki"
)

// certificates reads the keys of `[ipsec.identity.NAME]` that are about certificates.
func (r *reader) certificates(t *table, id *identity) {
	before := len(r.problems)
	t.file("certificate", &id.certificate)
	t.file("key", &id.key)
	for _, l := range []struct {
		key string
		dst *[]string
	}{{"ca", &id.ca}, {"crl", &id.crl}} {
		t.list(l.key, func(s string) error {
			if !strings.HasPrefix(s, "/") {
				return fmt.Errorf("%q is not an absolute path", s)
			}
			*l.dst = append(*l.dst, s)
			return nil
		})
	}
	id.minRSA = pki.MinRSA
	t.integer("minimum-rsa-bits", 1024, pki.MaxRSA, &id.minRSA)
	id.broken = len(r.problems) > before
	if id.minRSA < pki.MinRSA {
		t.warn("minimum-rsa-bits", "RSA keys below %d bits are weak: they can be broken with money and time", pki.MinRSA)
	}
	if !id.signature && id.certificate+id.key != "" {
		t.warn("certificate", `not used: set auth-method = "digital-signature"`)
	}
}

// name is what a peer's certificate must stand for: the value of remote-id.
func (id identity) name() string {
	if strings.HasPrefix(id.theirs, "keyid:") {
		return ""
	}
	return id.theirs
}

// credentials loads the files of an identity. What is missing or wrong is reported where the file is named.
func (r *reader) credentials(c *Config, id identity, terms pki.Terms) *ikev1.Credentials {
	if !id.signature || id.broken {
		return nil
	}
	t, before := id.table, len(r.problems)
	for _, m := range []struct {
		key, what string
		missing   bool
	}{
		{"certificate", "the PEM file of our certificate (culvert cert server or culvert cert client makes one)", id.certificate == ""},
		{"key", "the PEM file of its private key", id.key == ""},
		{"ca", "the PEM files of the authorities that issue the peers' certificates", len(id.ca) == 0},
	} {
		if m.missing {
			t.fail(m.key, "is missing: name %s", m.what)
		}
	}
	if strings.HasPrefix(id.theirs, "keyid:") {
		t.fail("remote-id", "no certificate stands for a key-id: write fqdn:, user-fqdn: or address:")
	}
	if len(r.problems) > before {
		return nil
	}
	if id.mine != "" {
		t.warn("my-id", "goes with a pre-shared key: with a certificate its subject is shown")
	}
	r.keyMode(t, c, id.key)
	terms.MinRSA = id.minRSA
	trust, warnings, errs := pki.LoadTrust(id.ca, id.crl, terms)
	for _, w := range warnings {
		r.fileProblem(id, w, Warning)
	}
	for _, e := range errs {
		r.fileProblem(id, e, Fatal)
	}
	if len(errs) > 0 {
		return nil
	}
	now := time.Now()
	for _, s := range trust.Outdated(now) {
		t.warn("crl", "%s", s)
	}
	own, err := pki.LoadOwn(id.certificate, id.key, trust.Intermediates())
	if err != nil {
		var ofKey *pki.KeyError
		if errors.As(err, &ofKey) {
			t.fail("key", "%s", err)
		} else {
			t.fail("certificate", "%s", err)
		}
		return nil
	}
	if err := pki.CheckKey(own.Leaf().PublicKey, id.minRSA); err != nil {
		t.fail("certificate", "%s: %s: make one with a longer key, or with ECDSA", id.certificate, err)
		return nil
	}
	shown, err := own.ID()
	if err != nil {
		t.fail("certificate", "%s: %s", id.certificate, err)
		return nil
	}
	// Not fatal: a router often has no clock when it starts, and others may have pre-shared keys.
	if err := own.Check(now); err != nil {
		t.warn("certificate", "peers will refuse it: %s", err)
	}
	return &ikev1.Credentials{Chain: own.Chain, Key: own.Key, ID: shown, Trust: trust}
}

// fileProblem reports a file of ca or crl at its element's line.
func (r *reader) fileProblem(id identity, e pki.FileError, severity Severity) {
	key, i := "ca", e.Index
	if i >= len(id.ca) {
		key, i = "crl", i-len(id.ca)
	}
	line, ok := r.lines[elementKey(append(slices.Clone(id.table.path), key), i)]
	if !ok {
		line = id.table.line(key)
	}
	id.table.add(severity, line, key, "%s", e.Err)
}

// keyMode wants of a private key's file what the configuration's has to have.
func (r *reader) keyMode(t *table, c *Config, path string) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return // reading it will tell
	}
	mode := info.Mode().Perm()
	switch {
	case mode&0o007 == 0:
	case c.System.AllowWorldReadable:
		t.warn("key", "a private key in a file that everyone may read (mode %04o)", mode)
	default:
		t.fail("key", "a private key in a file that everyone may read (mode %04o): chmod 600 %s", mode, path)
	}
}
