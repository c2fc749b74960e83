//go:build !race

// The race detector takes many times as long, and TestModesAgree goes through gRPC under it.

package lab

import (
	"math"
	"slices"
	"testing"
)

// Spillway on both sides keeps its bars. What is there to be done is done, and little is sent only to be refused, or again;
// as soon as there is room for all, all are served. The aim for goodput is .95 of the ideal, and .03 for work in vain, which
// single runs miss: servers choose between calls of one instant, so that runs of one seed differ. Chains and fans, which
// differ most, are judged by the median of three seeds.
func TestFleetBars(t *testing.T) {
	for name, bar := range map[string]struct {
		seeds                  int
		goodput, refused, vain float64
	}{
		"10x":             {1, .93, .05, .01},
		"chain of 5":      {3, .94, .05, .03},
		"shared callee":   {1, .93, .05, .05},
		"fan-out of 10":   {3, .92, .03, .02},
		"spike of 5x":     {1, .94, .03, .01},
		"one slow":        {1, .97, .03, .02},
		"one frozen":      {1, .97, .03, .02},
		"rolling restart": {1, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var goodput, refused, vain, back []float64
			for seed := range bar.seeds {
				f := RunFleet(t, chooseFleets(t, name)[0], chooseCallers(t, "spillway")[0], uint64(seed+1))
				t.Logf("goodput %.3f, sent and refused %.3f, work in vain %.3f, attempts %.2f, normal after %.0f ms",
					f.ShareOfIdeal, f.SentRefused, f.InVain, f.Attempts, f.RecoveryMs)
				goodput = append(goodput, f.ShareOfIdeal)
				refused = append(refused, f.SentRefused)
				vain = append(vain, f.InVain)
				if f.RecoveryMs < 0 { // never
					f.RecoveryMs = math.Inf(1)
				}
				back = append(back, f.RecoveryMs)
				if f.Attempts > 1.1 {
					t.Error("want at most 1.1 attempts")
				}
				if name == "rolling restart" && f.Lost > 0 {
					t.Errorf("%d requests lost, want none", f.Lost)
				}
			}
			if median(goodput) < bar.goodput || median(refused) > bar.refused || median(vain) > bar.vain {
				t.Errorf("want a goodput of at least %v, at most %v sent and refused, and %v of the work in vain",
					bar.goodput, bar.refused, bar.vain)
			}
			if name != "fan-out of 10" && median(back) > 500 {
				t.Error("want normal service within 500 ms, a deadline")
			}
		})
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
