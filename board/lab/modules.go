package lab

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A moduleTree is one kernel's modules as Debian packages them: no modules.dep, which depmod makes on installation, so
// what a module needs is read from itself.
type moduleTree struct {
	dir     string            // lib/modules/RELEASE
	release string            // as uname -r
	files   map[string]string // module name -> file, relative to dir
	builtin map[string]bool
	deps    map[string][]string
}

// openModules reads the one tree under dir/lib/modules.
func openModules(dir string) (*moduleTree, error) {
	trees, err := filepath.Glob(filepath.Join(dir, "lib/modules/*"))
	if err != nil {
		return nil, err
	}
	if len(trees) != 1 {
		return nil, fmt.Errorf("%s has the modules of %d kernels, not of one", dir, len(trees))
	}
	t := &moduleTree{
		dir: trees[0], release: filepath.Base(trees[0]),
		files: make(map[string]string), builtin: make(map[string]bool), deps: make(map[string][]string),
	}
	err = filepath.WalkDir(t.dir, func(file string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(file, ".ko") {
			rel, _ := filepath.Rel(t.dir, file)
			t.files[moduleName(file)] = rel
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(t.dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		t.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return t, nil
}

// moduleName is what the kernel calls a module: its file's name with dashes as underscores.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}

// info returns the "key=value" items that a module says of itself.
func (t *moduleTree) info(name string) ([]string, error) {
	f, err := elf.Open(filepath.Join(t.dir, t.files[name]))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("%s has no .modinfo", t.files[name])
	}
	b, err := s.Data()
	return strings.Split(string(b), "\x00"), err
}

// requires returns the modules that one needs ("depends=") and those it would only like ("softdep=pre:").
func (t *moduleTree) requires(name string) ([]string, error) {
	if deps, ok := t.deps[name]; ok {
		return deps, nil
	}
	items, err := t.info(name)
	if err != nil {
		return nil, err
	}
	var deps []string
	for _, item := range items {
		if list, ok := strings.CutPrefix(item, "depends="); ok && list != "" {
			for _, d := range strings.Split(list, ",") {
				deps = append(deps, moduleName(d))
			}
		}
		if list, ok := strings.CutPrefix(item, "softdep=pre: "); ok {
			list, _, _ = strings.Cut(list, " post:")
			for _, d := range strings.Fields(list) {
				if d = moduleName(d); t.files[d] != "" {
					deps = append(deps, d)
				}
			}
		}
	}
	t.deps[name] = deps
	return deps, nil
}

// errNoModule: a kernel has something neither as a module nor built in.
var errNoModule = errors.New("no such kernel module")

// resolve returns the modules of names and what they need, what is needed first. What is built in is left out.
// A name that ends in "?" may be missing.
func (t *moduleTree) resolve(names []string) (order []string, err error) {
	var visit func(name string, path []string) error
	visit = func(name string, path []string) error {
		if slices.Contains(order, name) || t.builtin[name] {
			return nil
		}
		if t.files[name] == "" {
			return fmt.Errorf("%w: %s (kernel %s)", errNoModule, name, t.release)
		}
		if slices.Contains(path, name) {
			return fmt.Errorf("kernel modules need each other: %v", append(path, name))
		}
		deps, err := t.requires(name)
		if err != nil {
			return err
		}
		for _, d := range deps {
			if err := visit(d, append(path, name)); err != nil {
				return err
			}
		}
		order = append(order, name)
		return nil
	}
	for _, name := range names {
		want, optional := strings.CutSuffix(name, "?")
		if err := visit(moduleName(want), nil); err != nil && !(optional && errors.Is(err, errNoModule)) {
			return nil, err
		}
	}
	return order, nil
}

// pack puts the modules of names, and what they need, into an initramfs where modprobe looks for them, with the lists of
// dependencies and aliases that depmod would write. It returns the files in the order of loading.
func (t *moduleTree) pack(r *Initramfs, names []string) (files []string, err error) {
	order, err := t.resolve(names)
	if err != nil {
		return nil, err
	}
	base := "lib/modules/" + t.release
	sorted := slices.Sorted(slices.Values(order))
	var dep, alias strings.Builder
	for _, name := range sorted {
		all, err := t.resolve([]string{name})
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&dep, "%s:", t.files[name])
		slices.Reverse(all)
		for _, d := range all[1:] {
			fmt.Fprintf(&dep, " %s", t.files[d])
		}
		dep.WriteByte('\n')
		items, err := t.info(name)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			if a, ok := strings.CutPrefix(item, "alias="); ok {
				fmt.Fprintf(&alias, "alias %s %s\n", a, name)
			}
		}
	}
	for _, name := range order {
		r.File(base+"/"+t.files[name], filepath.Join(t.dir, t.files[name]))
		files = append(files, "/"+base+"/"+t.files[name])
	}
	r.Data(base+"/modules.dep", 0o644, []byte(dep.String()))
	r.Data(base+"/modules.alias", 0o644, []byte(alias.String()))
	r.File(base+"/modules.builtin", filepath.Join(t.dir, "modules.builtin"))
	return files, nil
}
