package lab

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	cases       = flag.String("case", "all", "scenarios of TestTable, by commas, or all")
	contestants = flag.String("contestant", "spillway,oracle", "contestants of TestTable, by commas, or all")
	seed        = flag.Uint64("seed", 1, "seed of TestTable")
	jsonFile    = flag.String("json", "", "file for the figures as JSON")
	mode        = flag.String("mode", "direct", "how calls reach the contestant: direct or grpc")
	trace       = flag.Bool("trace", false, "print limit, in-flight, line and goodput over time")
)

func TestMain(m *testing.M) {
	flag.Parse()
	runtime.GOMAXPROCS(1) // one goroutine at a time: the same seed, the same figures
	os.Exit(m.Run())
}

// choose returns those of all whose names are in a list by commas.
func choose[T any](t *testing.T, list string, all []T, name func(T) string) []T {
	if list == "all" {
		return all
	}
	var chosen []T
	for _, want := range strings.Split(list, ",") {
		i := slices.IndexFunc(all, func(x T) bool { return name(x) == want })
		if i < 0 {
			var names []string
			for _, x := range all {
				names = append(names, name(x))
			}
			t.Fatalf("no %q; there are: %s, and all", want, strings.Join(names, " "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen
}

// TestTable prints the table of figures, a line as each run ends. It judges nothing; see TestBars.
func TestTable(t *testing.T) {
	if !testing.Verbose() {
		return // nobody would see it
	}
	modes := map[string]Mode{"direct": Direct, "grpc": Grpc}
	if modes[*mode] == nil {
		t.Fatalf("no mode %q; there are: direct grpc", *mode)
	}
	var all []Figures
	fmt.Printf("%-15s %-18s %9s %9s %6s %8s %8s %8s %8s %7s  %s\n", "case", "contestant", "offered/s", "goodput/s", "share",
		"p50 ms", "p99 ms", "NO p99", "refused", "vain", "by tier")
	for _, s := range choose(t, *cases, Scenarios(), func(s Scenario) string { return s.Name }) {
		for _, c := range choose(t, *contestants, Contestants(), func(c Contestant) string { return c.Name }) {
			began := time.Now()
			f := Run(t, s, c, *seed, modes[*mode])
			tiers := ""
			if len(s.Tiers) > 0 {
				tiers = fmt.Sprintf("%.3f", f.SuccessByTier)
			}
			if len(s.Tenants) > 0 {
				tiers = fmt.Sprintf("tenants %.2f", f.ByTenant)
			}
			fmt.Printf("%-15s %-18s %9.0f %9.0f %6.3f %8.1f %8.1f %8.1f %8d %7.3f  %s (%.1fs)\n", f.Case, f.Contestant, f.OfferedPerS,
				f.GoodputPerS, f.ShareOfIdeal, f.P50Ms, f.P99Ms, f.RefusalP99Ms, f.Refused, f.InVain, tiers, time.Since(began).Seconds())
			if *trace {
				for _, p := range f.Trace {
					fmt.Printf("  %7.1fs offered %6.0f goodput %6.0f limit %5d in flight %5d line %4d\n", p.At.Seconds(), p.Offered,
						p.Goodput, p.Limit, p.InFlight, p.Line)
				}
			}
			if *plotDir != "" {
				draw(t, f)
			}
			all = append(all, f)
		}
	}
	if *jsonFile != "" {
		data, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*jsonFile, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
