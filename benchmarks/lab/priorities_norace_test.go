//go:build !race

// Nothing happens here that does not happen in TestTiersBar and TestTenantsBar, which the race detector sees.

package lab

import (
	"testing"
	"time"
)

// Who is served first costs the whole nothing, or little: the same load without criticalities and tenants is not served
// by .02 better. It is counted in work, for the answers differ in number by the luck of who was served.
func TestPrioritiesCostLittle(t *testing.T) {
	for _, name := range []string{"tiers", "flood", "abuser"} {
		t.Run(name, func(t *testing.T) {
			s := scenario(t, name).with(func(s *Scenario) { s.Length, s.Judged = 10*time.Second, 4*time.Second })
			alike := s.with(func(s *Scenario) { s.Tiers, s.Tenants = nil, nil })
			with, without := 0.0, 0.0
			for seed := uint64(1); seed <= 3; seed++ {
				f := Run(t, s, contestant(t, "spillway"), seed, Direct)
				with += f.WorkOfIdeal / 3
				without += Run(t, alike, contestant(t, "spillway"), seed, Direct).WorkOfIdeal / 3
				if len(s.Tiers) > 0 && f.SuccessByTier[0] < 0.999 {
					t.Errorf("seed %d: success of the highest criticality %.4f, want .999, for it fits", seed, f.SuccessByTier[0])
				}
			}
			t.Logf("%.3f of the ideal, %.3f if all are alike", with, without)
			if with < without-0.02 {
				t.Errorf("%.3f of the ideal, %.3f if all are alike; want at most .02 less", with, without)
			}
		})
	}
}
