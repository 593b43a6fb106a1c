package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPick(t *testing.T) {
	r := func(driver string, engine bool, small, large int, failure string) Result {
		return Result{Driver: driver, Engine: engine, Each: [3]time.Duration{time.Duration(small), 0, time.Duration(large)}, Failure: failure}
	}
	ahead := func(n int, r Result) Result { r.Wins = n; return r }
	for name, c := range map[string]struct {
		setting string
		results []Result
		want    string
		reason  string
	}{
		"an engine that is slow on small packets": {Auto, []Result{r("engine", true, 900, 250, ""), ahead(5, r("cpu", false, 50, 400, ""))}, "cpu", "fastest"},
		"an engine that wins":                     {Auto, []Result{r("cpu", false, 50, 400, ""), ahead(4, r("engine", true, 60, 100, ""))}, "engine", "fastest"},
		"not often enough":                        {Auto, []Result{r("cpu", false, 50, 400, ""), ahead(3, r("engine", true, 60, 100, ""))}, "cpu", "no other is faster"},
		"the faster of two":                       {Auto, []Result{r("cpu", false, 50, 400, ""), ahead(4, r("a", true, 60, 100, "")), ahead(4, r("b", true, 60, 90, ""))}, "b", "fastest"},
		"a hair's breadth":                        {Auto, []Result{r("cpu", false, 100, 100, ""), r("engine", true, 99, 99, "")}, "cpu", "no other is faster"},
		"its own fails":                           {Auto, []Result{r("engine", true, 0, 0, "it hangs"), r("cpu", false, 50, 400, "")}, "cpu", "own choice fails; engine: it hangs"},
		"hardware though slower":                  {Hardware, []Result{r("cpu", false, 50, 400, ""), r("engine", true, 900, 900, "")}, "engine", `"hardware"`},
		"hardware that fails":                     {Hardware, []Result{r("cpu", false, 50, 400, ""), r("engine", true, 0, 0, "it hangs")}, "cpu", "cannot be obeyed"},
		"the better of two engines":               {Hardware, []Result{r("cpu", false, 50, 400, ""), r("a", true, 100, 900, ""), r("b", true, 100, 800, "")}, "b", `"hardware"`},
		"software though slower":                  {Software, []Result{r("engine", true, 0, 0, ""), r("cpu", false, 900, 900, "")}, "cpu", `"software"`},
		"a driver":                                {"b", []Result{r("cpu", false, 50, 400, ""), r("t(a)", true, 100, 90, ""), r("t(b)", true, 100, 800, "")}, "t(b)", `"b"`},
		"no such driver":                          {"c", []Result{r("cpu", false, 50, 400, ""), r("t(a)", true, 100, 900, "")}, "cpu", "cannot be obeyed"},
	} {
		got, reason := pick(c.setting, c.results)
		if got.Driver != c.want || !strings.Contains(reason, c.reason) {
			t.Errorf("%s: %s because %s", name, got.Driver, reason)
		}
	}
}

func TestState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "crypto.json")
	unlock, err := lock(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(file); err != ErrBusy {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if unlock, err = lock(file); err != nil {
		t.Errorf("unlocked: %v", err)
	}
	defer unlock()
	s := state{Board: "board", Kernel: "6.1", Suites: []measured{{Suite: gcm.String(), Chains: []Result{{Driver: "d", Each: [3]time.Duration{1, 2, 3}}}}}, Changed: []change{{"d", -1, true}}}
	if err := s.write(file); err != nil {
		t.Fatal(err)
	}
	was, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.write(file); err != nil {
		t.Fatal(err)
	}
	// A rename would bring another inode.
	if is, err := os.Stat(file); err != nil || !os.SameFile(was, is) {
		t.Errorf("written although nothing changed: %v", err)
	}
	got := readState(file)
	if got.Board != "board" || got.Suites[0].Chains[0].Each != s.Suites[0].Chains[0].Each || !slices.Equal(got.Changed, s.Changed) {
		t.Errorf("%+v", got)
	}
	if err := os.WriteFile(file, []byte(`{"Board":"board","Ker`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readState(file); got.Board != "" {
		t.Errorf("out of half a file: %+v", got)
	}
	if left, _ := filepath.Glob(file + ".*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
