package engine

import (
	"cmp"
	"slices"
	"strings"

	"culvert/hwcrypto"
)

// chain is one way for the kernel to do an algorithm: a driver, or a template over chains.
type chain struct {
	driver     string // as the kernel spells it
	name       string // of the algorithm
	kind       string // hwcrypto.Algorithm's Type; "" if it is not built yet
	priority   int    // what it has, or would get if the kernel built it
	async      bool
	engine     bool
	registered bool
}

// top is what ESP asks the kernel for (net/ipv4/esp4.c, net/xfrm/xfrm_algo.c).
func top(s hwcrypto.Suite) string {
	if s.AEAD() {
		return "seqiv(" + s.KernelName() + ")"
	}
	return "echainiv(" + s.KernelName() + ")"
}

// maxDriver is the longest driver name that NETLINK_CRYPTO can carry.
const maxDriver = 63

// chains are the ways to do an algorithm, the kernel's favourite first. Of what is alike in being synchronous, or
// asynchronous on the CPU, only the one with the highest priority is in it, and of engines each: authors of ciphers know
// which of theirs is faster on one processor, nobody knows how an engine compares with it. A pinned driver is kept too.
func chains(algs []hwcrypto.Algorithm, name, pin string) []chain {
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
		c.engine = c.engine || slices.ContainsFunc(engines, func(e string) bool { return uses(c.driver, e) })
	}
	list = slices.DeleteFunc(list, func(c chain) bool { return len(c.driver) > maxDriver })
	return thin(list, pin)
}

// compose lists what is registered under a name and what could be built for it.
func compose(algs []hwcrypto.Algorithm, name, pin string) (out []chain) {
	for _, a := range algs {
		if a.Name == name && !a.Internal && a.Tested {
			out = append(out, chain{driver: a.Driver, name: name, kind: a.Type, priority: a.Priority, async: a.Async, engine: a.Engine, registered: true})
		}
	}
	template, args, ok := split(name)
	if !ok {
		return out
	}
	sub := func(i int, kinds ...string) []chain {
		list := compose(algs, args[i], pin)
		if kinds != nil {
			list = slices.DeleteFunc(list, func(c chain) bool { return !slices.Contains(kinds, c.kind) })
		}
		return thin(list, pin)
	}
	add := func(priority int, driver string, parts ...chain) {
		if slices.ContainsFunc(out, func(c chain) bool { return c.driver == driver }) {
			return
		}
		c := chain{driver: driver, name: name, priority: priority}
		for _, p := range parts {
			c.async = c.async || p.async
			c.engine = c.engine || p.engine
		}
		out = append(out, c)
	}
	switch {
	case (template == "echainiv" || template == "seqiv" || template == "rfc4106") && len(args) == 1:
		for _, c := range sub(0) {
			add(c.priority, template+"("+c.driver+")", c)
		}
	case template == "hmac" && len(args) == 1: // over synchronous hashes only
		for _, c := range sub(0, "shash") {
			add(c.priority, "hmac("+c.driver+")", c)
		}
	case (template == "cbc" || template == "ctr") && len(args) == 1: // over a cipher of one block
		for _, c := range sub(0, "cipher", "lskcipher") {
			add(c.priority, template+"("+c.driver+")", c)
		}
	case template == "gcm" && len(args) == 1:
		ciphers, hashes := thin(compose(algs, "ctr("+args[0]+")", pin), pin), thin(compose(algs, "ghash", pin), pin)
		for _, c := range ciphers {
			for _, h := range hashes {
				add((c.priority+h.priority)/2, "gcm_base("+c.driver+","+h.driver+")", c, h)
			}
		}
	case template == "authenc" && len(args) == 2:
		for _, c := range sub(1) {
			for _, h := range sub(0) {
				add(10*c.priority+h.priority, "authenc("+h.driver+","+c.driver+")", c, h)
			}
		}
	case template == "rfc7539esp" && len(args) == 2:
		for _, c := range sub(0) {
			for _, h := range sub(1) {
				add((c.priority+h.priority)/2, "rfc7539esp("+c.driver+","+h.driver+")", c, h)
			}
		}
	}
	return out
}

// thin sorts by falling priority and keeps the first of each sort.
func thin(list []chain, pin string) []chain {
	// What is registered is taken before anything is built.
	slices.SortStableFunc(list, func(a, b chain) int { return cmp.Compare(b.priority, a.priority) })
	seen := make(map[string]bool)
	return slices.DeleteFunc(list, func(c chain) bool {
		sort := "cpu"
		switch {
		case pin != "" && uses(c.driver, pin):
			sort = "pinned"
		case c.engine:
			sort = c.driver
		case c.async:
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

// uses says whether a driver is, or is part of, a chain.
func uses(chain, driver string) bool {
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
