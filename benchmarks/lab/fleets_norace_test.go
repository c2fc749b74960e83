//go:build !race

// The race detector takes many times as long, and TestModesAgree goes through gRPC under it.

package lab

import (
	"testing"
	"time"
)

// Spillway on both sides keeps its bars. What is there to be done is done, and little is sent only to be refused, or again;
// as soon as there is room for all, all are served. Servers choose between calls of one instant, so that runs of one seed
// differ: the figures judged are the means of some seeds, of runs that take three or four times as long, or of both. The
// aim for goodput is .95 of the ideal; a fan has .954 in the mean, and may have less by chance. How soon goodput is normal
// is judged of all but chains and fans, where it comes and goes around that by chance.
func TestFleetBars(t *testing.T) {
	for name, bar := range map[string]struct {
		seeds, times           int // from 1 on, and as long as in the table
		goodput, refused, vain float64
	}{
		"10x":             {3, 1, .95, .05, .01},
		"chain of 5":      {3, 3, .97, .02, .03},
		"shared callee":   {1, 3, .96, .02, .02},
		"fan-out of 10":   {2, 4, .94, .02, .02},
		"spike of 5x":     {3, 1, .95, .03, .01},
		"one slow":        {1, 1, .97, .03, .02},
		"one frozen":      {1, 1, .97, .03, .02},
		"rolling restart": {1, 1, .9999, 0, 0}, // 1, but for roundings
	} {
		t.Run(name, func(t *testing.T) {
			fleet := chooseFleets(t, name)[0]
			fleet.Length *= time.Duration(bar.times)
			comesAndGoes := name == "chain of 5" || name == "fan-out of 10"
			var goodput, refused, vain, attempts float64
			for seed := range bar.seeds {
				f := RunFleet(t, fleet, chooseCallers(t, "spillway")[0], uint64(seed+1))
				t.Logf("goodput %.3f, sent and refused %.3f, work in vain %.3f, attempts %.2f, normal after %.0f ms",
					f.ShareOfIdeal, f.SentRefused, f.InVain, f.Attempts, f.RecoveryMs)
				if !comesAndGoes && (f.RecoveryMs < 0 || f.RecoveryMs > 500) {
					t.Error("want normal service within 500 ms, a deadline")
				}
				if name == "rolling restart" && f.Lost > 0 {
					t.Errorf("%d requests lost, want none", f.Lost)
				}
				n := float64(bar.seeds)
				goodput += f.ShareOfIdeal / n
				refused += f.SentRefused / n
				vain += f.InVain / n
				attempts = max(attempts, f.Attempts)
			}
			if goodput < bar.goodput || refused > bar.refused || vain > bar.vain || attempts > 1.1 {
				t.Errorf("want a goodput of at least %v, at most %v sent and refused, %v of the work in vain, and 1.1 attempts",
					bar.goodput, bar.refused, bar.vain)
			}
		})
	}
}
