package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/BurntSushi/toml"

	"culvert/cmd/culvert/internal/logring"
	"culvert/ipsec/ikev1"
	"culvert/l2tp"
	"culvert/ppp"
	"culvert/ppp/aaa"
)

// DefaultPath is read when no -c is given.
const DefaultPath = "/etc/culvert/culvert.toml"

// maxFile bounds a configuration file in octets: thousands of users fit, a wrong file name does not exhaust a small board.
const maxFile = 4 << 20

// Config is a whole configuration, checked: every reference in it resolves and every number is in range.
type Config struct {
	System   System
	Log      logring.Config
	Users    map[string]User // console logins
	Server   Server
	AAA      aaa.Config
	AAAUse   AAAUse
	RADIUS   map[string]RADIUS
	Clients  []Client // in the order of the file
	Ethers   []Ether  // in the order of the file
	IPsec    ikev1.Config
	Firewall Firewall
	Network  Network

	// Prefixes of IPv6 pools that profiles delegate from, by profile; and the bridges that profiles join by BCP.
	PrefixPools, Bridges map[string]string

	// Text is what was read.
	Text []byte

	// Warnings do not stop the daemon: weak algorithms that were asked for by name, what this version cannot do yet, and
	// settings that are legal but probably not meant. In the order of the file.
	Warnings []Problem
}

// System is `[system]`.
type System struct {
	Identity     string
	DataPath     DataPath
	CryptoEngine string // auto, hardware, software, or a kernel driver's name
	// AllowWorldReadable lets a file with secrets be readable by everyone.
	AllowWorldReadable bool

	LED         string // the light that shows the tunnels' state; empty: none
	Watchdog    Watchdog
	ResetButton ResetButton
}

// DataPath is who moves the packets.
type DataPath string

const (
	DataPathAuto      DataPath = "auto"
	DataPathKernel    DataPath = "kernel"
	DataPathUserspace DataPath = "userspace"
)

// User is `[user.NAME]`, someone who may use the console on a serial line.
type User struct {
	Name         string
	PasswordHash string // crypt(3)
	ReadOnly     bool   // group = "read"
}

// CallerIDType is what identifies a caller to the secrets' caller-id.
type CallerIDType string

const (
	CallerIDAddress CallerIDType = "ip-address"
	CallerIDNumber  CallerIDType = "number"
)

// Server is `[l2tp.server]`.
type Server struct {
	Enabled        bool
	UseIPsec       l2tp.Protection
	Listen         []netip.AddrPort
	DefaultProfile string
	CallerIDType   CallerIDType
	MRRU           int // 0: no multilink
	AllowFastPath  bool
	L2TP           l2tp.Config
	PPP            ppp.Config
	V3             ServerV3
}

// Load reads and checks one file. The error is an *Error when the file was read and is wrong.
func Load(path string) (*Config, error) {
	data, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	r := newReader(path, data)
	c := r.parse(data)
	if info.Mode().IsRegular() {
		r.checkMode(c, info.Mode().Perm())
	}
	return r.result(c)
}

// Parse checks a configuration that is already in memory; name stands for the file in messages.
func Parse(name string, data []byte) (*Config, error) {
	r := newReader(name, data)
	return r.result(r.parse(data))
}

func (r *reader) parse(data []byte) *Config {
	doc, err := decode(data)
	if err != nil {
		r.syntax(err)
		return nil
	}
	return r.tree(doc, data)
}

// tree reads what has been decoded; it does not change it.
func (r *reader) tree(doc map[string]any, data []byte) *Config {
	root := &table{r: r, m: doc}
	c := &Config{Text: data, PrefixPools: map[string]string{}, Bridges: map[string]string{}}
	r.system(root, c)
	r.network(root, c)
	r.aaa(root, c)
	r.l2tp(root, c)
	r.ipsec(root, c)
	root.done()
	return c
}

func (r *reader) syntax(err error) {
	var pe toml.ParseError
	if errors.As(err, &pe) {
		r.problems = append(r.problems, Problem{File: r.file, Line: pe.Position.Line, Key: pe.LastKey, Text: "not TOML: " + logring.Escape(pe.Message)})
		return
	}
	r.problems = append(r.problems, Problem{File: r.file, Text: "not TOML: " + logring.Escape(err.Error())})
}

// checkMode refuses a file that shows its secrets to every user of the machine, or that any of them could change.
func (r *reader) checkMode(c *Config, mode os.FileMode) {
	switch {
	case mode&0o002 != 0:
		r.problems = append(r.problems, Problem{File: r.file, Text: fmt.Sprintf("anyone may change it (mode %04o): chmod 600 %s", mode, r.file)})
	case mode&0o007 == 0 || r.secretKey == "":
	case c != nil && c.System.AllowWorldReadable:
		r.problems = append(r.problems, Problem{File: r.file, Line: r.secretLine, Key: r.secretKey, Severity: Warning,
			Text: fmt.Sprintf("a secret in a file that everyone may read (mode %04o)", mode)})
	default:
		r.problems = append(r.problems, Problem{File: r.file, Line: r.secretLine, Key: r.secretKey,
			Text: fmt.Sprintf("a secret in a file that everyone may read (mode %04o): chmod 600 %s, or set allow-world-readable = true in [system]", mode, r.file)})
	}
}
