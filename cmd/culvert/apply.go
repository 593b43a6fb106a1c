package main

import (
	"reflect"
	"slices"
	"time"

	"culvert/cmd/culvert/internal/config"
)

// apply goes over from the configuration in force to another: each engine is told, in the order a packet meets them.
// Applying the same one twice changes nothing. What needs sockets or kernel hooks made anew is said, not half done.
func (d *daemon) apply(now time.Time, cfg *config.Config) {
	log := d.logger("system")
	old := d.cfg
	why, err := d.needsRestart(cfg)
	if err != nil {
		log.Error("configuration not changed", "error", err)
		return
	}
	if why != "" {
		log.Warn("culvert begins anew to put this in force", "key", why)
		d.newest = cfg
		return
	}
	d.newest = nil
	for _, w := range cfg.Warnings {
		if !slices.ContainsFunc(old.Warnings, func(o config.Problem) bool { return o.Key == w.Key && o.Text == w.Text }) {
			log.Warn(w.String())
		}
	}
	d.cfg = cfg
	d.bans.lift()
	if err := d.logs.Reconfigure(cfg.Log); err != nil {
		log.Error("log settings not changed", "error", err)
	}
	if d.ike != nil && !reflect.DeepEqual(old.IPsec, cfg.IPsec) {
		d.ike.Reconfigure(now, d.ikeConfig(cfg))
	}
	if !reflect.DeepEqual(old.Server.L2TP, cfg.Server.L2TP) {
		d.l2tp.Reconfigure(now, l2tpConfig(cfg))
	}
	if !reflect.DeepEqual(old.AAA, cfg.AAA) {
		d.users.Reconfigure(cfg.AAA)
	}
	if d.ike == nil && usesIPsec(cfg) {
		if err := d.openIPsec(); err != nil {
			log.Error("no IPsec: what wants it is not dialled", "error", err)
			d.closeIPsec()
		}
	}
	d.applyFirewall()
	d.applyBoard(old, cfg)
	d.reconcile(now)
	log.Info("configuration read", "file", d.file)
}

// needsRestart names the first setting that cannot change in a running daemon, which would have to begin anew. The error
// is of a configuration that it could not begin with.
func (d *daemon) needsRestart(cfg *config.Config) (key string, err error) {
	key = restartKey(d.cfg, cfg)
	if key == "" && usesIPsec(d.cfg) == usesIPsec(cfg) && (d.noPath == nil || !busy(cfg)) {
		return "", nil
	}
	path, _, err := probeMachine().choose(cfg.System.DataPath, usesIPsec(cfg))
	switch {
	case !busy(cfg):
		return key, nil
	case err != nil:
		return "", err
	case key == "" && (d.noPath != nil || path != d.path):
		return "system.data-path", nil
	}
	return key, nil
}

func restartKey(old, cfg *config.Config) string {
	switch {
	case old.Server.Enabled != cfg.Server.Enabled:
		return "l2tp.server.enabled"
	case old.Server.UseIPsec != cfg.Server.UseIPsec:
		return "l2tp.server.use-ipsec"
	case !reflect.DeepEqual(old.Server.Listen, cfg.Server.Listen):
		return "l2tp.server.listen"
	case old.System.DataPath != cfg.System.DataPath:
		return "system.data-path"
	case old.System.CryptoEngine != cfg.System.CryptoEngine:
		return "system.crypto-engine"
	case old.IPsec.MarkMask != cfg.IPsec.MarkMask:
		return "ipsec.mark-mask"
	}
	return ""
}
