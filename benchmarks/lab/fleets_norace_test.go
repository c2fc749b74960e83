//go:build !race

// The race detector takes many times as long, and TestModesAgree goes through gRPC under it.

package lab

import (
	"testing"
	"time"
)

// Spillway on both sides keeps its bars. What is there to be done is done, and little is sent only to be refused, or again;
// as soon as there is room for all, all are served. Where runs of one seed differ by much, since servers choose between
// calls of one instant, they take three or four times as long. The aim for goodput is .95 of the ideal. How soon goodput is
// normal is judged of all but chains and fans, where it comes and goes around that by chance.
func TestFleetBars(t *testing.T) {
	for name, bar := range map[string]struct {
		times                  int // as long as in the table
		goodput, refused, vain float64
	}{
		"10x":             {1, .93, .05, .01},
		"chain of 5":      {3, .95, .02, .03},
		"shared callee":   {3, .95, .02, .02},
		"fan-out of 10":   {4, .92, .02, .02},
		"spike of 5x":     {1, .95, .03, .01},
		"one slow":        {1, .97, .03, .02},
		"one frozen":      {1, .97, .03, .02},
		"rolling restart": {1, .9999, 0, 0}, // 1, but for roundings
	} {
		t.Run(name, func(t *testing.T) {
			fleet := chooseFleets(t, name)[0]
			fleet.Length *= time.Duration(bar.times)
			f := RunFleet(t, fleet, chooseCallers(t, "spillway")[0], 1)
			t.Logf("goodput %.3f, sent and refused %.3f, work in vain %.3f, attempts %.2f, normal after %.0f ms",
				f.ShareOfIdeal, f.SentRefused, f.InVain, f.Attempts, f.RecoveryMs)
			if f.ShareOfIdeal < bar.goodput || f.SentRefused > bar.refused || f.InVain > bar.vain || f.Attempts > 1.1 {
				t.Errorf("want a goodput of at least %v, at most %v sent and refused, %v of the work in vain, and 1.1 attempts",
					bar.goodput, bar.refused, bar.vain)
			}
			comesAndGoes := name == "chain of 5" || name == "fan-out of 10"
			if !comesAndGoes && (f.RecoveryMs < 0 || f.RecoveryMs > 500) {
				t.Error("want normal service within 500 ms, a deadline")
			}
			if name == "rolling restart" && f.Lost > 0 {
				t.Errorf("%d requests lost, want none", f.Lost)
			}
		})
	}
}
