package console

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// oldPrompt is the same as prompt, in other words.
var oldPrompt = regexp.MustCompile(`^\[[^\]\s@]*@[^\]\n]*\][ \t]*(/?[a-z0-9][a-z0-9 /-]*|/)?>`)

func TestPrompt(t *testing.T) {
	for _, text := range []string{
		"[admin@MikroTik] > print", "[admin@a b] /ip ipsec> print", "[admin@x] /ip ipsec policy > print", "[@] />", "[a@b]>", "[a@b] / >",
		"[a b@c] >", "[a]@b] >", "[a@b\n] >", "[a@b] /Ip>", "[a@b] -x>", "[a@b]", "[find name~\"@\"] >", "[a@b] /ip-x/y 1>>", "a@b] >", "", "[a@",
		"[a@b]\t\t/interface l2tp-server>set", "[a@b] //>", "[[a@b] >",
	} {
		menu, size := prompt(text)
		m := oldPrompt.FindStringSubmatch(text)
		if (m != nil) != (size > 0) {
			t.Errorf("%q: a prompt of %d octets, not %q", text, size, m)
			continue
		}
		if m != nil && (len(m[0]) != size || strings.Trim(m[1], "/ ") != strings.Trim(menu, "/ ")) {
			t.Errorf("%q: %q, %d octets; not %q", text, menu, size, m)
		}
	}
}

func TestPattern(t *testing.T) {
	for _, p := range []string{
		"", "abc", "^us", "er$", "^$", "a|b", "a|", "(a|b)*c", "a+b?", "x{2}", "x{2,}y", "^x{2,3}$", "x{0}", "{a}", "a{,3}", "a{1,b}", "[a-c]+", "[^a-c]",
		"[]a]", "[^]a]", "[a-]", "[-a]", `[\d.]+`, `\d+\.\d+`, `\w\W`, `\S\s\D`, "[[:alpha:]_]+[[:digit:]]", "(?:ab)+", "a*?b", "(a*)*", "(a*)+$", "()+x",
		"((a)|(b))(c|d)$", ".", "é.", "[à-é]", `\.\*\[\]\(\)`, "ipsec|l2tp,(error|info)", "(^a|b$)", "a^b", "a$b", "(a{2}){3}", "(|x)y", `a\nb`,
	} {
		re, err := compilePattern(p)
		if err != nil {
			t.Errorf("%q: %v", p, err)
			continue
		}
		other := regexp.MustCompile(p)
		for _, text := range []string{
			"", "a", "b", "abc", "user", "us", "aab", "xx", "xxx", "xxxx", "xxy", "]", "-", "{a}", "a{,3}", "aaa", "10.0.0.1", "_ a1", "alpha_9", "abab", "acd", "bd",
			"été", "é!", "ipsec,info", "l2tp,error", ".*[]()", "a\nb", "aaaaaa", "\xff", "ab$", "y", "a{1,b}",
		} {
			if got, want := re.match(text), other.MatchString(text); got != want {
				t.Errorf("%q in %q: %v", p, text, got)
			}
		}
	}
	for p, want := range map[string]string{
		"(":                  "a parenthesis is not closed",
		"a)":                 "a parenthesis is closed that was not opened",
		"*a":                 "there is nothing before * to repeat",
		"a|+":                "there is nothing before + to repeat",
		"[a":                 "a bracket is not closed",
		"[":                  "a bracket is not closed",
		"[a-":                "a bracket is not closed",
		"[z-a]":              "a range within brackets goes backwards",
		`[\d-z]`:             "a range within brackets goes backwards",
		`[a-\d]`:             "a range within brackets goes backwards",
		"[[:no:]]":           "[:no:] is no class",
		`[\D]`:               "a class of all others is not possible within brackets",
		`a\`:                 "there is nothing after a backslash",
		`\q`:                 `\q has no meaning`,
		"a{2000}":            "a count in braces makes no sense",
		"a{3,2}":             "a count in braces makes no sense",
		"((a{99}){99}){99}":  "it is too large",
		"(((a*){1000}){999}": "a parenthesis is not closed",
		strings.Repeat("(", 200) + "a" + strings.Repeat(")", 200): "it is too large",
	} {
		if _, err := compilePattern(p); err == nil || err.Error() != want {
			t.Errorf("%q: %v", p, err)
		}
	}
	// Where one way is tried after the other this takes for ever.
	re, err := compilePattern("(a*)*(a|aa)*(.*){40}b")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if re.match(strings.Repeat("a", 1000)) || time.Since(begun) > 5*time.Second {
		t.Errorf("matched, or took %v", time.Since(begun))
	}
}

// What both this and package regexp know, they agree on.
func FuzzPattern(f *testing.F) {
	f.Add("(a|b)*c{2,3}[^x-z]+$", "abccy")
	f.Add(`^\d+(\.\d+)?|[[:alpha:]]`, "1.5")
	f.Fuzz(func(t *testing.T, p, text string) {
		re, err := compilePattern(p)
		if err != nil {
			return
		}
		got := re.match(text)
		for _, differs := range []string{`\s`, `\S`, "(?", "\v", "\ufffd"} {
			if strings.Contains(p, differs) {
				return // classes of blanks, flags, and texts that only one takes
			}
		}
		other, err := regexp.Compile(p)
		if err == nil && !strings.Contains(text, "\v") && got != other.MatchString(text) {
			t.Errorf("%q in %q: %v", p, text, got)
		}
	})
}
