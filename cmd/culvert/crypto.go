package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/hwcrypto"
	"culvert/hwcrypto/engine"
	"culvert/ipsec"
	"culvert/ipsec/esp"
	"culvert/ipsec/xfrm"
)

const (
	// cryptoState is where measurements are kept, for as long as the machine keeps /var.
	cryptoState = "/var/lib/culvert/crypto.json"
	// cryptoTime is how long the start may take for measuring. What takes longer stays as the kernel would have it.
	cryptoTime = 5 * time.Second
)

// engines is what steers the ciphers of the kernel's ESP, once it is done with measuring.
type engines struct {
	opened chan *engine.Engines // holds one when it is done, and nobody has it
	ctx    context.Context      // ends with the daemon
	cancel context.CancelFunc
}

// openEngines has the ciphers of the kernel's ESP chosen, before the first SA; it belongs on no loop, for measuring takes
// some tenths of a second where there is a choice.
func (d *daemon) openEngines() {
	if d.path.esp != inKernel || !usesIPsec(d.cfg) {
		return
	}
	log := d.logger("crypto")
	living, cancel := context.WithCancel(context.Background())
	d.engines = &engines{make(chan *engine.Engines, 1), living, cancel}
	done := d.engines.opened
	suites := cryptoSuites(d.cfg)
	o := engineOptions(d.cfg.System.CryptoEngine, suites, log)
	go func() {
		ctx, cancel := context.WithTimeout(living, cryptoTime)
		defer cancel()
		e, err := engine.Open(ctx, o)
		if err != nil {
			level := slog.LevelDebug // nothing is lost where there is no choice
			if slices.ContainsFunc(e.Choices(), func(c engine.Choice) bool { return len(c.Results) > 1 }) {
				level = slog.LevelWarn
			}
			log.Log(ctx, level, "ESP's ciphers are not all chosen: the kernel takes those of the highest priority", "error", err)
		}
		for _, c := range e.Choices() {
			log.Debug("ESP's ciphers", "suite", c.Suite, "driver", c.Driver, "reason", c.Reason)
		}
		done <- e
		speeds := make(kernelSpeeds)
		for _, c := range e.Choices() {
			for _, r := range c.Results {
				if r.Driver == c.Driver && r.MBps(fullPacket) > 0 {
					speeds[c.Suite.KernelName()] = r.MBps(fullPacket)
				}
			}
		}
		d.loop.post(func(time.Time) {
			d.kernelSpeeds = speeds
			d.watchEngines(e)
		})
	}()
	select {
	case e := <-done:
		done <- e
	case <-time.After(cryptoTime + time.Second): // the kernel does not answer
		log.Warn("measuring ESP's ciphers takes too long: culvert starts without")
	}
}

// close puts the kernel's priorities back. It comes after the last SA is gone.
func (e *engines) close(log *slog.Logger) {
	if e == nil {
		return
	}
	e.cancel()
	select {
	case opened := <-e.opened:
		if err := opened.Close(); err != nil {
			log.Warn("crypto priorities are not all restored: they are until the next start of culvert or of the machine", "error", err)
		}
	case <-time.After(time.Second):
		log.Warn("crypto priorities are not restored: that is left to the next start")
	}
}

// cryptoSuites are those that the configuration may lead to.
func cryptoSuites(cfg *config.Config) (suites []ipsec.Suite) {
	add := func(all []ipsec.Suite) {
		for _, s := range all {
			if !slices.Contains(suites, s) {
				suites = append(suites, s)
			}
		}
	}
	for _, p := range cfg.IPsec.Peers {
		add(p.Proposal.Suites)
	}
	for _, c := range cfg.Clients {
		switch all := c.Peer.Proposal.Suites; {
		case !c.UseIPsec:
		case len(all) == 0:
			add(callSuites())
		default:
			add(all)
		}
	}
	return suites
}

func engineOptions(setting string, suites []ipsec.Suite, log *slog.Logger) engine.Options {
	o := engine.Options{Engine: setting, State: cryptoState, Log: log}
	vocabulary := make(map[hwcrypto.Suite]ipsec.Suite)
	for _, s := range suites {
		if h, ok := esp.Suite(s); ok {
			o.Suites = append(o.Suites, h)
			vocabulary[h] = s
		}
	}
	o.Install = func(l engine.Loop) (func() error, error) { return installLoop(l, vocabulary[l.Suite]) }
	return o
}

// installLoop puts two SAs into the kernel by which the thread's network namespace talks to itself.
func installLoop(l engine.Loop, suite ipsec.Suite) (remove func() error, err error) {
	b, err := xfrm.New(xfrm.Options{MarkMask: l.Mark | l.Mark<<1})
	if err != nil {
		return nil, err
	}
	sa := ipsec.SA{
		Dir: ipsec.Out, SPI: ipsec.SPI(l.SPI), Mark: ipsec.Mark(l.Mark), Local: l.Src, Remote: l.Dst, Mode: ipsec.Transport, Suite: suite,
		Keys: ipsec.Keys{Enc: l.Keys.Enc, Auth: l.Keys.Auth},
	}
	err = b.Install(sa)
	if err == nil {
		sa.Dir, sa.Local, sa.Remote = ipsec.In, l.Dst, l.Src
		sa.Mark <<= 1 // under the other's mark it would be taken for sending too
		err = b.Install(sa)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("SAs for measuring: %w", err), b.Close())
	}
	return b.Close, nil
}
