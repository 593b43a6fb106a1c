package config

import (
	"errors"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const edited = `# The office's router.
# Do not touch the pool.

[system]
identity = "office" # its name

[ppp.secret.ann]   # from accounting
  password = 'a "b"'
  # her second machine
  routes = ["10.1.0.0/24"]

[ppp.secret."DOM\\bob"]
password = """
two
lines""" # odd
comment = "x"

# the end
`

func TestDocument(t *testing.T) {
	ann, bob := []string{"ppp", "secret", "ann"}, []string{"ppp", "secret", `DOM\bob`}
	for _, c := range []struct {
		name     string
		do       func(*Document) error
		old, new string // what is replaced by what; the rest stays
	}{
		{"replace", func(d *Document) error { return d.Set(ann, "password", "n\x1b\u202ew\\") }, `'a "b"'`, `"n\u001b\u202ew\\"`},
		{"comment behind", func(d *Document) error { return d.Set([]string{"system"}, "identity", "x") }, `"office" #`, `"x" #`},
		{"several lines", func(d *Document) error { return d.Set(bob, "password", "p") }, "\"\"\"\ntwo\nlines\"\"\"", `"p"`},
		{"list", func(d *Document) error {
			return d.Set(ann, "routes", []string{"10.2.0.0/24", "10.3.0.0/24 172.16.1.1 1"})
		}, `["10.1.0.0/24"]`, `["10.2.0.0/24", "10.3.0.0/24 172.16.1.1 1"]`},
		{"the same again", func(d *Document) error { return d.Set(ann, "routes", []string{"10.1.0.0/24"}) }, "", ""},
		{"new key, indented", func(d *Document) error { return d.Set(ann, "disabled", true) }, "[\"10.1.0.0/24\"]\n", "[\"10.1.0.0/24\"]\n  disabled = true\n"},
		{"new key of the last", func(d *Document) error { return d.Set(bob, "n", int64(7)) }, "\"x\"\n", "\"x\"\nn = 7\n"},
		{"new table beside its like", func(d *Document) error { return d.Set([]string{"ppp", "secret", "a b"}, "password", "") }, "comment = \"x\"\n", "comment = \"x\"\n\n[ppp.secret.\"a b\"]\npassword = \"\"\n"},
		{"new table", func(d *Document) error { return d.Set([]string{"l2tp", "server"}, "enabled", true) }, "# the end\n", "# the end\n\n[l2tp.server]\nenabled = true\n"},
		{"unset", func(d *Document) error { return d.Unset(bob, "comment") }, "comment = \"x\"\n", ""},
		{"unset several lines", func(d *Document) error { return d.Unset(bob, "password") }, "password = \"\"\"\ntwo\nlines\"\"\" # odd\n", ""},
		{"unset what is not", func(d *Document) error { return d.Unset(bob, "disabled") }, "", ""},
		{"remove", func(d *Document) error { return d.Remove(ann) }, "[ppp.secret.ann]   # from accounting\n  password = 'a \"b\"'\n  # her second machine\n  routes = [\"10.1.0.0/24\"]\n\n", ""},
		{"remove the last", func(d *Document) error { return errors.Join(d.Remove(bob), d.Remove(bob)) }, "[ppp.secret.\"DOM\\\\bob\"]\npassword = \"\"\"\ntwo\nlines\"\"\" # odd\ncomment = \"x\"\n\n", ""},
		{"rename", func(d *Document) error { return d.Rename(ann, "ann.b") }, "[ppp.secret.ann]   #", "[ppp.secret.\"ann.b\"]   #"},
	} {
		for _, crlf := range []bool{false, true} {
			text, old, new := edited, c.old, c.new
			if crlf && c.name != "several lines" && !strings.Contains(c.name, "unset several") {
				text, old, new = "\xef\xbb\xbf"+strings.ReplaceAll(text, "\n", "\r\n"), strings.ReplaceAll(old, "\n", "\r\n"), strings.ReplaceAll(new, "\n", "\r\n")
			}
			d, err := NewDocument("c.toml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.do(d); err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			if want := strings.Replace(text, old, new, 1); string(d.Bytes()) != want {
				t.Errorf("%s\n got %q\nwant %q", c.name, d.Bytes(), want)
			}
		}
	}
}

// What the editor does not understand it names, and leaves alone.
func TestDocumentRefuses(t *testing.T) {
	ann := []string{"ppp", "secret", "ann"}
	for text, want := range map[string]string{
		"[ppp.secret]\nann = { password = \"x\" }\n":         "line 2 of the file cannot be changed from here: ppp.secret.ann is an inline table: change it with an editor",
		"ppp = { secret = { ann = { password = \"x\" } } }":  "line 1 of the file cannot be changed from here: ppp is an inline table: change it with an editor",
		"[ppp]\n\nsecret.ann.password = \"x\"\n":             "line 3 of the file cannot be changed from here: ppp.secret.ann is written with dotted keys: change it with an editor",
		"[[ppp.secret.ann]]\npassword = \"x\"\n":             "line 1 of the file cannot be changed from here: [[ppp.secret.ann]] is an array of tables: change it with an editor",
		"[ppp.secret.ann]\nroutes = [\n \"x\", # why\n]\n":   "line 2 of the file cannot be changed from here: the list of routes has comments inside: change it with an editor",
		"[ppp.secret.ann]\nroutes = { a = 1 }\n":             "line 2 of the file cannot be changed from here: ppp.secret.ann.routes is a table: change it with an editor",
		"[ppp.secret.ann]\nroutes.a = 1\n":                   "line 2 of the file cannot be changed from here: ppp.secret.ann.routes is a table: change it with an editor",
		"[ppp.secret.ann.routes]\nb = 1\n[ppp.secret.bob]\n": "line 1 of the file cannot be changed from here: ppp.secret.ann.routes is a table: change it with an editor",
	} {
		d, err := NewDocument("c.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		err = d.Set(ann, "routes", []string{"10.0.0.0/8"})
		var e *EditError
		if !errors.As(err, &e) || err.Error() != want {
			t.Errorf("%q\n got %v\nwant %s", text, err, want)
		}
		if string(d.Bytes()) != text {
			t.Errorf("%q: refused and changed: %q", text, d.Bytes())
		}
	}
	if _, err := NewDocument("c.toml", []byte("a = [")); err == nil {
		t.Error("what is not TOML is edited")
	}
}

// Every key of the full configuration can be set, and set back, and nothing else moves.
func TestDocumentEveryKey(t *testing.T) {
	full, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := Inspect("full.toml", full)
	if err != nil {
		t.Fatal(err)
	}
	var tables []*Table
	tables = append(tables, v.Singles...)
	for _, c := range v.Collections {
		tables = append(tables, c.Tables...)
	}
	n := 0
	for _, x := range tables {
		for _, k := range x.Keys {
			if k.Value == nil {
				continue
			}
			n++
			d, err := NewDocument("full.toml", full)
			if err != nil {
				t.Fatal(err)
			}
			var other any = "something else"
			if k.Kind == List {
				other = []string{"something", "else"}
			}
			if err := errors.Join(d.Set(x.Path, k.Name, other), d.Set(x.Path, k.Name, k.Value)); err != nil {
				t.Errorf("%v %s: %v", x.Path, k.Name, err)
			}
			// The string in triple quotes and those in single ones come back in double quotes.
			if k.Name != "password" && string(d.Bytes()) != string(full) {
				t.Errorf("%v %s: there and back is another text", x.Path, k.Name)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d keys", n)
	}
}

func FuzzDocument(f *testing.F) {
	full, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(full), "ppp.secret.Home", "comment", "x", uint8(0))
	f.Add(edited, "ppp.secret.ann", "routes", "x", uint8(1))
	f.Add(edited, "ppp.secret.ann", "routes", "x", uint8(2))
	f.Add("a.b = 1\n[c]\nd = { e = 1 } # x\n[[f]]\n[ c . g ]\nh=[[1,\n2],'#']", "c.g", "h", "\"", uint8(3))
	f.Add(edited, "ppp.secret.ann", "comment", "x", uint8(130))
	f.Add("[a]\r\nb = '''\r\n[c]'''\r\n", "a", "b", "\u202e", uint8(4))
	f.Add("a=1\n[[b]]", "a", "", "", uint8(3))
	f.Add("a=1\n[[b]]", "b", "", "", uint8(3))
	f.Fuzz(func(t *testing.T, text, dotted, key, value string, op uint8) {
		if len(text) > 1<<14 || dotted == "" {
			return
		}
		d, err := NewDocument("f", []byte(text))
		if err != nil {
			return
		}
		before, _ := decode([]byte(text))
		if op >= 128 {
			d.ProveLater()
		}
		path := strings.Split(dotted, ".")
		switch op % 5 {
		case 0:
			err = d.Set(path, key, value)
		case 1:
			err = d.Set(path, key, []string{value, ""})
		case 2:
			err = d.Unset(path, key)
		case 3:
			err = d.Remove(path)
		case 4:
			err = d.Rename(path, value)
		}
		if op >= 128 && (err != nil || d.Prove() != nil) {
			return
		}
		after, bad := decode(d.Bytes())
		if bad != nil {
			t.Fatalf("no TOML any more: %v", bad)
		}
		if err != nil {
			if string(d.Bytes()) != text {
				t.Fatal("refused, and changed all the same")
			}
			return
		}
		table := lookUp(after, path)
		switch op % 5 {
		case 0:
			if table[key] != value {
				t.Fatalf("%v is not %q", table[key], value)
			}
			delete(table, key)
			delete(lookUp(before, path), key)
		case 1:
			if !reflect.DeepEqual(table[key], []any{value, ""}) {
				t.Fatalf("%v is not the list", table[key])
			}
			delete(table, key)
			delete(lookUp(before, path), key)
		case 2:
			if _, there := table[key]; there {
				t.Fatal("still there")
			}
			delete(lookUp(before, path), key)
		case 3:
			if table != nil {
				t.Fatal("still there")
			}
			if lookUp(before, path) != nil { // and not a value of that name, which stays
				delete(lookUp(before, path[:len(path)-1]), path[len(path)-1])
			}
		case 4:
			to := append(slices.Clone(path[:len(path)-1]), value)
			if !reflect.DeepEqual(lookUp(after, to), lookUp(before, path)) {
				t.Fatal("renamed to something else")
			}
			delete(lookUp(after, to[:len(to)-1]), value)
			if parent := lookUp(before, path[:len(path)-1]); parent != nil {
				delete(parent, path[len(path)-1])
			}
		}
		empty(before)
		empty(after)
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("something else has changed:\n%v\n%v", before, after)
		}
		// The lines that are not touched are the same, octet by octet.
		if op%5 < 2 && len(d.Bytes()) > 0 {
			was, is := strings.SplitAfter(text, "\n"), strings.SplitAfter(string(d.Bytes()), "\n")
			for len(was) > 0 && len(is) > 0 && was[0] == is[0] {
				was, is = was[1:], is[1:]
			}
			for len(was) > 0 && len(is) > 0 && was[len(was)-1] == is[len(is)-1] {
				was, is = was[:len(was)-1], is[:len(is)-1]
			}
			if n := strings.Count(strings.Join(is, ""), "\n"); n > 4 {
				t.Fatalf("%d lines are new", n)
			}
		}
	})
}

// empty drops tables that hold nothing.
func empty(m map[string]any) {
	maps.DeleteFunc(m, func(_ string, v any) bool {
		sub, ok := v.(map[string]any)
		if ok {
			empty(sub)
		}
		return ok && len(sub) == 0
	})
}

// The inventory knows every key that the full configuration has, and what stands in it.
func TestInventory(t *testing.T) {
	full, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	v, c, err := Inspect("full.toml", full)
	if err != nil || c == nil {
		t.Fatal(err)
	}
	doc, _ := decode(full)
	var walk func(m map[string]any, path []string)
	walk = func(m map[string]any, path []string) {
		for k, x := range m {
			if sub, ok := x.(map[string]any); ok {
				walk(sub, append(slices.Clone(path), k))
				continue
			}
			table := v.Single(strings.Join(path, "."))
			if c := v.Collection(strings.Join(path[:len(path)-1], ".")); c != nil {
				table = c.Find(path[len(path)-1])
			}
			if table == nil || table.Key(k) == nil || table.Key(k).Value == nil {
				t.Errorf("%v %s is not in the inventory", path, k)
			}
		}
	}
	walk(doc, nil)
	profiles := v.Collection("ppp.profile")
	if got := len(profiles.All()); got != 3 || profiles.All()[0].Name() != "default-encryption" || profiles.All()[0].Written {
		t.Errorf("profiles: %d", got)
	}
	if _, ok := c.AAA.Secrets[prototype]; ok || len(c.Clients) != 1 {
		t.Error("prototypes are in force")
	}
	s := Schema()
	if k := s.Single("l2tp.server").Key("listen"); k.Kind != List || !reflect.DeepEqual(k.Effective(), []string{"0.0.0.0:1701", "[::]:1701"}) {
		t.Errorf("listen: %+v", k)
	}
	if k := s.Collection("l2tp.client").Prototype.Key("keepalive-timeout"); k.Kind != Duration || k.Default != "1m" {
		t.Errorf("keepalive-timeout: %+v", k)
	}
}
