package crypt

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

const (
	defaultRounds = 5000
	minRounds     = 1000
	maxRounds     = 999_999_999
	// A hash with more rounds than this would keep a small board busy for minutes; one that is checked may not do that.
	checkRounds = 500_000
	maxSalt     = 16
	maxPassword = 256 // octets; the work grows with the length
)

const alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// UnsupportedError is a kind of hash that this package cannot check.
type UnsupportedError struct{ Kind string }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("password hashes of the kind %s are not supported: make one of $6$ with `openssl passwd -6`", e.Kind)
}

// Supported says whether Check can check a hash, and otherwise why not.
func Supported(hashed string) error {
	_, err := parse(hashed)
	return err
}

// Hash makes a $6$ hash of a password with a fresh salt.
func Hash(password string) (string, error) {
	if len(password) > maxPassword {
		return "", fmt.Errorf("the password is longer than %d octets", maxPassword)
	}
	salt := make([]byte, maxSalt)
	rand.Read(salt)
	for i, b := range salt {
		salt[i] = alphabet[b&63]
	}
	return method{kind: "6", salt: string(salt), rounds: defaultRounds}.hash(password), nil
}

// Check says whether a password is that of a hash. It takes as long for a wrong password as for the right one.
func Check(hashed, password string) (bool, error) {
	m, err := parse(hashed)
	if err != nil {
		return false, err
	}
	if len(password) > maxPassword {
		return false, nil
	}
	return subtle.ConstantTimeCompare([]byte(m.hash(password)), []byte(hashed)) == 1, nil
}

// method is what stands before the last $ of a hash.
type method struct {
	kind, salt string
	rounds     int
	explicit   bool // rounds=N is written
}

func parse(hashed string) (m method, err error) {
	parts := strings.Split(hashed, "$")
	if len(parts) < 2 || parts[0] != "" {
		return m, errors.New("not a crypt(3) hash such as $6$...")
	}
	m.kind, m.rounds = parts[1], defaultRounds
	if m.kind != "5" && m.kind != "6" {
		return m, &UnsupportedError{Kind: "$" + m.kind + "$"}
	}
	parts = parts[2:]
	if len(parts) > 0 && strings.HasPrefix(parts[0], "rounds=") {
		n, err := strconv.Atoi(parts[0][len("rounds="):])
		if err != nil || n < 0 || n > maxRounds {
			return m, fmt.Errorf("password hash: %q is not a number of rounds", parts[0])
		}
		if m.rounds, m.explicit = max(n, minRounds), true; m.rounds > checkRounds {
			return m, fmt.Errorf("password hash: %d rounds are more than the %d that are checked here", n, checkRounds)
		}
		parts = parts[1:]
	}
	if len(parts) != 2 || len(parts[0]) > maxSalt || len(parts[1]) != m.length() || strings.Trim(parts[1], alphabet) != "" {
		return m, errors.New("password hash: cut short, or not of crypt(3)")
	}
	m.salt = parts[0]
	return m, nil
}

func (m method) new() hash.Hash {
	if m.kind == "5" {
		return sha256.New()
	}
	return sha512.New()
}

func (m method) length() int {
	if m.kind == "5" {
		return 43
	}
	return 86
}

// hash is the specification's steps 1 to 22.
func (m method) hash(password string) string {
	key, salt := []byte(password), []byte(m.salt)
	sum := func(parts ...[]byte) []byte {
		h := m.new()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	b := sum(key, salt, key)
	size := len(b)
	h := m.new()
	h.Write(key)
	h.Write(salt)
	h.Write(stretch(b, len(key)))
	for n := len(key); n > 0; n >>= 1 {
		if n&1 == 1 {
			h.Write(b)
		} else {
			h.Write(key)
		}
	}
	a := h.Sum(nil)
	h.Reset()
	for range len(key) {
		h.Write(key)
	}
	p := stretch(h.Sum(nil), len(key))
	h.Reset()
	for range 16 + int(a[0]) {
		h.Write(salt)
	}
	s := stretch(h.Sum(nil), len(salt))
	for i := range m.rounds {
		h.Reset()
		if i&1 == 1 {
			h.Write(p)
		} else {
			h.Write(a)
		}
		if i%3 != 0 {
			h.Write(s)
		}
		if i%7 != 0 {
			h.Write(p)
		}
		if i&1 == 1 {
			h.Write(a)
		} else {
			h.Write(p)
		}
		a = h.Sum(a[:0])
	}
	var out strings.Builder
	out.WriteString("$" + m.kind + "$")
	if m.explicit {
		fmt.Fprintf(&out, "rounds=%d$", m.rounds)
	}
	out.WriteString(m.salt + "$")
	put := func(x, y, z byte, n int) {
		w := uint(x)<<16 | uint(y)<<8 | uint(z)
		for range n {
			out.WriteByte(alphabet[w&63])
			w >>= 6
		}
	}
	// Octets are taken three at a time, a third of the sum apart, the three places rotating (step 22, b and e).
	third := size / 3
	i, j, k := 0, third, 2*third
	for range third {
		put(a[i], a[j], a[k], 4)
		if m.kind == "6" {
			i, j, k = j+1, k+1, i+1
		} else {
			i, j, k = k+1, i+1, j+1
		}
	}
	if m.kind == "6" {
		put(0, 0, a[63], 2)
	} else {
		put(0, a[31], a[30], 3)
	}
	return out.String()
}

// stretch repeats b to n octets.
func stretch(b []byte, n int) []byte {
	out := make([]byte, 0, n)
	for len(out) < n {
		out = append(out, b[:min(len(b), n-len(out))]...)
	}
	return out
}
