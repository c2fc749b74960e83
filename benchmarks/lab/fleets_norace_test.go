//go:build !race

// The race detector takes many times as long, and TestModesAgree goes through gRPC under it.

package lab

import "testing"

func fleetNamed(t *testing.T, name string) Fleet {
	t.Helper()
	return chooseFleets(t, name)[0]
}

// With Spillway on both sides nearly all that can be done is done, and little is sent only to be refused.
func TestSteadyFleet(t *testing.T) {
	f := RunFleet(t, fleetNamed(t, "10x"), chooseCallers(t, "spillway")[0], 1)
	t.Logf("%+v", f)
	if f.ShareOfIdeal < .94 { // the aim is .95, which single seeds may miss by .01
		t.Errorf("%.3f of the ideal, want .95", f.ShareOfIdeal)
	}
	if f.SentRefused > .05 || f.Attempts > 1.1 || f.InVain > .03 || f.RecoveryMs < 0 || f.RecoveryMs > 500 {
		t.Errorf("of the calls %.3f sent and refused, %.2f attempts, %.3f of the work in vain, normal after %.0f ms; want at most .05, 1.1, .03, 500",
			f.SentRefused, f.Attempts, f.InVain, f.RecoveryMs)
	}
}
