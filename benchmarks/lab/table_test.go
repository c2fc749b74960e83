package lab

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
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
	runtime.GOMAXPROCS(1) // a bubble is the faster for it; the figures are the same with more
	os.Exit(m.Run())
}

func chooseScenarios(t *testing.T, list string) []Scenario {
	t.Helper()
	all := Scenarios()
	named := func(name string) (Scenario, bool) {
		i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
		return all[max(0, i)], i >= 0
	}
	return choose(t, list, all, named, func(s Scenario) string { return s.Name })
}

func chooseContestants(t *testing.T, list string) []Contestant {
	t.Helper()
	return choose(t, list, Contestants(), contestantNamed, func(c Contestant) string { return c.Name }, "spillway@N, told@N")
}

// choose returns those that a list by commas names, or all. more are names to offer besides those of all.
func choose[T any](t *testing.T, list string, all []T, named func(string) (T, bool), nameOf func(T) string, more ...string) []T {
	t.Helper()
	if list == "all" {
		return all
	}
	var chosen []T
	for name := range strings.SplitSeq(list, ",") {
		one, ok := named(name)
		if !ok {
			var names []string
			for _, x := range all {
				names = append(names, nameOf(x))
			}
			t.Fatalf("no %q; there are: %s, and all", name, strings.Join(append(names, more...), " "))
		}
		chosen = append(chosen, one)
	}
	return chosen
}

// row is the form of a line of the table, but for its numbers' own.
const row = "%-15s %-18s %9s %9s %6s %6s %8s %8s %8s %8s %7s %8s  %s\n"

// TestTable prints the table of figures, a line as each run ends. It judges nothing; see TestBars.
func TestTable(t *testing.T) {
	if !testing.Verbose() {
		return // nobody would see it
	}
	modes := map[string]Mode{"direct": Direct, "grpc": Grpc}
	if modes[*mode] == nil {
		t.Fatalf("no mode %q; there are: direct grpc", *mode)
	}
	scenarios, rivals := chooseScenarios(t, *cases), chooseContestants(t, *contestants)
	var all []Figures
	fmt.Printf(row, "case", "contestant", "offered/s", "goodput/s", "share", "work", "p50 ms", "p99 ms", "NO p99", "refused", "vain", "back ms", "by tier")
	for _, s := range scenarios {
		for _, c := range rivals {
			began := time.Now()
			f := Run(t, s, c, *seed, modes[*mode])
			printRow(s, f, time.Since(began))
			if *trace {
				printTrace(f)
			}
			if *plotDir != "" {
				draw(t, f)
			}
			all = append(all, f)
			if *jsonFile != "" {
				writeJSON(t, all) // after every run: what is done is not lost with what is not
			}
		}
	}
}

func printRow(s Scenario, f Figures, took time.Duration) {
	number := func(decimals int, x float64) string { return strconv.FormatFloat(x, 'f', decimals, 64) }
	success := ""
	if len(s.Tiers) > 0 {
		success = fmt.Sprintf("%.3f", f.SuccessByTier)
	}
	if len(s.Tenants) > 0 {
		success = fmt.Sprintf("tenants %.2f", f.ByTenant)
	}
	for _, m := range f.ByMethod {
		success += fmt.Sprintf("%v; ", m)
	}
	back := "never"
	if f.RecoveryMs >= 0 {
		back = number(0, f.RecoveryMs)
	}
	fmt.Printf(row, f.Case, f.Contestant, number(0, f.OfferedPerS), number(0, f.GoodputPerS), number(3, f.ShareOfIdeal), number(3, f.WorkOfIdeal),
		number(1, f.P50Ms), number(1, f.P99Ms), number(1, f.RefusalP99Ms), strconv.Itoa(f.Refused), number(3, f.InVain), back,
		fmt.Sprintf("%s (%.1fs)", success, took.Seconds()))
}

func printTrace(f Figures) {
	for _, p := range f.Trace {
		fmt.Printf("  %7.1fs offered %6.0f goodput %6.0f limit %5d in flight %5d line %4d\n", p.At.Seconds(), p.Offered,
			p.Goodput, p.Limit, p.InFlight, p.Line)
	}
}

func writeJSON(t *testing.T, all []Figures) {
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*jsonFile, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
