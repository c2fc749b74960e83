package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bojand/ghz/printer"
	"github.com/bojand/ghz/runner"
	"google.golang.org/grpc/codes"
)

// measure turns what ghz saw of a phase into a line of the table.
func measure(server string, ph phase, capacity float64, during time.Duration, report *runner.Report) result {
	r := result{Server: server, Phase: ph.name}
	var answers, refusals []time.Duration
	var began time.Time
	for _, call := range report.Details {
		if start := call.Timestamp.Add(-call.Latency); began.IsZero() || start.Before(began) {
			began = start
		}
	}
	for _, call := range report.Details {
		switch {
		case call.Status == codes.OK.String() && call.Latency <= deadline:
			answers = append(answers, call.Latency)
		case call.Status == codes.OK.String(), call.Status == codes.DeadlineExceeded.String():
			r.Late++
		case call.Status == codes.ResourceExhausted.String():
			refusals = append(refusals, call.Latency)
			if call.Timestamp.Add(-call.Latency).Sub(began) > time.Second {
				r.RefusedAfter1s++
			}
		default:
			r.OtherErrors++
		}
	}
	// The last callers may still wait when the last call is sent: the phase is as long as calls were sent.
	seconds := min(during, report.Total).Seconds()
	r.OfferedPerS = float64(len(report.Details)) / seconds
	r.GoodputPerS = float64(len(answers)) / seconds
	r.GoodputOfCapacity = r.GoodputPerS / capacity
	r.P50Ms, r.P99Ms = milliseconds(percentile(answers, 0.50)), milliseconds(percentile(answers, 0.99))
	r.Refused = len(refusals)
	r.RefusalP99Ms = milliseconds(percentile(refusals, 0.99))
	return r
}

// percentile returns the smallest value that at least the share p of all are not above, 0 of none. It sorts.
func percentile(values []time.Duration, p float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max(0, int(math.Ceil(p*float64(len(values))))-1)]
}

func printJSON(w io.Writer, results []result) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		Phases []result `json:"phases"`
	}{results})
}

func printTable(w io.Writer, capacity float64, results []result) {
	fmt.Fprintf(w, "\nDeadline %v, capacity %.0f requests/s. Goodput: answers in time. NO: a refusal.\n\n", deadline, capacity)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "load\tserver\toffered/s\tgoodput/s\tof capacity\tp50\tp99\trefused\tlate\tp99 of a NO\t")
	for _, ph := range phases {
		for _, r := range results {
			if r.Phase != ph.name {
				continue
			}
			refusal := "-"
			if r.Refused > 0 {
				refusal = fmt.Sprintf("%.1f ms", r.RefusalP99Ms)
			}
			fmt.Fprintf(t, "%s\t%s\t%.0f\t%.0f\t%.0f%%\t%.0f ms\t%.0f ms\t%d\t%d\t%s\t\n", r.Phase, r.Server, r.OfferedPerS,
				r.GoodputPerS, 100*r.GoodputOfCapacity, r.P50Ms, r.P99Ms, r.Refused, r.Late, refusal)
		}
	}
	_ = t.Flush()
	fmt.Fprintln(w, verdict(results))
}

// verdict says in a line what the table shows.
func verdict(results []result) string {
	var without, with *result
	for i, r := range results {
		if r.Phase == "10x" && r.Server == bare {
			without = &results[i]
		}
		if r.Phase == "10x" && r.Server == protected {
			with = &results[i]
		}
	}
	if without == nil || with == nil {
		return ""
	}
	return fmt.Sprintf("\nAt ten times its capacity the bare server does %.0f%% of what it can, the protected one %.0f%%.",
		100*without.GoodputOfCapacity, 100*with.GoodputOfCapacity)
}

func reportName(server string, ph phase) string {
	return "ghz-" + server + "-" + strings.NewReplacer(" ", "-", ".", "_").Replace(ph.name) + ".json"
}

func reportGlob(dir string) string { return filepath.Join(dir, "ghz-*.json") }

// writeReport keeps ghz's own report of a phase, with every call in it.
func writeReport(dir, server string, ph phase, report *runner.Report) error {
	file, err := os.Create(filepath.Join(dir, reportName(server, ph)))
	if err != nil {
		return fmt.Errorf("the report of ghz cannot be written: %w", err)
	}
	p := printer.ReportPrinter{Out: file, Report: report}
	if err := p.Print("json"); err != nil {
		_ = file.Close()
		return fmt.Errorf("the report of ghz cannot be written: %w", err)
	}
	return file.Close()
}
