package main

import (
	"slices"
	"strings"
	"testing"

	"culvert/ipsec"
	"culvert/ipsec/ikev1"
)

// What comes first follows what was measured, or else what the processor has; what every server knows is always there, in
// its order.
func TestCallOffer(t *testing.T) {
	common := ikev1.CommonSuites()
	cbc := common[0]
	for name, c := range map[string]struct {
		speeds       map[ipsec.Suite]float64
		instructions bool
		want         []ipsec.Suite
		why          string
	}{
		"nothing known, instructions":    {nil, true, gcm, "instructions for it"},
		"nothing known, no instructions": {nil, false, nil, "no instructions"},
		"GCM is faster":                  {map[ipsec.Suite]float64{cbc: 100, gcm[0]: 300, gcm[1]: 250}, false, gcm, "300 MB/s, and at 100"},
		"GCM is slower":                  {map[ipsec.Suite]float64{cbc: 100, gcm[0]: 80, gcm[1]: 60}, true, nil, "80 MB/s against 100"},
		"GCM is hardly faster":           {map[ipsec.Suite]float64{cbc: 100, gcm[0]: 115, gcm[1]: 110}, true, nil, "every server has it"},
		"one of the two is":              {map[ipsec.Suite]float64{cbc: 100, gcm[0]: 130, gcm[1]: 110}, true, gcm[:1], "130 MB/s"},
		"the longer key is the faster":   {map[ipsec.Suite]float64{cbc: 100, gcm[0]: 200, gcm[1]: 300}, true, []ipsec.Suite{gcm[1], gcm[0]}, "300 MB/s"},
		"GCM is not measured":            {map[ipsec.Suite]float64{cbc: 100}, true, gcm, "instructions"},
		"only GCM is":                    {map[ipsec.Suite]float64{gcm[0]: 100}, false, nil, "every server has it"},
	} {
		offer, why := callOffer(func(s ipsec.Suite) float64 { return c.speeds[s] }, c.instructions)
		if want := slices.Concat(c.want, common); !slices.Equal(offer, want) || !strings.Contains(why, c.why) {
			t.Errorf("%s: %v because %s", name, offer, why)
		}
		if len(offer) > 8 {
			t.Errorf("%s: %d transforms are too many for some servers", name, len(offer))
		}
	}
}
