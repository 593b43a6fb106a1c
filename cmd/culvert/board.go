package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"sync"
	"time"

	"culvert/board"
	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/console"
)

// chassis is what the daemon does about the board that it runs on: the network of an image, a light, a button, the
// watchdog. None of it can keep the daemon from its work.
type chassis struct {
	d       *daemon
	info    board.Info
	network *network

	// What follows is opened anew when its configuration changes.
	cancel context.CancelFunc
	ends   sync.WaitGroup
	dog    *board.Watchdog
	led    *board.LED
	look   time.Time // when the light is looked after next
}

// prepareBoard is for the first moments of the process: memory, kernel modules, entropy. Keys are made only afterwards.
func (d *daemon) prepareBoard(ctx context.Context) error {
	log := d.logger("system")
	info := board.Detect(os.DirFS("/"))
	d.chassis = &chassis{d: d, info: info}
	tuning := board.TuneFor(info.Memory)
	tuning.Apply()
	log.Info("this machine", "board", info.Name(), "cpu", info.CPU, "memory", info.Memory, "memory-limit", tuning.Limit)
	if d.cfg.System.DataPath != config.DataPathUserspace {
		needs := board.KernelPath
		if usesIPsec(d.cfg) {
			needs = slices.Concat(needs, board.IPsecPath)
		}
		for _, m := range board.NewLoader().Load(needs) {
			// Whoever needs it will complain, where it is not built in after all.
			log.Debug("kernel module not loaded", "for", m.What, "module", m.Module, "option", m.Option, "error", m.Err)
		}
	}
	return board.WaitEntropy(ctx, log)
}

// settleAfter is when what only the start has needed is garbage.
const settleAfter = 5 * time.Second

// openBoard is for when everything else runs.
func (d *daemon) openBoard(ctx context.Context) {
	time.AfterFunc(settleAfter, board.TuneFor(d.chassis.info.Memory).Settle)
	d.chassis.network = startNetwork(ctx, d.cfg.Network, d.dns, d.logger("system"))
	d.chassis.open(d.cfg.System)
}

// applyBoard goes over to another configuration.
func (d *daemon) applyBoard(old, cfg *config.Config) {
	if !reflect.DeepEqual(old.Network, cfg.Network) {
		d.chassis.network.change(cfg.Network)
	}
	if old.System.LED != cfg.System.LED || old.System.ResetButton != cfg.System.ResetButton || old.System.Watchdog != cfg.System.Watchdog {
		d.chassis.close()
		d.chassis.open(cfg.System)
	}
}

// closeBoard is for an orderly end: the watchdog must not bite a daemon that was stopped on purpose.
func (d *daemon) closeBoard() { d.chassis.close() }

func (m *chassis) open(s config.System) {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	log := m.d.logger("system")
	if s.LED != "" {
		var err error
		if m.led, err = board.OpenLED(board.LEDClass, s.LED); err != nil {
			log.Warn("no light", "error", err)
		} else {
			m.look = time.Now()
			m.d.loop.add(m)
		}
	}
	if s.ResetButton.Enabled {
		m.openButton(ctx, s.ResetButton)
	}
	if s.Watchdog.Timer {
		m.openWatchdog(ctx, s.Watchdog)
	}
}

func (m *chassis) close() {
	if m.cancel == nil {
		return
	}
	m.cancel()
	m.ends.Wait() // feeding a watchdog after the magic character would set it going again
	var err error
	if m.dog != nil {
		err = m.dog.Close()
	}
	if m.led != nil {
		m.d.loop.remove(m)
		err = errors.Join(err, m.led.Show(board.LightOff))
	}
	if err != nil {
		m.d.logger("system").Warn("the board's hardware is not left as it should be", "error", err)
	}
	m.cancel, m.dog, m.led = nil, nil, nil
}

// openWatchdog: the loop proves that it lives by running a closure that nothing else can run.
func (m *chassis) openWatchdog(ctx context.Context, w config.Watchdog) {
	log := m.d.logger("system")
	dog, err := board.OpenWatchdog(w.Device, w.Timeout)
	if err != nil {
		log.Error("no watchdog", "error", err)
		return
	}
	m.dog = dog
	log.Info("watchdog", "device", w.Device, "timeout", dog.Timeout())
	m.ends.Go(func() {
		dog.Guard(ctx, func(ctx context.Context) bool { return m.d.loop.call(ctx, func(time.Time) {}) }, log)
	})
}

func (m *chassis) openButton(ctx context.Context, b config.ResetButton) {
	log := m.d.logger("system")
	device, err := board.FindButton(os.DirFS("/"))
	if err != nil {
		log.Warn("no reset button", "error", err)
		return
	}
	button, err := board.OpenButton("/"+device, b.HoldTime)
	if err != nil {
		log.Warn("no reset button", "error", err)
		return
	}
	go func() {
		err := button.Watch(ctx, func() {
			log.Warn("the reset button was held", "runs", b.OnEvent)
			if out, err := exec.CommandContext(ctx, b.OnEvent).CombinedOutput(); err != nil {
				log.Error("the reset button's program failed", "error", err, "says", string(out))
			}
		})
		if err != nil {
			log.Warn("no reset button any more", "error", err)
		}
	}()
}

// ledEvery is how often the light is looked after. The kernel blinks by itself.
const ledEvery = time.Second

// Deadline and Tick keep the light.
func (m *chassis) Deadline() time.Time { return m.look }

// Tick shows the state.
func (m *chassis) Tick(now time.Time) {
	m.look = now.Add(ledEvery)
	if err := m.led.Show(m.light()); err != nil {
		m.d.logger("system").Warn("the light does not obey, and is left alone", "error", err)
		m.d.loop.remove(m)
	}
}

// light is on while somebody is connected, and blinks while a tunnel is on its way up.
func (m *chassis) light() board.Light {
	light := board.LightOff
	for _, s := range m.d.sessions {
		if s.up && !s.closed {
			return board.LightOn
		}
		light = board.LightBlink
	}
	if len(m.d.dialers) > 0 {
		light = board.LightBlink
	}
	return light
}

// Routerboard is for `/system routerboard print`.
func (s source) Routerboard() console.Routerboard {
	i := s.d.chassis.info
	r := console.Routerboard{
		Routerboard: i.RouterBOARD(), BoardName: i.RouterBOOT.Product, Model: i.RouterBOOT.ProductCode, Serial: i.RouterBOOT.Serial,
		Firmware: i.RouterBOOT.Booter, Upgrade: i.RouterBOOT.BIOS, MAC: i.RouterBOOT.MAC, System: i.System,
	}
	if r.BoardName == "" {
		r.BoardName = i.Name()
	}
	if r.Model == "" {
		r.Model = i.Model
	}
	if f := i.Family; f != nil {
		r.SoC, r.Engine = f.SoC, f.Engine
	}
	if i.SerialKnown {
		r.SerialPort = "no"
		if i.Serial {
			r.SerialPort = "yes"
		}
	}
	return r
}
