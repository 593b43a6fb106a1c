package hwcrypto

import (
	"slices"
	"sort"
	"strings"
)

// Chain is one way for the kernel to do an algorithm: a driver, or a template over chains.
type Chain struct {
	Driver   string // as the kernel spells it
	Priority int    // what it has, or would get if the kernel built it
	Async    bool
	Engine   bool

	kind string // Algorithm's Type; "" if it is not built yet
}

// ESPName is what the kernel's ESP asks for (net/ipv4/esp4.c, net/xfrm/xfrm_algo.c).
func (s Suite) ESPName() string {
	if s.AEAD() {
		return "seqiv(" + s.KernelName() + ")"
	}
	return "echainiv(" + s.KernelName() + ")"
}

// MaxDriver is the longest driver name that NETLINK_CRYPTO and AF_ALG can carry.
const MaxDriver = cryptoNameLen - 1

// Chains are the ways to do an algorithm, the kernel's favourite first. Of what is alike in being synchronous, or
// asynchronous on the CPU, only the one with the highest priority is in it, and of engines each: authors of ciphers know
// which of theirs is faster on one processor, nobody knows how an engine compares with it. A pinned driver is kept too.
func Chains(algs []Algorithm, name, pin string) []Chain {
	var engines []string
	for _, a := range algs {
		if a.Engine && !strings.ContainsRune(a.Driver, '(') {
			engines = append(engines, a.Driver)
		}
	}
	list := compose(algs, name, pin)
	for i := range list {
		c := &list[i]
		// An instance over an engine's cipher does not have the engine's flags.
		c.Engine = c.Engine || slices.ContainsFunc(engines, func(e string) bool { return Uses(c.Driver, e) })
	}
	list = slices.DeleteFunc(list, func(c Chain) bool { return len(c.Driver) > MaxDriver })
	return thin(list, pin)
}

// compose lists what is registered under a name and what could be built for it.
func compose(algs []Algorithm, name, pin string) (out []Chain) {
	for _, a := range algs {
		if a.Name == name && !a.Internal && a.Tested {
			out = append(out, Chain{Driver: a.Driver, Priority: a.Priority, Async: a.Async, Engine: a.Engine, kind: a.Type})
		}
	}
	template, args, ok := split(name)
	if !ok {
		return out
	}
	sub := func(i int, kinds ...string) []Chain {
		list := compose(algs, args[i], pin)
		if kinds != nil {
			list = slices.DeleteFunc(list, func(c Chain) bool { return !slices.Contains(kinds, c.kind) })
		}
		return thin(list, pin)
	}
	add := func(priority int, driver string, parts ...Chain) {
		if slices.ContainsFunc(out, func(c Chain) bool { return c.Driver == driver }) {
			return
		}
		c := Chain{Driver: driver, Priority: priority}
		for _, p := range parts {
			c.Async = c.Async || p.Async
			c.Engine = c.Engine || p.Engine
		}
		out = append(out, c)
	}
	switch {
	case (template == "echainiv" || template == "seqiv" || template == "rfc4106") && len(args) == 1:
		for _, c := range sub(0) {
			add(c.Priority, template+"("+c.Driver+")", c)
		}
	case template == "hmac" && len(args) == 1: // over synchronous hashes only
		for _, c := range sub(0, "shash") {
			add(c.Priority, "hmac("+c.Driver+")", c)
		}
	case (template == "cbc" || template == "ctr") && len(args) == 1: // over a cipher of one block
		for _, c := range sub(0, "cipher", "lskcipher") {
			add(c.Priority, template+"("+c.Driver+")", c)
		}
	case template == "gcm" && len(args) == 1:
		ciphers, hashes := thin(compose(algs, "ctr("+args[0]+")", pin), pin), thin(compose(algs, "ghash", pin), pin)
		for _, c := range ciphers {
			for _, h := range hashes {
				add((c.Priority+h.Priority)/2, "gcm_base("+c.Driver+","+h.Driver+")", c, h)
			}
		}
	case template == "authenc" && len(args) == 2:
		for _, c := range sub(1) {
			for _, h := range sub(0) {
				add(10*c.Priority+h.Priority, "authenc("+h.Driver+","+c.Driver+")", c, h)
			}
		}
	case template == "rfc7539esp" && len(args) == 2:
		for _, c := range sub(0) {
			for _, h := range sub(1) {
				add((c.Priority+h.Priority)/2, "rfc7539esp("+c.Driver+","+h.Driver+")", c, h)
			}
		}
	}
	return out
}

// thin sorts by falling priority and keeps the first of each sort.
func thin(list []Chain, pin string) []Chain {
	// What is registered is taken before anything is built.
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return b.Priority < a.Priority
	})
	seen := make(map[string]bool)
	return slices.DeleteFunc(list, func(c Chain) bool {
		sort := "cpu"
		switch {
		case pin != "" && Uses(c.Driver, pin):
			sort = "pinned"
		case c.Engine:
			sort = c.Driver
		case c.Async:
			sort = "async"
		}
		was := seen[sort]
		seen[sort] = true
		return was
	})
}

// split takes "authenc(hmac(sha1),cbc(aes))" apart.
func split(name string) (template string, args []string, ok bool) {
	template, rest, ok := strings.Cut(name, "(")
	if !ok || !strings.HasSuffix(rest, ")") {
		return "", nil, false
	}
	rest = rest[:len(rest)-1]
	depth, start := 0, 0
	for i, r := range rest {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			args = append(args, rest[start:i])
			start = i + 1
		}
	}
	return template, append(args, rest[start:]), depth == 0
}

// Uses says whether a driver is, or is part of, a chain.
func Uses(chain, driver string) bool {
	const within = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	for at := 0; ; {
		i := strings.Index(chain[at:], driver)
		if i < 0 || driver == "" {
			return false
		}
		from, to := at+i, at+i+len(driver)
		if (from == 0 || !strings.ContainsRune(within, rune(chain[from-1]))) && (to == len(chain) || !strings.ContainsRune(within, rune(chain[to]))) {
			return true
		}
		at = from + 1
	}
}
