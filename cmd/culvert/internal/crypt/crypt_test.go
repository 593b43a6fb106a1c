package crypt

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The specification's vectors, and the empty password, all as glibc makes them.
var vectors = []struct{ hash, password string }{
	{"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1", "Hello world!"},
	{"$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.", "Hello world!"},
	{"$6$saltstring$kyGrqt6gmjAdtFLPrflEFifSYLCWWq1pyx95SvqinLDy2UHmj0sTF0MSLMwxPFZc3tu5kQckI8fks0zOPda3n1", ""},
	{"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"},
	{"$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", "Hello world!"},
}

func TestCheck(t *testing.T) {
	for _, v := range vectors {
		ok, err := Check(v.hash, v.password)
		if !ok || err != nil {
			t.Errorf("%s: %v %v", v.hash, ok, err)
		}
		if ok, err := Check(v.hash, v.password+"x"); ok || err != nil {
			t.Errorf("%s: another password passes: %v", v.hash, err)
		}
	}
}

// OpenSSL, which nobody here wrote, makes what Check takes, and takes what Hash makes.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("openssl is not installed")
	}
	for _, password := range []string{"x", "a b\"c$", "pässword", strings.Repeat("long ", 40)} {
		for _, kind := range []string{"-6", "-5"} {
			out, err := exec.Command("openssl", "passwd", kind, "-salt", "some.salt/", password).Output()
			if err != nil {
				t.Fatal(err)
			}
			hashed := strings.TrimSpace(string(out))
			if ok, err := Check(hashed, password); !ok || err != nil {
				t.Errorf("%q: %s: %v %v", password, hashed, ok, err)
			}
		}
		mine, err := Hash(password)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("openssl", "passwd", "-6", "-salt", strings.Split(mine, "$")[2], password).Output()
		if err != nil || strings.TrimSpace(string(out)) != mine {
			t.Errorf("%q: %s, openssl says %s (%v)", password, mine, out, err)
		}
	}
}

func TestRefused(t *testing.T) {
	var kind *UnsupportedError
	if err := Supported("$y$j9T$abc$def"); !errors.As(err, &kind) || !strings.Contains(err.Error(), "openssl passwd -6") {
		t.Errorf("yescrypt: %v", err)
	}
	for _, bad := range []string{"", "x", "$6$", "$6$salt$", "$6$salt$short", "$6$rounds=x$salt$" + strings.Repeat("a", 86), "$6$rounds=900000000$s$" + strings.Repeat("a", 86),
		"$6$" + strings.Repeat("s", 17) + "$" + strings.Repeat("a", 86), "$5$salt$" + strings.Repeat("a", 86), "$6$s$" + strings.Repeat("!", 86), "*", "!"} {
		if ok, err := Check(bad, "x"); ok || err == nil {
			t.Errorf("%q: %v %v", bad, ok, err)
		}
	}
	if ok, err := Check(vectors[3].hash, strings.Repeat("x", 1000)); ok || err != nil {
		t.Errorf("a password of any length is worked on: %v", err)
	}
	if _, err := Hash(strings.Repeat("x", 1000)); err == nil {
		t.Error("a password that cannot be checked is hashed")
	}
}
