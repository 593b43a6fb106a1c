package lab

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testBoard is one that runs its image. Its serial line has the console, as the image is shipped; beside it a shell listens
// on a line of its own, for what a test has to look at and the console does not show.
type testBoard struct {
	t *testing.T
	*Guest
	board *Board
	image *Image
	boot  time.Duration // from power on to the console asking who is there
	shell *Serial
}

// requireBoards skips or fails where this machine lacks something for the boards.
func requireBoards(t *testing.T, names ...string) (boards []*Board) {
	t.Helper()
	if testing.Short() {
		t.Skip("emulated boards: make test-boards")
	}
	for _, name := range names {
		b, err := FindBoard(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Kernel(); err != nil {
			Unavailable(t, err)
		}
		boards = append(boards, b)
	}
	return boards
}

// memory is that of the routers that a board stands for, at their smallest.
func (b *Board) memory() string {
	if b.nor {
		return "64M"
	}
	return "128M"
}

const (
	bootTimeout   = 5 * time.Minute // an emulated board on a busy machine may stand still for a while
	answerTimeout = 3 * time.Minute
)

// bootImage boots a board's image as it is shipped but for the first configuration and the second line, and waits until the
// console asks for the first password.
func bootImage(t *testing.T, b *Board, config, memory string, args ...string) *testBoard {
	t.Helper()
	dir, err := sourceDir()
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "../../rootfs/overlay")
	files := map[string][]byte{}
	if config != "" {
		files["usr/share/culvert/default.toml"] = []byte(config)
	}
	for name, line := range map[string]string{"etc/inittab": "hvc0::respawn:-/bin/sh\n", "etc/modules": "virtio_console\n"} {
		content, err := os.ReadFile(filepath.Join(overlay, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = append(content, line...)
	}
	image, err := BuildImage(b, t.TempDir(), files)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "shell")
	q := image.QEMU()
	q.Memory = memory
	q.Args = append(q.Args, "-device", "virtio-serial-pci", "-chardev", "socket,id=shell,server=on,wait=off,path="+socket, "-device", "virtconsole,chardev=shell")
	q.Args = append(q.Args, args...)
	if dir := os.Getenv("LAB_SERIAL"); dir != "" { // to look on
		f, err := os.Create(filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "_")+"."+b.Name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		q.Console = f
	}
	began := time.Now()
	g, err := q.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Kill)
	line := join(t, g, socket)
	x := &testBoard{t: t, Guest: g, board: b, image: image, shell: newSerial(line, line, nil)}
	if _, err := g.Expect(bootTimeout, `New password: `); err != nil {
		t.Fatal(err)
	}
	x.boot = time.Since(began)
	if _, err := x.shell.Expect(time.Minute, `# `); err != nil {
		t.Fatal(err)
	}
	// The console on the serial line is a process of the same program.
	x.run(time.Minute, `daemon() { for p in $(pidof culvert); do tr '\0' ' ' </proc/$p/cmdline | grep -q 'culvert run' && echo $p; done; }`)
	return x
}

// join takes the end of a board's second line, which is there once the emulator has begun.
func join(t *testing.T, g *Guest, socket string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		if !g.Running() || time.Now().After(deadline) {
			t.Fatalf("%v: %v", err, g.Wait(0))
		}
	}
}

// login chooses the first password, as a new board wants it.
func (x *testBoard) login() {
	x.t.Helper()
	x.must(x.Send("secret enough\r"))
	x.line("", `Once more: `)
	x.line("secret enough\r", `\] > `)
}

func (x *testBoard) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatalf("%s: %v", x.board.Name, err)
	}
}

// line types at the console, and returns what comes before what is waited for.
func (x *testBoard) line(text, expect string) string {
	x.t.Helper()
	x.must(x.Send(text))
	m, err := x.Expect(answerTimeout, `(?s)(.*?)`+expect)
	if err != nil {
		x.t.Fatalf("%s: after %q: %v", x.board.Name, text, err)
	}
	return m[1]
}

// typed types commands at the console, none of which may be refused, and returns what the last one shows.
func (x *testBoard) typed(commands ...string) (out string) {
	x.t.Helper()
	for _, command := range commands {
		out = x.line(command+"\r", `\] > `)
		for _, complaint := range []string{"failure", "expected", "no such", "bad command", "the daemon", "no culvert"} {
			if strings.Contains(out, complaint) {
				x.t.Errorf("%s: %s says %s", x.board.Name, command, out)
			}
		}
	}
	return out
}

// run has the shell run a command that has to succeed.
func (x *testBoard) run(timeout time.Duration, command string) string {
	x.t.Helper()
	out, status, err := x.shell.Shell(max(timeout, answerTimeout), command)
	if err != nil || status != 0 {
		x.t.Fatalf("%s: %s: status %d, %v\n%s\n%s", x.board.Name, command, status, err, out, x.log())
	}
	return out
}

// console has culvert's console run a command, by the shell.
func (x *testBoard) console(command string) string {
	x.t.Helper()
	return x.run(answerTimeout, "culvert console -e '"+command+"'")
}

// wait repeats a command until it succeeds.
func (x *testBoard) wait(timeout time.Duration, command string) {
	x.t.Helper()
	seconds := int(timeout.Seconds())
	x.run(timeout+answerTimeout, fmt.Sprintf("n=0; until %s; do n=$((n+1)); [ $n -lt %d ] || break; sleep 1; done; [ $n -lt %d ]", command, seconds, seconds))
}

// log is the end of the daemon's log, as far as the board still answers.
func (x *testBoard) log() string {
	out, _, _ := x.shell.Shell(time.Minute, "logread | grep -v kernel: | tail -n 60")
	return out
}

// restart does what makes the daemon begin anew, and waits until what only the start needs has been given back.
func (x *testBoard) restart(how string) {
	x.t.Helper()
	mark := rand.Text()
	x.run(answerTimeout, "logger "+mark+"; "+how)
	x.wait(3*time.Minute, "logread | sed '1,/"+mark+"/d' | grep -q 'system,info started'")
	x.wait(time.Minute, "culvert console -e '/system identity print' >/dev/null 2>&1")
	x.run(time.Minute, "sleep 7")
}

// byInit is how the daemon restarts when it is ended.
const byInit = "kill $(daemon)"

// A footprint is what the daemon has of the board's memory, in kilobytes: all that is resident, and what of it is no file's.
type footprint struct{ resident, anonymous int }

func (f footprint) String() string {
	return fmt.Sprintf("%.1f MB (%.1f without the program's file)", float64(f.resident)/1e3, float64(f.anonymous)/1e3)
}

func (x *testBoard) footprint() (f footprint) {
	x.t.Helper()
	out := x.run(time.Minute, "sed -n 's/^\\(VmRSS\\|RssAnon\\)://p' /proc/$(daemon)/status")
	if _, err := fmt.Sscanf(out, "%d kB\n%d kB", &f.resident, &f.anonymous); err != nil {
		x.t.Fatalf("%s: the daemon's memory: %v in %q", x.board.Name, err, out)
	}
	return f
}
