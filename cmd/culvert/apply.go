package main

import (
	"reflect"
	"time"

	"culvert/cmd/culvert/internal/config"
)

// apply goes over from the configuration in force to another: each engine is told, in the order a packet meets them.
// Applying the same one twice changes nothing. What needs sockets or kernel hooks made anew is said, not half done.
func (d *daemon) apply(now time.Time, cfg *config.Config) {
	log := d.logger("system")
	old := d.cfg
	if why := needsRestart(old, cfg); why != "" {
		log.Error("configuration not changed: restart culvert to change this", "key", why)
		return
	}
	for _, w := range cfg.Warnings {
		log.Warn(w.String())
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
	d.applyBoard(old, cfg)
	d.reconcile(now)
	log.Info("configuration read", "file", d.file)
}

// needsRestart names the first setting that cannot change in a running daemon.
func needsRestart(old, cfg *config.Config) string {
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
