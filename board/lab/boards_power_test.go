package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board"
)

// The power is cut while the configuration is written, again and again: the next boot finds what was last written before
// the cut, or the write that the cut fell into, and never anything else. On malta this is JFFS2 on NOR flash, as on a
// RouterBOARD; on virt ext4.
func TestBoardPowerCut(t *testing.T) {
	if InBoard() != "" {
		writeForever(t)
		return
	}
	for _, name := range []string{"qemu-arm64", "qemu-mips"} {
		t.Run(name, func(t *testing.T) { powerCuts(t, requireBoards(t, name)[0]) })
	}
}

const (
	powerCutWrites = 50
	powerCutFile   = "/flash/culvert.toml"
)

func powerCuts(t *testing.T, b *Board) {
	k, err := b.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	program, err := buildTestFor(b)
	if err != nil {
		t.Fatal(err)
	}
	flash := filepath.Join(t.TempDir(), "flash")
	if err := NewFlash(b, flash); err != nil {
		Unavailable(t, err)
	}
	o := options{memory: "128M", modules: append([]string{"virtio_blk", "ext4", "crc32c_generic?"}, boardModules...), qemu: Flash(b, flash)}
	q, err := b.program(t.TempDir(), k, program, o, "-test.run=^TestBoardPowerCut$")
	if err != nil {
		t.Fatal(err)
	}
	Reserve(t, false)
	writes, cuts, during := 0, 0, 0
	last, begun := 0, 0 // the newest write that was reported, and the newest that may have begun
	for ; writes < powerCutWrites; cuts++ {
		if cuts > 2*powerCutWrites {
			t.Fatalf("only %d writes in %d boots", writes, cuts)
		}
		g, err := q.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, err := g.Expect(2*time.Minute, `found (\S+)\r?\n`)
		if err != nil {
			g.Kill()
			t.Fatal(err)
		}
		found, err := strconv.Atoi(m[1])
		if err != nil || found < last || found > begun {
			g.Kill()
			t.Fatalf("after cut %d: found %s; the last write that was done is %d, the last begun %d", cuts, m[1], last, begun)
		}
		if found > last {
			during++
		}
		last = found
		// A few writes, then a moment into one of the next.
		for range 3 + rand.IntN(8) {
			m, err := g.Expect(time.Minute, `wrote (\d+)\r?\n`)
			if err != nil {
				g.Kill()
				t.Fatal(err)
			}
			last, _ = strconv.Atoi(m[1])
			writes++
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		g.Kill()
		for { // what was written before the power went
			m, err := g.Expect(0, `wrote (\d+)\r?\n`)
			if err != nil {
				break
			}
			last, _ = strconv.Atoi(m[1])
			writes++
		}
		begun = last + 1
	}
	t.Logf("%d writes, %d cuts, of which %d fell between a write and its report", writes, cuts, during)
}

// writeForever is the board's side.
func writeForever(t *testing.T) {
	if err := os.MkdirAll("/flash", 0o755); err != nil {
		t.Fatal(err)
	}
	device, kind := "/dev/vda", "ext4"
	if mtd, err := os.ReadFile("/proc/mtd"); err == nil {
		for line := range strings.Lines(string(mtd)) {
			if name, _, _ := strings.Cut(line, ":"); strings.Contains(strings.ToLower(line), "user") {
				device, kind = "/dev/mtdblock"+strings.TrimPrefix(name, "mtd"), "jffs2"
			}
		}
	}
	if err := unix.Mount(device, "/flash", kind, unix.MS_NOATIME, ""); err != nil {
		t.Fatalf("mount %s on %s: %v", kind, device, err)
	}
	n := 0
	b, err := os.ReadFile(powerCutFile)
	switch {
	case os.IsNotExist(err):
	case err != nil:
		t.Fatal(err)
	default:
		if n, err = generation(b); err != nil {
			fmt.Println("found broken", err)
			t.Fatal(err)
		}
	}
	fmt.Println("found", n)
	for {
		n++
		if changed, err := board.WriteFile(powerCutFile, content(n), 0o600); err != nil || !changed {
			t.Fatalf("write %d: %v, %v", n, changed, err)
		}
		fmt.Println("wrote", n)
	}
}

// content is a configuration of some kilobytes that says its number and carries its own sum.
func content(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 0))
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d\n", n)
	for range 20 + r.IntN(300) {
		fmt.Fprintf(&b, "# %x\n", r.Uint64())
	}
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(&b, "%s\n", hex.EncodeToString(sum[:]))
	return b.Bytes()
}

func generation(b []byte) (int, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	n, err := strconv.Atoi(string(line))
	if err != nil || !bytes.Equal(b, content(n)) {
		return 0, fmt.Errorf("%d octets that are no write's content", len(b))
	}
	return n, nil
}

// The watchdog resets a board whose daemon stands still, and neither one that works nor one that was stopped on purpose.
func TestBoardWatchdog(t *testing.T) {
	b := requireBoards(t, "qemu-arm64")[0]
	Reserve(t, false)
	const config = `[network]
[system.watchdog]
watchdog-timer = true
timeout = "10s"
`
	x := bootImage(t, b, config, "128M", "-device", "i6300esb", "-action", "watchdog=reset")
	x.wait(2*time.Minute, "logread | grep -q 'watchdog device=/dev/watchdog'")
	// Longer than the timeout and its second stage together.
	idle := func(what string) {
		t.Helper()
		time.Sleep(30 * time.Second)
		if !x.Running() {
			t.Fatalf("the watchdog bit a board %s; the serial line's last lines:\n%s", what, x.Last(20))
		}
	}
	idle("whose daemon works")
	x.run(time.Minute, "mv /usr/sbin/culvert /usr/sbin/away; kill -TERM $(daemon)")
	idle("whose daemon was stopped on purpose")
	x.run(time.Minute, "mv /usr/sbin/away /usr/sbin/culvert")
	x.wait(2*time.Minute, "[ $(logread | grep -c 'watchdog device=/dev/watchdog') -ge 2 ]")
	x.run(time.Minute, "kill -STOP $(daemon)")
	start := time.Now()
	if err := x.Wait(90 * time.Second); err != nil {
		t.Fatalf("the watchdog did not bite: %v", err)
	}
	t.Logf("bitten after %.0f s", time.Since(start).Seconds())
}
