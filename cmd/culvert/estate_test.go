package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"culvert/cmd/culvert/internal/logring"
	"culvert/l2tp"
)

// estateDaemon is as much of a daemon as an estate needs.
func estateDaemon(t *testing.T) (*daemon, *bytes.Buffer) {
	t.Helper()
	var text bytes.Buffer
	logs, err := logring.New(logring.DefaultConfig(), &text)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{logs: logs, loop: newLoop(), rand: rand.Reader}
	d.l2tp = l2tp.New(l2tp.DefaultConfig(), l2tp.Env{Send: func(l2tp.Peer, []byte) {}, Plane: noPlane{}, Rand: rand.Reader, Log: logs.Logger("l2tp")})
	return d, &text
}

type noPlane struct{}

func (noPlane) OpenTunnel(l2tp.TunnelSpec) error   { return nil }
func (noPlane) CloseTunnel(l2tp.TunnelSpec)        {}
func (noPlane) OpenSession(l2tp.SessionSpec) error { return nil }
func (noPlane) CloseSession(l2tp.SessionSpec)      {}

// What a crash left half written, or somebody put there, does no harm and is gone afterwards.
func TestEstateOfARunThatDied(t *testing.T) {
	d, _ := estateDaemon(t)
	dir := filepath.Join(t.TempDir(), "farewell")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"client-00010000": `{"Mark":65536,"Path":{"Local":"192.0.2.1:4500","Rem`,
		"client-00020000": `{"Mark":131072,"Path":{"Local":"","Remote":""},"Messages":["AAAA"]}`,
		"client-00030000": strings.Repeat("x", estateMaxFile+1),
		"tunnels":         `[{"local":1,"remote":2,"peer":{"Local":"192.0.2.1:1701","Remote":"198.51.100.1:1701","Via":7}}]`,
		".tunnels":        "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "client-00040000")); err != nil {
		t.Fatal(err)
	}
	newEstate(d, dir).execute(time.Now())
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	newEstate(d, dir).execute(time.Now()) // nothing left: nothing happens
}

// The tunnels are written when they change, readable by nobody else, and not again when nothing happens.
func TestEstateIsWrittenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := estateDaemon(t)
		e := newEstate(d, filepath.Join(t.TempDir(), "farewell"))
		d.loop.add(e)
		d.loop.add(d.l2tp)
		peer := l2tp.Peer{Local: netip.MustParseAddrPort("192.0.2.1:1701"), Remote: netip.MustParseAddrPort("198.51.100.1:1701")}
		d.loop.done <- func(now time.Time) {
			if _, err := d.l2tp.Dial(now, peer, l2tp.Dial{}); err != nil {
				t.Error(err)
			}
		}
		end := time.Now().Add(5 * time.Second)
		d.loop.run(func(now time.Time) bool { return !now.Before(end) })
		file := filepath.Join(e.dir, tunnelsFile)
		b, err := os.ReadFile(file)
		var saved []savedTunnel
		if err != nil || json.Unmarshal(b, &saved) != nil || len(saved) != 1 || saved[0].Peer.Remote != peer.Remote {
			t.Fatalf("saved %s, %v", b, err)
		}
		if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", info.Mode())
		}
		if info, _ := os.Stat(e.dir); info.Mode() != fs.ModeDir|0o700 {
			t.Errorf("directory mode %v", info.Mode())
		}
		d.logs.Close(t.Context())
	})
}
