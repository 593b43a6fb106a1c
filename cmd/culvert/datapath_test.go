package main

import (
	"errors"
	"strings"
	"testing"

	"culvert/cmd/culvert/internal/config"
)

func TestChoosePath(t *testing.T) {
	noXFRM, noL2TP, noPPP := errors.New("modprobe xfrm_user"), errors.New("modprobe l2tp_ppp"), errors.New("modprobe ppp_generic")
	noMarks, noTUN := errors.New("Linux 5.19"), errors.New("modprobe tun")
	all := []error{noXFRM, noL2TP, noPPP, noMarks, noTUN}
	for _, tt := range []struct {
		name  string
		m     machine
		want  config.DataPath
		ipsec bool
		path  string  // empty: an error
		names []error // all of them, and no other, are in the reason or the error
	}{
		{"all there", machine{}, config.DataPathAuto, true, "xfrm+kernel+kernel", nil},
		{"all there, plain", machine{}, config.DataPathAuto, false, "none+kernel+kernel", nil},
		{"no L2TP", machine{l2tp: noL2TP}, config.DataPathAuto, true, "xfrm+user+user", []error{noL2TP}},
		{"no PPP", machine{ppp: noPPP}, config.DataPathAuto, true, "xfrm+user+user", []error{noPPP}},
		{"no ESP", machine{xfrm: noXFRM}, config.DataPathAuto, true, "esp+user+user", []error{noXFRM}},
		{"no ESP, plain", machine{xfrm: noXFRM}, config.DataPathAuto, false, "none+kernel+kernel", nil},
		{"no marks", machine{marks: noMarks}, config.DataPathAuto, true, "esp+user+user", []error{noMarks}},
		{"nothing but TUN", machine{xfrm: noXFRM, marks: noMarks, l2tp: noL2TP, ppp: noPPP}, config.DataPathAuto, true, "esp+user+user", all[:4]},
		{"nothing but TUN, plain", machine{xfrm: noXFRM, l2tp: noL2TP, ppp: noPPP}, config.DataPathAuto, false, "none+user+user", all[1:3]},
		{"nothing", machine{xfrm: noXFRM, l2tp: noL2TP, ppp: noPPP, marks: noMarks, tun: noTUN}, config.DataPathAuto, true, "", all},
		{"no TUN", machine{l2tp: noL2TP, tun: noTUN}, config.DataPathAuto, true, "", []error{noL2TP, noTUN}},
		{"kernel wanted", machine{tun: noTUN}, config.DataPathKernel, true, "xfrm+kernel+kernel", nil},
		{"kernel wanted, lacking", machine{xfrm: noXFRM, ppp: noPPP}, config.DataPathKernel, true, "", []error{noXFRM, noPPP}},
		{"kernel wanted, plain", machine{xfrm: noXFRM}, config.DataPathKernel, false, "none+kernel+kernel", nil},
		{"userspace wanted", machine{}, config.DataPathUserspace, true, "esp+user+user", nil},
		{"userspace wanted, plain", machine{}, config.DataPathUserspace, false, "none+user+user", nil},
		{"userspace wanted, lacking", machine{tun: noTUN}, config.DataPathUserspace, true, "", []error{noTUN}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, why, err := tt.m.choose(tt.want, tt.ipsec)
			switch {
			case err != nil && tt.path != "":
				t.Fatal(err)
			case err != nil:
				why = err.Error()
			case p.name(tt.ipsec) != tt.path:
				t.Errorf("%s, want %q", p.name(tt.ipsec), tt.path)
			case why == "":
				t.Error("no reason")
			}
			for _, e := range all {
				named := false
				for _, n := range tt.names {
					named = named || n == e
				}
				if strings.Contains(why, e.Error()) != named {
					t.Errorf("reason %q: names %q: %v, want %v", why, e, !named, named)
				}
			}
		})
	}
}

// Plain L2TP without the kernel's must leave a way to IPsec open that works once the configuration wants it.
func TestPathForLaterIPsec(t *testing.T) {
	lack := errors.New("lacking")
	for _, m := range []machine{{l2tp: lack}, {l2tp: lack, xfrm: lack}, {ppp: lack, marks: lack}} {
		p, _, err := m.choose(config.DataPathAuto, false)
		if err != nil {
			t.Fatal(err)
		}
		if lacks := m.lacks(p, true); len(lacks) > 0 {
			t.Errorf("%s is chosen, and with IPsec %v", p.name(false), lacks)
		}
	}
}
