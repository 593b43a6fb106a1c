package board

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Requirement is something the kernel must be able to do, and what loads it.
type Requirement struct {
	What    string // for people: "ESP for IPv4"
	Modules []string
	Option  string // of the kernel's configuration: "CONFIG_INET_ESP"
}

// KernelPath is what the kernel's data path needs, in the order of loading: what is used comes before what uses it.
var KernelPath = []Requirement{
	{"PPP", []string{"slhc", "ppp_generic", "pppox"}, "CONFIG_PPP, CONFIG_PPPOE"},
	{"L2TP over UDP", []string{"l2tp_core", "l2tp_ppp"}, "CONFIG_L2TP, CONFIG_PPPOL2TP"},
}

// IPsecPath is what IPsec in the kernel needs besides.
var IPsecPath = []Requirement{
	{"IPsec's interface to programs", []string{"xfrm_user"}, "CONFIG_XFRM_USER"},
	{"ESP", []string{"esp4", "authenc", "echainiv"}, "CONFIG_INET_ESP, CONFIG_CRYPTO_AUTHENC, CONFIG_CRYPTO_ECHAINIV"},
	{"random numbers for echainiv", []string{"drbg"}, "CONFIG_CRYPTO_DRBG"},
	{"AES in CBC, SHA-1 and SHA-2", []string{"cbc", "hmac", "sha1_generic", "sha256_generic"}, "CONFIG_CRYPTO_CBC, CONFIG_CRYPTO_HMAC, CONFIG_CRYPTO_SHA1, CONFIG_CRYPTO_SHA256"},
	{"AES in GCM", []string{"gcm", "seqiv"}, "CONFIG_CRYPTO_GCM, CONFIG_CRYPTO_SEQIV"},
	{"IPv6's ESP", []string{"esp6"}, "CONFIG_INET6_ESP"},
	{"clients behind one NAT", []string{"nf_tables", "nft_ct"}, "CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET"},
}

// A Loader loads kernel modules. Its functions are those of the system but for tests.
type Loader struct {
	Root    fs.FS  // rooted at /
	Release string // as uname -r; /lib/modules/RELEASE is searched
	// Probe has modprobe(8) do it, where there is one; its error is ErrNotExist without.
	Probe func(name string) error
	// Insert loads one file, found under Root.
	Insert func(file string) error
}

// NewLoader returns the system's.
func NewLoader() *Loader {
	var uts unix.Utsname
	unix.Uname(&uts)
	return &Loader{
		Root: os.DirFS("/"), Release: unix.ByteSliceToString(uts.Release[:]),
		Probe: modprobe, Insert: insert,
	}
}

func modprobe(name string) error {
	program, err := exec.LookPath("modprobe")
	if err != nil {
		return fs.ErrNotExist
	}
	if out, err := exec.Command(program, "-q", name).CombinedOutput(); err != nil {
		return fmt.Errorf("modprobe %s: %w %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func insert(file string) error {
	f, err := os.Open("/" + file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return &fs.PathError{Op: "load", Path: file, Err: err}
	}
	return nil
}

// Missing is what could not be loaded and is not there otherwise.
type Missing struct {
	Requirement
	Module string
	Err    error
}

func (m Missing) Error() string {
	return fmt.Sprintf("%s: no module %s (%s)", m.What, m.Module, m.Option)
}

// Load loads what the requirements name and is not yet there, in order, and returns what is missing. That a module is
// missing need not mean that the kernel cannot do it: older and newer ones name parts differently, and a kernel without
// modules has no list of what is built in. So the result is for the log; whoever needs a thing asks the kernel for it.
func (l *Loader) Load(reqs []Requirement) (missing []Missing) {
	if _, err := fs.Stat(l.Root, "proc/modules"); err != nil {
		return nil // this kernel has no modules: what it can do is built in
	}
	present := l.present()
	for _, r := range reqs {
		for _, name := range r.Modules {
			if present[name] {
				continue
			}
			err := l.Probe(name)
			if errors.Is(err, fs.ErrNotExist) {
				err = l.insert(name)
			}
			if err != nil {
				missing = append(missing, Missing{r, name, err})
			}
			present[name] = true // once is enough
		}
	}
	return missing
}

// present are the modules that are loaded, and those that the kernel has built in.
func (l *Loader) present() map[string]bool {
	have := make(map[string]bool)
	loaded, _ := fs.ReadDir(l.Root, "sys/module")
	for _, d := range loaded {
		have[d.Name()] = true
	}
	builtin, _ := fs.ReadFile(l.Root, path.Join("lib/modules", l.Release, "modules.builtin"))
	for line := range strings.Lines(string(builtin)) {
		have[moduleName(line)] = true
	}
	return have
}

// moduleName is what the kernel calls the module in a file.
func moduleName(file string) string {
	name := path.Base(strings.TrimSpace(file))
	name, _, _ = strings.Cut(name, ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// insert loads a module and what it needs by modules.dep, for systems without modprobe.
func (l *Loader) insert(name string) error {
	dir := path.Join("lib/modules", l.Release)
	b, err := fs.ReadFile(l.Root, path.Join(dir, "modules.dep"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		file, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || moduleName(file) != name {
			continue
		}
		files := strings.Fields(needs) // the last one is needed first
		for n := len(files) - 1; n >= 0; n-- {
			if err := l.Insert(path.Join(dir, files[n])); err != nil {
				return err
			}
		}
		return l.Insert(path.Join(dir, file))
	}
	return fmt.Errorf("%s: %w in /%s", name, fs.ErrNotExist, dir)
}
