// Command culvert is an L2TP/IPsec server in one binary: IKEv1, ESP, L2TPv2, PPP and AAA, with the kernel moving the
// packets. Read daemon.go first: it wires the packages in the order a packet travels.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/control"
	"culvert/cmd/culvert/internal/demo"
)

// version is set by the linker.
var version = ""

const (
	defaultConfig = "/etc/culvert/culvert.toml"

	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command is one word of `culvert WORD`.
type command struct {
	name, args, about string
	run               func(ctx context.Context, c *invocation) int
}

// invocation is what a command gets: its own flags parsed, and the world.
type invocation struct {
	flags          *flag.FlagSet
	config, socket string
	execute        string
	who            string
	json           bool
	tty            string
	baud           int
	demo           demo.Options
	measure        bool
	stdin          io.Reader
	stdout, stderr io.Writer
}

func commands() []command {
	return []command{
		{"run", "[-c FILE]", "the daemon, in the foreground; SIGHUP re-reads FILE, SIGTERM says goodbye to every peer", runDaemon},
		{"check", "[-c FILE]", "every mistake in FILE with file, line and key; exit status 1 if there is one", runCheck},
		{"console", "[-e COMMAND] [--json] [-tty DEVICE]", "RouterOS-like console of the running daemon, here or on a serial line", runConsole},
		{"explain", "ADDRESS|USER [--json]", "why a client is not connected: what it did, and the cause in one sentence", runExplain},
		{"demo", "", "a server and a client in network namespaces of this machine, traffic through the tunnel, what was seen", runDemo},
		{"cert", "ca|server|client|revoke|show", "makes certificates for servers and clients; see culvert cert help", nil},
		{"crypto", "[-c FILE] [--json] [--measure]", "which ciphers and engines this machine has, how fast they are, which ESP uses and why", runCrypto},
		{"version", "", "which build this is", runVersion},
	}
}

// run is main without the process: it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(stdout)
		return exitDone
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		if c.name == "cert" {
			return runCert(time.Now(), args[1:], stdin, stdout, stderr)
		}
		inv := &invocation{stdin: stdin, stdout: stdout, stderr: stderr}
		inv.flags = flag.NewFlagSet("culvert "+c.name, flag.ContinueOnError)
		inv.flags.SetOutput(stderr)
		inv.flags.Usage = func() {
			fmt.Fprintf(inv.flags.Output(), "usage: culvert %s\n  %s\n", strings.TrimSpace(c.name+" "+c.args), c.about)
			inv.flags.PrintDefaults()
		}
		if c.name == "run" || c.name == "check" || c.name == "crypto" {
			inv.flags.StringVar(&inv.config, "c", defaultConfig, "configuration `FILE`")
		}
		if c.name == "run" || c.name == "console" || c.name == "explain" {
			inv.flags.StringVar(&inv.socket, "socket", control.DefaultPath, "control `SOCKET`")
		}
		if c.name == "explain" {
			inv.flags.BoolVar(&inv.json, "json", false, "answer in JSON")
		}
		if c.name == "console" {
			inv.flags.StringVar(&inv.execute, "e", "", "run one `COMMAND` and exit")
			inv.flags.BoolVar(&inv.json, "json", false, "answer in JSON, with -e")
			inv.flags.StringVar(&inv.tty, "tty", "", "ask for a login on the serial line `DEVICE`")
			inv.flags.IntVar(&inv.baud, "baud", 0, "its `SPEED`; 0 leaves the one it has")
		}
		if c.name == "demo" {
			inv.flags.StringVar(&inv.demo.DataPath, "data-path", "userspace", "who moves the packets at both ends: auto, kernel or userspace (`WHO`)")
			inv.flags.Float64Var(&inv.demo.Seconds, "seconds", 2, "send for so many `SECONDS` each way")
		}
		if c.name == "crypto" {
			inv.flags.BoolVar(&inv.json, "json", false, "for programs")
			inv.flags.BoolVar(&inv.measure, "measure", false, "measure again what is known")
		}
		for _, a := range args[1:] {
			if a == "-h" || a == "-help" || a == "--help" {
				inv.flags.SetOutput(stdout)
			}
		}
		rest := args[1:]
		if c.name == "explain" && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") { // flags may stand behind it
			inv.who, rest = rest[0], rest[1:]
		}
		if err := inv.flags.Parse(rest); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return exitDone
			}
			return exitUsage
		}
		if c.name == "explain" && inv.who == "" && inv.flags.NArg() > 0 {
			inv.who = inv.flags.Arg(0)
			inv.flags.Parse(inv.flags.Args()[1:])
		}
		if c.name == "explain" && inv.who == "" {
			fmt.Fprintln(stderr, "culvert explain: of whom? An ADDRESS or a USER; see culvert explain --help")
			return exitUsage
		}
		if inv.flags.NArg() > 0 {
			fmt.Fprintf(stderr, "culvert %s: unexpected %q; see culvert %s --help\n", c.name, inv.flags.Arg(0), c.name)
			return exitUsage
		}
		return c.run(ctx, inv)
	}
	fmt.Fprintf(stderr, "culvert: no command %q; see culvert help\n", args[0])
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: culvert COMMAND [flags]")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-32s %s\n", strings.TrimSpace(c.name+" "+c.args), c.about)
	}
}

func runVersion(_ context.Context, c *invocation) int {
	fmt.Fprintf(c.stdout, "culvert %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitDone
}

// buildVersion is what the linker was told, or what the module's build says about itself.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

// runCheck prints every problem, warnings too; only errors make it fail.
func runCheck(_ context.Context, c *invocation) int {
	cfg, err := config.Load(c.config)
	if err != nil {
		fmt.Fprintln(c.stderr, err)
		return exitFailed
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(c.stderr, w)
	}
	fmt.Fprintf(c.stdout, "%s: good\n", c.config)
	return exitDone
}
