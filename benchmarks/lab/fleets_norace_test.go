//go:build !race

// The race detector takes many times as long, and TestModesAgree goes through gRPC under it.

package lab

import "testing"

// Spillway on both sides keeps its bars, all of one seed. What is there to be done is done, and little is sent only to be
// refused, or again; as soon as there is room for all, all are served. The aim for goodput is .95 of the ideal, which single
// runs miss. Chains and fans, where callers serve requests themselves, fall short: see docs/callers.md.
func TestFleetBars(t *testing.T) {
	for name, bar := range map[string]struct{ goodput, refused, vain float64 }{
		"10x":             {.93, .05, .01},
		"chain of 5":      {.9, .08, .13},
		"shared callee":   {.9, .08, .12},
		"fan-out of 10":   {.82, .03, .05},
		"spike of 5x":     {.93, .05, .01},
		"one slow":        {.94, .05, .02},
		"one frozen":      {.94, .05, .02},
		"rolling restart": {1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := RunFleet(t, chooseFleets(t, name)[0], chooseCallers(t, "spillway")[0], 1)
			t.Logf("goodput %.3f, sent and refused %.3f, work in vain %.3f, attempts %.2f, normal after %.0f ms",
				f.ShareOfIdeal, f.SentRefused, f.InVain, f.Attempts, f.RecoveryMs)
			if f.ShareOfIdeal < bar.goodput || f.SentRefused > bar.refused || f.InVain > bar.vain {
				t.Errorf("want a goodput of at least %v, at most %v sent and refused, and %v of the work in vain",
					bar.goodput, bar.refused, bar.vain)
			}
			if f.Attempts > 1.1 {
				t.Error("want at most 1.1 attempts")
			}
			if name != "fan-out of 10" && (f.RecoveryMs < 0 || f.RecoveryMs > 500) {
				t.Error("want normal service within 500 ms, a deadline")
			}
			if name == "rolling restart" && f.Lost > 0 {
				t.Errorf("%d requests lost, want none", f.Lost)
			}
		})
	}
}
