//go:build !race

// Nothing happens here that does not happen in TestSameSeedSameFigures and TestModesAgree, which the race detector sees.

package lab

import "testing"

// Whose callers have a minute takes nothing from those whose callers have half a second: of the same load both get the same.
func TestPatientTakeNothingFromImpatient(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		f := Run(t, scenario(t, "impatient"), contestant(t, "spillway"), seed, Direct)
		t.Logf("seed %d: %.3f of the ideal; %v", seed, f.ShareOfIdeal, f.ByMethod)
		if f.ShareOfIdeal < .97 {
			t.Errorf("seed %d: %.3f of the ideal, want .97", seed, f.ShareOfIdeal)
		}
		if one := f.ByMethod[0].ShareOfWork; one < .47 || one > .53 {
			t.Errorf("seed %d: %.3f of the work is for the impatient, want half of it", seed, one)
		}
	}
}

// Calls that only wait take nothing from the others, not even on a server that has just begun and knows nothing.
func TestWaitingTakesNothing(t *testing.T) {
	for _, name := range []string{"watches", "long-polls", "watched-3x"} {
		t.Run(name, func(t *testing.T) {
			s, share := scenario(t, name), 0.0
			for seed := uint64(1); seed <= 3; seed++ {
				f := Run(t, s, contestant(t, "spillway"), seed, Direct)
				t.Logf("seed %d: %.3f of the ideal; %v", seed, f.ShareOfIdeal, f.ByMethod)
				share += f.ShareOfIdeal / 3
				if f.ShareOfIdeal < s.Bar-0.03 {
					t.Errorf("seed %d: %.3f of the ideal, want %.2f in the mean, and at most .03 less", seed, f.ShareOfIdeal, s.Bar)
				}
			}
			if share < s.Bar {
				t.Errorf("%.3f of the ideal, want %.2f", share, s.Bar)
			}
		})
	}
}
