package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/l2tp"
)

// estate is what this daemon leaves behind should it be killed: for each IKE client the messages that end its SAs,
// sealed in advance, and the ids of the L2TP tunnels. The next run sends the ones and answers with the others, so that
// clients come back in seconds and not after their own timeouts. It lies in memory (/run), holds no key, and goes with an
// orderly end.
type estate struct {
	d       *daemon
	dir     string
	lane    lane
	known   map[ipsec.Mark]string // which SAs the file of a client is about
	tunnels []savedTunnel
	written time.Time
	inputs  uint64 // the loop's count when last written
}

// savedTunnel is as much of a tunnel as its peer can be told by.
type savedTunnel struct {
	Local  l2tp.TunnelID `json:"local"`
	Remote l2tp.TunnelID `json:"remote"`
	Peer   l2tp.Peer     `json:"peer"`
}

const (
	estateEvery   = 200 * time.Millisecond // at most so often
	estateFiles   = 10000                  // of a former run, that are read
	estateMaxFile = 1 << 20                // octets
	tunnelsFile   = "tunnels"
)

func newEstate(d *daemon, dir string) *estate {
	return &estate{d: d, dir: dir, lane: lane{l: d.loop}, known: make(map[ipsec.Mark]string)}
}

// execute does what a former run could not do any more, and removes what it left.
func (e *estate) execute(now time.Time) {
	entries, err := os.ReadDir(e.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	log := e.d.logger("system")
	clients := 0
	for _, entry := range entries[:min(len(entries), estateFiles)] {
		file := filepath.Join(e.dir, entry.Name())
		if info, err := entry.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > estateMaxFile {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			log.Warn("what the former run left is not readable", "error", err)
			continue
		}
		if entry.Name() == tunnelsFile {
			e.recall(now, b)
			continue
		}
		var f ikev1.Farewell
		if json.Unmarshal(b, &f) != nil || !f.Path.Valid() || e.d.natt == nil {
			continue // cut off by the crash
		}
		for _, m := range f.Messages {
			if err := e.d.natt.Send(f.Path, m); err != nil {
				log.Debug("farewell not sent", "remote", f.Path.Remote, "error", err)
			}
		}
		clients++
	}
	if clients > 0 {
		log.Warn("the former run ended without a goodbye: its clients are told now", "clients", clients)
	}
	e.remove()
}

func (e *estate) recall(now time.Time, b []byte) {
	var saved []savedTunnel
	if json.Unmarshal(b, &saved) != nil {
		return
	}
	var old []l2tp.TunnelInfo
	for _, t := range saved {
		old = append(old, l2tp.TunnelInfo{Peer: t.Peer, Local: t.Local, Remote: t.Remote})
	}
	e.d.l2tp.Recall(now, old)
}

// remove is for an orderly end: everybody has been told.
func (e *estate) remove() {
	if err := os.RemoveAll(e.dir); err != nil {
		e.d.logger("system").Warn("what a former run left is not removed", "error", err)
	}
}

// Deadline is a moment after anything has happened.
func (e *estate) Deadline() time.Time {
	if e.inputs == e.d.loop.inputs {
		return time.Time{}
	}
	return e.written.Add(estateEvery)
}

// Tick writes what has changed, outside the loop.
func (e *estate) Tick(now time.Time) {
	if now.Before(e.Deadline()) {
		return
	}
	e.written, e.inputs = now, e.d.loop.inputs
	if e.d.ike != nil {
		e.d.ike.Farewells(func(m ipsec.Mark) string { return e.known[m] }, func(f ikev1.Farewell) {
			e.known[f.Mark] = f.Of
			e.save(farewellFile(f.Mark), f)
		})
		for m := range e.known {
			if !e.d.ike.Alive(m) {
				delete(e.known, m)
				file := filepath.Join(e.dir, farewellFile(m))
				e.lane.do(func() error { return os.Remove(file) }, nil)
			}
		}
	}
	var tunnels []savedTunnel
	for _, t := range e.d.l2tp.Snapshot(now).Tunnels {
		tunnels = append(tunnels, savedTunnel{t.Local, t.Remote, t.Peer})
	}
	if !slices.Equal(tunnels, e.tunnels) {
		e.tunnels = tunnels
		e.save(tunnelsFile, tunnels)
	}
}

func farewellFile(m ipsec.Mark) string { return fmt.Sprintf("client-%08x", uint32(m)) }

// save replaces one file whole.
func (e *estate) save(name string, v any) {
	e.lane.do(func() error {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(e.dir, 0o700); err != nil {
			return err
		}
		tmp := filepath.Join(e.dir, "."+name)
		if err := os.WriteFile(tmp, b, 0o600); err != nil {
			return err
		}
		return os.Rename(tmp, filepath.Join(e.dir, name))
	}, func(_ time.Time, err error) {
		if err != nil {
			e.d.logger("system").Debug("farewell not kept: after a crash clients come back later", "error", err)
		}
	})
}
