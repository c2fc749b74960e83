//go:build !race

// Nothing happens here that does not happen in TestSameSeedSameFigures and TestModesAgree, which the race detector sees.

package lab

import "testing"

// Of two methods, one fifty times as heavy as the other, none starves the other: both offer the same work, and get the
// same. The work that is done comes close to what can be done.
func TestMethodsBar(t *testing.T) {
	for _, name := range []string{"methods-50x", "methods-2s"} {
		t.Run(name, func(t *testing.T) { wantHalves(t, scenario(t, name)) })
	}
}

// The same where each is a tenant, and they share by what they cost at their best, as was learned in a calm time before:
// in front of a full pool a light call stays nearly as long as a heavy one.
func TestMethodsApartBar(t *testing.T) { wantHalves(t, scenario(t, "methods-apart")) }

// wantHalves judges a scenario of two methods that offer the same work.
func wantHalves(t *testing.T, s Scenario) {
	t.Helper()
	const seeds = 6 // a run differs from the next by .015
	work, first := 0.0, 0.0
	for seed := uint64(1); seed <= seeds; seed++ {
		f := Run(t, s, contestant(t, "spillway"), seed, Direct)
		work += f.WorkOfIdeal / seeds
		first += f.ByMethod[0].ShareOfWork / seeds
		t.Logf("seed %d: %.3f of the ideal in work; %v", seed, f.WorkOfIdeal, f.ByMethod)
		if one := f.ByMethod[0].ShareOfWork; one < 0.4 || one > 0.6 {
			t.Errorf("seed %d: %.3f of the work is of the first method, want half of it, within a fifth", seed, one)
		}
	}
	if work < s.Bar {
		t.Errorf("%.3f of the ideal in work, want %.2f", work, s.Bar)
	}
	if first < 0.45 || first > 0.55 {
		t.Errorf("%.3f of the work is of the first method, want half of it, within a tenth", first)
	}
}

// That the mix of methods turns over is neither overload nor capacity: it costs little of what the better of the two mixes
// would give all the time.
func TestMethodsShift(t *testing.T) {
	s := scenario(t, "methods-shift")
	mean := func(s Scenario) (work float64) {
		for seed := uint64(1); seed <= 3; seed++ {
			work += Run(t, s, contestant(t, "spillway"), seed, Direct).WorkOfIdeal / 3
		}
		return work
	}
	shifts, light, heavy := mean(s), mean(shifting("light", 0.9, 0.9)), mean(shifting("heavy", 0.1, 0.1))
	t.Logf("%.3f of the ideal in work; %.3f with the light mix all the time, %.3f with the heavy one", shifts, light, heavy)
	if shifts < s.Bar || shifts < max(light, heavy)-0.02 {
		t.Errorf("%.3f of the ideal in work, %.3f with the light mix all the time, %.3f with the heavy one;"+
			" want %.2f, and at most .02 less than the better", shifts, light, heavy, s.Bar)
	}
}
