package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CulvertCommand is the import path of the server under test, for [Build] and [L.Binary].
const CulvertCommand = "culvert/cmd/culvert"

const culvertSocket = "/run/culvert/control.sock"

// A Culvert is the server under test on a node.
type Culvert struct {
	*Daemon
	node   *Node
	binary string
}

// Culvert starts `culvert run` with this configuration and waits until its console answers. The binary must have been
// asked for: lab.Run(t, f, lab.Build(lab.CulvertCommand)).
func (l *L) Culvert(n *Node, config string) *Culvert {
	l.Helper()
	n.WriteFile("/etc/culvert/culvert.toml", config)
	c := &Culvert{node: n, binary: l.Binary(CulvertCommand)}
	c.Start()
	return c
}

// Start starts the server again after its end.
func (c *Culvert) Start() {
	l := c.node.lab
	l.Helper()
	c.node.Do(func() { os.Remove(culvertSocket); os.MkdirAll(filepath.Dir(culvertSocket), 0o755) })
	c.Daemon = c.node.Daemon("culvert", c.binary, "run", "-c", "/etc/culvert/culvert.toml", "-socket", culvertSocket)
	// The console answers early; that the kernel has been probed and the sockets are open, only the log tells.
	// Knocking comes last: until then nobody answers, and the knocks would fill the queue of the consoles to come.
	up := func() bool { return len(c.Lines("system,info started")) > 0 && c.node.accepts(culvertSocket) }
	if !l.WaitFor(time.Minute, func() bool { return !c.Running() || up() }) || !c.Running() {
		l.Fatalf("culvert did not start:\n%s", lastLines(c.Log(), 20))
	}
}

// Configure replaces the configuration file; SIGHUP makes the server read it.
func (c *Culvert) Configure(config string) { c.node.WriteFile("/etc/culvert/culvert.toml", config) }

// A Row is one line of a print command: property name, as the console shows it, to value.
type Row map[string]any

// String returns a property as text; empty when it is missing.
func (r Row) String(name string) string {
	v, ok := r[name]
	if !ok || v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// Int returns a number; zero when it is missing.
func (r Row) Int(name string) int {
	f, _ := r[name].(float64)
	return int(f)
}

// Console runs a command on the server's console and returns its rows. It asks the daemon itself: tests look often, and
// `culvert console`, which Show runs, costs the guest more to start than all the answers.
func (c *Culvert) Console(command string) ([]Row, error) {
	out, err := c.ask(command)
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(out) == "" {
		return nil, nil
	}
	var rows []Row
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		var row Row // `/system resource print` is one object
		if json.Unmarshal([]byte(out), &row) != nil {
			return nil, fmt.Errorf("%s: %w in %q", command, err, out)
		}
		rows = []Row{row}
	}
	return rows, nil
}

// ask speaks the protocol of the console's socket: a request, and lines of output until one has the exit status.
func (c *Culvert) ask(command string) (string, error) {
	var conn net.Conn
	var err error
	c.node.Do(func() { conn, err = net.Dial("unix", culvertSocket) })
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	request := struct {
		Command string `json:"command"`
		JSON    bool   `json:"json"`
	}{command, true}
	if err := json.NewEncoder(conn).Encode(request); err != nil {
		return "", err
	}
	var out strings.Builder
	for answers := json.NewDecoder(conn); ; {
		var a struct {
			Output, Error string
			Exit          *int
		}
		if err := answers.Decode(&a); err != nil {
			return "", fmt.Errorf("%s: %w", command, err)
		}
		out.WriteString(a.Output)
		if a.Exit != nil && *a.Exit != 0 {
			return "", fmt.Errorf("%s: %s", command, a.Error)
		}
		if a.Exit != nil {
			return out.String(), nil
		}
	}
}

// Show runs a command on the server's console and returns what a person would see.
func (c *Culvert) Show(command string) (string, error) {
	ctx, cancel := context.WithTimeout(c.node.lab.Context(), time.Minute)
	defer cancel()
	out, err := c.node.Command(ctx, c.binary, "console", "-socket", culvertSocket, "-e", command).Output()
	return string(out), err
}

// Rows is Console for a command that must work.
func (c *Culvert) Rows(command string) []Row {
	l := c.node.lab
	l.Helper()
	rows, err := c.Console(command)
	l.Must(err, "console")
	return rows
}

// Complaints returns the log's lines of level warning and error.
func (c *Culvert) Complaints() (found []string) {
	for _, line := range strings.Split(c.Log(), "\n") {
		// 2026-11-21 03:00:00 ipsec,warning text
		if f := strings.SplitN(line, " ", 4); len(f) == 4 && (strings.HasSuffix(f[2], ",warning") || strings.HasSuffix(f[2], ",error")) {
			found = append(found, line)
		}
	}
	return found
}
