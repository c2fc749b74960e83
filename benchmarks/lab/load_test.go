package lab

import (
	"math"
	"testing"
	"time"
)

// Methods offer the shares of the work that the scenario says, and the ideal does as much work as the workers can, in as
// many calls as the mix of the moment has.
func TestLoadOfMethods(t *testing.T) {
	s := scenario(t, "methods-shift")
	all := s.load(1)
	best := s.ideal(all)
	third := s.Length / 3
	for i, c := range []struct{ light, calls float64 }{{0.9, 910}, {0.1, 190}, {0.9, 910}} {
		from := time.Duration(i) * third
		light, work := 0.0, 0.0
		for _, r := range all {
			if r.at < from || r.at >= from+third {
				continue
			}
			work += r.size.Seconds()
			if r.method == 0 {
				light += r.size.Seconds()
			}
		}
		if got := light / work; math.Abs(got-c.light) > 0.03 {
			t.Errorf("third %d: %.3f of the work offered is of the light method, want %.1f", i, got, c.light)
		}
		if got := work / third.Seconds(); math.Abs(got-20) > 1 {
			t.Errorf("third %d: %.1f s of work offered a second, want 20", i, got)
		}
		possible := func(flow []float64) float64 { return sum(flow[from/tick:(from+third)/tick]) / third.Seconds() }
		if got := possible(best.work); math.Abs(got-10) > 0.1 {
			t.Errorf("third %d: %.2f s of work possible a second, want 10", i, got)
		}
		if got := possible(best.answers); math.Abs(got/c.calls-1) > 0.05 {
			t.Errorf("third %d: %.0f answers possible a second, want %.0f", i, got, c.calls)
		}
	}
}
