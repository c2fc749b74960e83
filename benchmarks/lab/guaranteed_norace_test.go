//go:build !race

package lab

import (
	"testing"
	"time"
)

// What is guaranteed to a method is there for it, whatever flood of more critical calls there is beside it, and from the
// first second on when it comes back. The flood has the rest.
func TestGuaranteedBar(t *testing.T) {
	back := scenario(t, "guaranteed-back")
	first := back.with(func(s *Scenario) { s.Name, s.Length = "guaranteed-back, first second", s.Judged+time.Second })
	for _, s := range []Scenario{scenario(t, "guaranteed"), back, first} {
		t.Run(s.Name, func(t *testing.T) {
			work := 0.0 // a second of one seed is too short to judge the law that finds the limit
			for seed := uint64(1); seed <= 5; seed++ {
				f := Run(t, s, contestant(t, "spillway"), seed, Direct)
				t.Logf("seed %d: %.3f of the ideal in work; %v", seed, f.WorkOfIdeal, f.ByMethod)
				if success := f.ByMethod[0].Success; success < 0.98 {
					t.Errorf("seed %d: success of what is guaranteed %.3f, want .98", seed, success)
				}
				work += f.WorkOfIdeal / 5
			}
			if work < s.Bar {
				t.Errorf("%.3f of the ideal in work, want %.2f", work, s.Bar)
			}
		})
	}
}
