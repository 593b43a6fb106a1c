package main

import (
	"errors"

	"culvert/board/firewall"
	"culvert/l2tp"
)

// applyFirewall brings our table of the firewall in line with the configuration. It can be done without, like what the
// kernel lacks for it.
func (d *daemon) applyFirewall() {
	log := d.logger("firewall")
	if !d.cfg.Firewall.Manage || !busy(d.cfg) {
		d.closeFirewall()
		return
	}
	had := d.firewall.Up()
	switch err := d.firewall.Apply(d.firewallRules()); {
	case errors.Is(err, firewall.ErrNoMasquerade):
		log.Error("users keep their addresses on the way out", "masquerade", d.cfg.Firewall.Masquerade, "error", err)
	case err != nil && had:
		log.Error("the firewall's table stays as it was", "error", err)
	case err != nil:
		log.Error("no table of ours in the firewall, in spite of ip.firewall.manage", "error", err)
	case !had:
		log.Info("the firewall has a table of ours", "table", "inet "+firewall.Name)
		if strict, err := d.firewall.Strict(); err == nil && len(strict) > 0 {
			log.Info("other tables drop by policy what they do not let in themselves: UDP 500 and 4500 and IP protocol 50 are for their rules", "chains", strict)
		}
	}
}

func (d *daemon) closeFirewall() {
	if err := d.firewall.Close(); err != nil {
		d.logger("firewall").Warn("nftables table not removed", "error", err)
	}
}

// firewallRules are what the configuration, and the data path, want of the firewall.
func (d *daemon) firewallRules() firewall.Rules {
	r := firewall.Rules{IPsec: d.ike != nil, KernelESP: d.xfrm != nil, Masquerade: d.cfg.Firewall.Masquerade,
		Protected: protection(d.cfg) == l2tp.ProtectionRequired}
	if d.cfg.Server.Enabled {
		r.L2TP = d.cfg.Server.Listen
	}
	for _, x := range d.cfg.AAA.Users() {
		if x.First.Is4() {
			r.Users = append(r.Users, firewall.Range{First: x.First, Last: x.Last})
		}
	}
	return r
}
