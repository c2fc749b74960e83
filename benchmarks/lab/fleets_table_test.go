package lab

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

var (
	fleetNames  = flag.String("fleet", "all", "fleets of TestFleets, by commas, or all")
	callerNames = flag.String("caller", "all", "callers of TestFleets, by commas, or all")
)

func chooseFleets(t *testing.T, list string) []Fleet {
	t.Helper()
	return chooseNamed(t, list, Fleets(), func(f Fleet) string { return f.Name })
}

func chooseCallers(t *testing.T, list string) []Caller {
	t.Helper()
	return chooseNamed(t, list, Callers(), func(c Caller) string { return c.Name })
}

func chooseNamed[T any](t *testing.T, list string, all []T, nameOf func(T) string) []T {
	t.Helper()
	named := func(name string) (T, bool) {
		i := slices.IndexFunc(all, func(x T) bool { return nameOf(x) == name })
		return all[max(0, i)], i >= 0
	}
	return choose(t, list, all, named, nameOf)
}

// TestFleets prints the table of figures, a line as each run ends. It judges nothing; see TestFleetBars.
func TestFleets(t *testing.T) {
	if !testing.Verbose() {
		return // nobody would see it
	}
	fmt.Printf("%-15s %-14s %9s %7s %7s %7s %9s %7s %8s %8s %8s %7s\n", "fleet", "caller", "offered/s", "goodput", "sent", "refused",
		"attempts", "vain", "back ms", "p50 ms", "p99 ms", "lost")
	for _, f := range chooseFleets(t, *fleetNames) {
		for _, c := range chooseCallers(t, *callerNames) {
			began := time.Now()
			r := RunFleet(t, f, c, *seed)
			fmt.Printf("%-15s %-14s %9.0f %7.3f %7.3f %7.3f %9.2f %7.3f %8.0f %8.1f %8.1f %7d  (%.1fs)\n", f.Name, c.Name, r.OfferedPerS,
				r.ShareOfIdeal, r.Sent, r.SentRefused, r.Attempts, r.InVain, r.RecoveryMs, r.P50Ms, r.P99Ms, r.Lost, time.Since(began).Seconds())
			if *trace {
				printTrace(r.Figures)
			}
		}
	}
}
